//! What predict leaves alone and keeps: inputs, foreign files, another process's lines, its own finished ones; and
//! forms of input.

use super::*;

/// Nothing of an input is lost, whatever name it goes by.
#[test]
fn an_output_that_is_an_input_is_refused_untouched() {
    let fixture = Fixture::new();
    let case = common::shared("cases/01/notes.jsonl")
        .map(|path| std::fs::read(path).unwrap())
        .unwrap_or_else(|| notes(2).into());
    fixture.write("n.jsonl", &case);
    let csv = "id,text,label\na,fever,1\nb,cough,0\n";
    fixture.write("n.csv", csv);
    std::os::unix::fs::symlink(fixture.path("n.jsonl"), fixture.path("symbolic.jsonl")).unwrap();
    std::fs::hard_link(fixture.path("n.jsonl"), fixture.path("hard.jsonl")).unwrap();
    fixture.write("sub/x", "");
    fixture.write("out.meta.json", &case);
    let checkpoint = "run/checkpoints/epoch-01";
    for name in ["run/metrics.jsonl", "run/run.json", "run/eval/metrics.json"] {
        fixture.write(name, "{}");
    }
    fixture.write("c.toml", "");
    let before = fixture.tree();
    for (input, output, told) in [
        ("n.jsonl", "n.jsonl", "input and output are the same file"),
        ("n.csv", "n.csv", "input and output are the same file"),
        ("n.jsonl", "symbolic.jsonl", "input and output are the same file"),
        ("symbolic.jsonl", "n.jsonl", "input and output are the same file"),
        ("n.jsonl", "hard.jsonl", "input and output are the same file"),
        ("n.jsonl", "sub/../n.jsonl", "input and output are the same file"),
        ("n.jsonl", "c.toml", "input and output are the same file"),
        ("n.jsonl", "base/config.json", "input and output are the same file"),
        ("n.jsonl", "base/model.safetensors", "input and output are the same file"),
        ("n.jsonl", "base/tokenizer.json", "input and output are the same file"),
        ("n.jsonl", &format!("{checkpoint}/cls_head.safetensors"), "is a file of a run or checkpoint"),
        ("n.jsonl", &format!("{checkpoint}/new.jsonl"), "is a file of a run or checkpoint"),
        ("n.jsonl", "run/checkpoints/new.jsonl", "is a file of a run or checkpoint"),
        ("n.jsonl", "run/best.json", "is a file of a run or checkpoint"),
        ("n.jsonl", "run/metrics.jsonl", "is a file of a run or checkpoint"),
        ("n.jsonl", "run/run.json", "is a file of a run or checkpoint"),
        ("n.jsonl", "run/eval/metrics.json", "is a file of a run or checkpoint"),
    ] {
        for flags in [
            &["--no-explanation", "--config", "c.toml"][..],
            &["--no-explanation", "--config", "c.toml", "--overwrite"],
        ] {
            let result = fixture.predict(input, output, flags);
            let refused = (result.status.code(), stderr(&result).contains(told) || !flags.contains(&"--overwrite"));
            assert_eq!(refused, (Some(2), true), "{input} -> {output}: {}", stderr(&result));
            assert!(fixture.tree() == before, "{input} -> {output} changed a file");
        }
    }
    // The sidecar of `out` is the input; and a shell can make the input stdout.
    let result = fixture.predict("out.meta.json", "out", &["--overwrite"]);
    assert_eq!(result.status.code(), Some(2), "{}", stderr(&result));
    let stdout = std::fs::OpenOptions::new().append(true).open(fixture.path("n.jsonl")).unwrap();
    let result = fixture.command("n.jsonl", "-", &[]).stdout(stdout).output().unwrap();
    assert!(result.status.code() == Some(2) && stderr(&result).contains("same file"), "{}", stderr(&result));
    assert!(fixture.tree() == before);
}

/// A run's own files are known whatever its checkpoint is called.
#[test]
fn a_short_name_of_the_model_gives_no_file_of_its_run_away() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(2));
    fixture.write("run/metrics.jsonl", "{}\n");
    let checkpoint = fixture.path("run/checkpoints/epoch-01");
    std::os::unix::fs::symlink(&checkpoint, fixture.path("link")).unwrap();
    std::os::unix::fs::symlink(checkpoint.join("new.jsonl"), fixture.path("out.jsonl")).unwrap();
    for (folder, model, output) in [
        ("run/checkpoints", "epoch-01", "../metrics.jsonl"),
        ("run/checkpoints/epoch-01", ".", "../../metrics.jsonl"),
        ("", "link", "run/metrics.jsonl"),
        ("", "link", "out.jsonl"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
        command.current_dir(fixture.path(folder)).args(["predict", "--model", model, "--output", output]);
        command.args(["--no-explanation", "--overwrite", "--input"]).arg(fixture.path("in.jsonl"));
        let told = command.output().unwrap();
        let refused = stderr(&told).contains("is a file of a run or checkpoint");
        assert_eq!((told.status.code(), refused), (Some(2), true), "{model}, {output}: {}", stderr(&told));
        assert_eq!(fixture.read("run/metrics.jsonl"), b"{}\n", "{model}, {output}");
    }
    assert!(!checkpoint.join("new.jsonl").exists());
}

/// Stdout and whatever else the shell has opened has no sidecar, not even where it is a file.
#[test]
fn what_is_open_already_is_written_like_the_dash() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    fixture.succeed("in.jsonl", "plain.jsonl", &["--no-explanation"]);
    for output in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let file = std::fs::File::create(fixture.path("first.jsonl")).unwrap();
        let mut command = fixture.command("in.jsonl", output, &["--no-explanation", "--json"]);
        let result = command.stdout(file).output().unwrap();
        assert_eq!(result.status.code(), Some(0), "{output}: {}", stderr(&result));
        assert_eq!(fixture.read("first.jsonl"), fixture.read("plain.jsonl"), "{output}");
    }
    let inner = fixture.command("in.jsonl", "/dev/fd/3", &["--no-explanation"]);
    let mut shell = Command::new("sh");
    shell.current_dir(fixture.path("")).args(["-c", "exec \"$0\" \"$@\" 3> third.jsonl"]);
    let result = shell.arg(inner.get_program()).args(inner.get_args()).output().unwrap();
    assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
    assert_eq!(fixture.read("third.jsonl"), fixture.read("plain.jsonl"));
}

#[test]
fn a_foreign_file_in_the_sidecars_place_is_kept() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    for foreign in ["my own notes", "{}", "[1]", "{\"schema\": 1}"] {
        fixture.write("out.jsonl.meta.json", foreign);
        for flags in [&[][..], &["--overwrite"]] {
            let result = fixture.predict("in.jsonl", "out.jsonl", flags);
            assert!(
                result.status.code() == Some(2) && stderr(&result).contains("no sidecar of ours"),
                "{}",
                stderr(&result)
            );
            assert_eq!(fixture.read("out.jsonl.meta.json"), foreign.as_bytes());
            assert!(!fixture.path("out.jsonl").exists());
        }
    }
}

#[test]
fn an_output_is_one_process_s_alone_by_any_name() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    fixture.write("out.jsonl", "");
    std::os::unix::fs::symlink(fixture.path("out.jsonl"), fixture.path("other.jsonl")).unwrap();
    let lock = clsgen::storage::OutputLock::acquire(&fixture.path("out.jsonl")).unwrap();
    for output in ["out.jsonl", "other.jsonl", "sub/../out.jsonl"] {
        fixture.write("sub/x", "");
        for flags in [&[][..], &["--overwrite"]] {
            let result = fixture.predict("in.jsonl", output, flags);
            let told = stderr(&result);
            assert_eq!(result.status.code(), Some(2), "{output}: {told}");
            assert!(told.contains(&format!("is locked by process {} on", std::process::id())), "{told}");
        }
    }
    assert_eq!(fixture.read("out.jsonl"), b"");
    drop(lock);
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    assert!(!fixture.path(".out.jsonl.lock").exists());
    // A hard link is another name of the same file too: the file itself is locked while it is written.
    std::fs::hard_link(fixture.path("out.jsonl"), fixture.path("hard.jsonl")).unwrap();
    std::fs::copy(fixture.path("out.jsonl.meta.json"), fixture.path("hard.jsonl.meta.json")).unwrap();
    let log = clsgen::storage::RecordLog::open(&fixture.path("out.jsonl")).unwrap();
    log.lock().unwrap();
    let result = fixture.predict("in.jsonl", "hard.jsonl", &[]);
    assert!(result.status.code() == Some(2) && stderr(&result).contains("another process"), "{}", stderr(&result));
}

#[test]
fn lines_that_were_changed_are_not_continued() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(6));
    fixture.succeed("in.jsonl", "out.jsonl", &["--no-explanation"]);
    let whole = String::from_utf8(fixture.read("out.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let flipped = whole.replacen("\"label\":0", "\"label\":1", 1);
    assert_ne!(flipped, whole);
    for changed in [flipped, lines[..3].join("\n") + "\n", lines[1..].join("\n") + "\n"] {
        fixture.write("out.jsonl", &changed);
        let result = fixture.predict("in.jsonl", "out.jsonl", &["--no-explanation"]);
        assert!(
            result.status.code() == Some(2) && stderr(&result).contains("was changed since"),
            "{}",
            stderr(&result)
        );
        assert_eq!(fixture.read("out.jsonl"), changed.as_bytes());
    }
    fixture.succeed("in.jsonl", "out.jsonl", &["--no-explanation", "--overwrite"]);
    assert_eq!(fixture.read("out.jsonl"), whole.as_bytes());
}

#[test]
fn an_output_name_that_is_not_utf8_is_a_name() {
    use std::os::unix::ffi::OsStrExt;
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.jsonl");
    let mut command = fixture.command("in.jsonl", "placeholder", &[]);
    command.arg("--no-explanation").arg("--json");
    let arguments: Vec<_> =
        command.get_args().map(|arg| if arg == "placeholder" { name.to_owned() } else { arg.to_owned() }).collect();
    for _ in 0..2 {
        let result =
            Command::new(command.get_program()).current_dir(fixture.path("")).args(&arguments).output().unwrap();
        assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
        assert_eq!(parse_lines(&std::fs::read(fixture.path("").join(name)).unwrap()).len(), 3);
    }
}

#[test]
fn every_stopping_signal_leaves_finished_lines_and_its_code() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(400));
    for (signal, code) in [("HUP", 129), ("USR1", 138), ("USR2", 140), ("TERM", 143), ("XCPU", 152)] {
        let output = format!("{signal}.jsonl");
        let command = fixture.command("in.jsonl", &output, &["--set", "generate.batch_tokens=1"]);
        let mut child = common::hearing_hangups(&command).stderr(Stdio::piped()).spawn().unwrap();
        common::wait_for_lines(&mut child, &fixture.path(&output), 1);
        common::send(signal, &child);
        let result = common::end_of(child);
        let told = stderr(&result);
        assert_eq!(result.status.code(), Some(code), "{told}");
        assert!(told.contains(&format!("stopped by SIG{signal}")) && told.contains("holds what is done"), "{told}");
        assert!((1..400).contains(&fixture.lines(&output).len()));
    }
}

#[test]
fn an_output_that_is_removed_is_not_written_to_in_the_dark() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(400));
    let mut child = fixture
        .command("in.jsonl", "out.jsonl", &["--set", "generate.batch_tokens=1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    common::wait_for_lines(&mut child, &fixture.path("out.jsonl"), 1);
    std::fs::remove_file(fixture.path("out.jsonl")).unwrap();
    let result = common::end_of(child);
    assert!(
        result.status.code() == Some(1) && stderr(&result).contains("was removed or replaced"),
        "{}",
        stderr(&result)
    );
    assert!(!fixture.path("out.jsonl").exists());
}

#[test]
fn a_checkpoint_that_stepped_aside_is_read_where_it_is() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(3));
    fixture.succeed("in.jsonl", "out.jsonl", &[]);
    let checkpoints = fixture.path("run/checkpoints");
    let aside = checkpoints.join(".epoch-01.aside-4294967294.0123abcd");
    std::fs::rename(checkpoints.join("epoch-01"), aside).unwrap();
    fixture.succeed("in.jsonl", "aside.jsonl", &[]);
    assert_eq!(fixture.read("aside.jsonl"), fixture.read("out.jsonl"));
}

/// Small files that were read wrongly or refused in riddles.
#[test]
fn forms_of_records_are_read_by_what_they_say_or_refused_by_name() {
    let Some(cases) = common::shared("cases") else { return };
    let fixture = Fixture::new();
    let at = |file: &str| cases.join(file).display().to_string();
    for (file, id) in [
        ("03/p_u32.parquet", "3000000000"),
        ("03/p_u64.parquet", "10254939386542155531"),
        ("03/p_deciint_id.parquet", "101.50"),
        ("03/p_date_id.parquet", "2020-01-01"),
        ("03/p_ts_id.parquet", "2020-01-01T01:01:00"),
        ("07/p_brotli.parquet", "a"),
    ] {
        let output = format!("{}.jsonl", id.replace(':', "-"));
        fixture.succeed(&at(file), &output, &["--no-explanation"]);
        assert_eq!(fixture.lines(&output)[0]["id"], id, "{file}");
    }
    fixture.succeed(&at("03/p_deciint_label.parquet"), "labels.jsonl", &["--no-explanation"]);
    let lines = fixture.lines("labels.jsonl");
    assert_eq!((&lines[0]["label"], &lines[1]["label"]), (&json!(1), &json!(0)));
    assert_eq!(lines[2]["error"]["kind"], "bad_label");
    for (file, told) in [
        ("08/c_names.csv", "Note ID, Note-Text"),
        ("08/c_semi.csv", "separated by `;`"),
        ("08/c_tab.csv", "separated by tabs"),
        ("08/p_list.parquet", "column text is a list"),
        ("09/c_gz.csv", "gzip-compressed"),
        ("09/j_gz.jsonl.gz", "gzip-compressed"),
        ("09/j_zst.jsonl", "zstd-compressed"),
        ("09/j_array.json", "is a JSON array"),
    ] {
        let result = fixture.predict(&at(file), "refused.jsonl", &["--no-explanation"]);
        assert_eq!(result.status.code(), Some(3), "{file}");
        assert!(stderr(&result).contains(told) && stderr(&result).contains("hint: "), "{file}: {}", stderr(&result));
    }
}
