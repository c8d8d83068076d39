//! What a kill, a full disk, a read-only place and a second process leave behind: the old state or the new, never half.

#[path = "faults/clusters.rs"]
mod clusters;
mod common;
#[path = "faults/corruption.rs"]
mod corruption;
#[path = "faults/numbers.rs"]
mod numbers;
#[path = "faults/places.rs"]
mod places;
#[path = "faults/power.rs"]
mod power;
#[path = "faults/privacy.rs"]
mod privacy;
#[path = "faults/signals.rs"]
mod signals;
#[path = "faults/sweep.rs"]
mod sweep;
#[path = "faults/together.rs"]
mod together;
#[path = "faults/typos.rs"]
mod typos;
#[path = "faults/work.rs"]
mod work;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use clsgen::storage::{self, AtomicDir, RecordLog, RunLock};
use common::Mount;

/// Runs `child` of this very test program as a process of its own, doing `job` on `path`.
fn spawnable(job: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env("FAULTS_JOB", job)
        .env("FAULTS_PATH", path);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::piped());
    command
}

/// Not a test by itself: the work of the processes that the tests below start and kill.
#[test]
fn child() {
    let (Some(job), Some(path)) = (std::env::var_os("FAULTS_JOB"), std::env::var_os("FAULTS_PATH")) else { return };
    let path = Path::new(&path);
    match job.to_str() {
        Some("directory") => {
            let dir = AtomicDir::create(path).unwrap();
            dir.write_file("a", b"new a").unwrap();
            dir.write_file("sub/b", b"new b").unwrap();
            dir.commit(true).unwrap();
        }
        Some("file") => storage::write_file_atomic(path, b"new").unwrap(),
        Some("log") => {
            let mut log = RecordLog::open(path).unwrap();
            for i in log.records()..10 {
                log.append(&serde_json::json!({ "i": i, "text": "some words to tear" })).unwrap();
            }
        }
        Some("lock") => {
            let _lock = RunLock::acquire(path).unwrap();
            println!("\nlocked");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        other => panic!("no job {other:?}"),
    }
}

fn points(prefix: &str) -> impl Iterator<Item = &'static str> {
    storage::points().iter().copied().filter(move |point| point.starts_with(prefix))
}

/// The points that storage lists are those that the source passes.
#[test]
fn every_fault_point_of_the_source_is_listed() {
    let grep = Command::new("grep")
        .args(["-rhoE", r#"(fault|due|named|spoiled)\("[a-z]+\.[a-z]+"[,)]"#, "src"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let source = String::from_utf8(grep.stdout).unwrap();
    let mut passed: Vec<&str> = source.lines().filter_map(|call| call.split('"').nth(1)).collect();
    let mut listed = storage::points().to_vec();
    passed.sort_unstable();
    passed.dedup();
    listed.sort_unstable();
    assert_eq!(passed, listed);
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_killed_at_any_point_is_the_old_one_or_the_new_one() {
    let mut kills = 0;
    for replacing in [false, true] {
        for fault in points("dir.").flat_map(|point| [format!("{point}:1"), format!("{point}:2")]) {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("epoch-01");
            if replacing {
                let old = AtomicDir::create(&path).unwrap();
                old.write_file("a", b"old a").unwrap();
                old.commit(true).unwrap();
            }
            let status = spawnable("directory", &path).env("CLSGEN_FAULT", &fault).status().unwrap();
            let second_passage_of_a_single_point = fault.ends_with(":2") && !fault.starts_with("dir.write");
            // Nothing steps aside where there was nothing.
            let not_passed = fault == "dir.aside:1" && !replacing;
            assert_eq!(status.success(), second_passage_of_a_single_point || not_passed, "{fault}");
            kills += usize::from(!status.success());
            match std::fs::read(path.join("a")) {
                Ok(bytes) => {
                    assert!(storage::verify_manifest(&path).unwrap(), "{fault}");
                    let new = bytes == b"new a" && std::fs::read(path.join("sub/b")).unwrap() == b"new b";
                    assert!(new || (replacing && bytes == b"old a"), "{fault}");
                }
                // Where two directories cannot be swapped, the old one stepped aside whole, and its readers find it
                // there.
                Err(_) if replacing && fault == "dir.aside:1" => {
                    let aside = storage::stepped_aside(&path).unwrap();
                    assert!(storage::verify_manifest(&aside).unwrap(), "{fault}");
                    let read = storage::read_unchanged(&path, |dir| Ok(std::fs::read(dir.join("a")).unwrap())).unwrap();
                    assert_eq!(read, b"old a");
                }
                Err(_) => assert!(!replacing && !path.exists(), "{fault}: a directory without its files"),
            }
            // The next writer succeeds and leaves nothing of the dead one.
            assert!(spawnable("directory", &path).status().unwrap().success());
            assert_eq!(std::fs::read(path.join("a")).unwrap(), b"new a");
            assert_eq!(names(root.path()), ["epoch-01"], "{fault}");
        }
    }
    common::say(&format!("kill sweep: {} points, {kills} kills of a directory's writer", points("dir.").count()));
}

#[test]
fn a_directory_replaced_while_it_is_read_is_read_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("last");
    let commit = |content: &[u8]| {
        let dir = AtomicDir::create(&path).unwrap();
        dir.write_file("adapter", content).unwrap();
        dir.write_file("head", content).unwrap();
        dir.commit(true).unwrap();
    };
    let file =
        |dir: &Path, name: &str| std::fs::read(dir.join(name)).map_err(|e| storage::error("cannot read", dir, &e));
    commit(b"0");
    let spoilers: [(&str, &dyn Fn()); 3] = [
        ("the directory is swapped", &|| commit(b"1")),
        ("a file in it is replaced", &|| storage::write_file_atomic(&path.join("head"), b"2").unwrap()),
        ("a file in it is overwritten", &|| std::fs::write(path.join("head"), b"33").unwrap()),
    ];
    for (what, spoil) in spoilers {
        let mut readings = 0;
        let read = storage::read_unchanged(&path, |dir| {
            readings += 1;
            assert!(storage::verify_manifest(dir).is_ok() || readings > 1);
            let adapter = file(dir, "adapter")?;
            if readings == 1 {
                spoil();
            }
            Ok((adapter, file(dir, "head")?))
        });
        assert_eq!(readings, 2, "{what}");
        assert_eq!(read.unwrap(), (file(&path, "adapter").unwrap(), file(&path, "head").unwrap()), "{what}");
        commit(b"0");
    }
    // One that is replaced for ever is an error, and so is one that is not there.
    let mut n = 0;
    let told = storage::read_unchanged(&path, |_| {
        n += 1;
        commit(n.to_string().as_bytes());
        Ok(())
    });
    assert_eq!(told.unwrap_err().exit_code(), 4);
    assert!(storage::read_unchanged(&root.path().join("absent"), |dir| file(dir, "a")).is_err());
}

#[test]
fn names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    storage::write_file_atomic(&path, b"x").unwrap();
    storage::write_file_atomic(&path, b"y").unwrap();
    std::fs::remove_file(&path).unwrap();
    for content in [b"old", b"new"] {
        let dir = AtomicDir::create(&path).unwrap();
        dir.write_file("a", content).unwrap();
        dir.commit(true).unwrap();
    }
    assert_eq!(std::fs::read(path.join("a")).unwrap(), b"new");
    drop(storage::OutputLock::acquire(&path.join("a")).unwrap());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_file_killed_at_any_point_is_the_old_one_or_the_new_one() {
    for point in points("file.") {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("best.json");
        std::fs::write(&path, "old").unwrap();
        assert!(!spawnable("file", &path).env("CLSGEN_FAULT", point).status().unwrap().success(), "{point}");
        let now = std::fs::read_to_string(&path).unwrap();
        assert_eq!(now, if point == "file.renamed" { "new" } else { "old" }, "{point}");
        // Whoever locks the directory next sweeps what was left.
        drop(RunLock::acquire(root.path()).unwrap());
        assert_eq!(names(root.path()), [".lock", "best.json"], "{point}");
    }
    common::say(&format!("kill sweep: {} points, each of a file's writer", points("file.").count()));
}

#[test]
fn a_log_killed_at_any_record_goes_on_with_no_record_lost_or_doubled() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole.jsonl");
    assert!(spawnable("log", &whole).status().unwrap().success());
    for fault in points("log.").flat_map(|point| (1..=10).map(move |n| format!("{point}:{n}"))) {
        let path = root.path().join("log.jsonl");
        assert!(!spawnable("log", &path).env("CLSGEN_FAULT", &fault).status().unwrap().success(), "{fault}");
        assert!(spawnable("log", &path).status().unwrap().success(), "{fault}");
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&whole).unwrap(), "{fault}");
        std::fs::remove_file(&path).unwrap();
    }
    common::say(&format!("kill sweep: {} points, each at ten records of a log", points("log.").count()));
}

#[test]
fn a_second_process_is_refused_naming_the_first_and_a_dead_one_holds_nothing() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    let mut holder = spawnable("lock", &run).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "locked"), "the holder holds");

    let predictions = predictions(root.path());
    let refused = eval(&predictions, &run);
    common::assert_fails(&refused, 2, &["is locked by process", &format!("process {} on ", holder.id()), "hint: "]);

    holder.kill().unwrap(); // SIGKILL: it cannot clean up
    holder.wait().unwrap();
    let now = eval(&predictions, &run);
    assert_eq!(now.code, Some(0), "{now:?}");
}

#[test]
fn a_full_disk_keeps_what_was_whole() {
    let root = tempfile::tempdir().unwrap();
    // A disk for each part: a process that another test is just forking can hold a deleted file, and its space, for a
    // moment.
    let disk = |name: &str| {
        let place = root.path().join(name);
        Mount::tmpfs(&place, "size=256k").map(|mount| (mount, place))
    };
    let Some((_mount, place)) = disk("directory") else { return };
    let dir = AtomicDir::create(&place.join("epoch-01")).unwrap();
    let error = dir.write_file("big", &vec![7; 1 << 20]).unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("No space left") && error.hint_text().is_some(), "{error}");
    drop(dir);
    assert_eq!(names(&place), Vec::<String>::new());

    let Some((_mount, place)) = disk("file") else { return };
    storage::write_file_atomic(&place.join("best.json"), b"old").unwrap();
    assert_eq!(storage::write_file_atomic(&place.join("best.json"), &vec![7; 1 << 20]).unwrap_err().exit_code(), 5);
    assert_eq!(std::fs::read(place.join("best.json")).unwrap(), b"old");

    let Some((mount, place)) = disk("log") else { return };
    let mut log = RecordLog::open(&place.join("metrics.jsonl")).unwrap();
    let line = "x".repeat(1000);
    let error = (0..1000).find_map(|_| log.append(&line).err()).unwrap();
    assert_eq!(error.exit_code(), 5);
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert_eq!((text.lines().count(), text.len() as u64), (log.records(), log.length()));
    assert!(text.ends_with("\"\n") && log.records() > 50);

    // The program itself, on the disk that is now full.
    let told = eval(&predictions(root.path()), &place.join("run"));
    common::assert_fails(&told, 5, &["No space left on device", "hint: free some space"]);
    drop(mount);
}

#[test]
fn a_read_only_place_is_refused_with_exit_5() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("fixed");
    let Some(mount) = Mount::tmpfs(&place, "size=64k") else { return };
    mount.read_only();
    let told = eval(&predictions(root.path()), &place.join("run"));
    common::assert_fails(&told, 5, &["Read-only file system", "hint: "]);
    assert_eq!(AtomicDir::create(&place.join("x")).unwrap_err().exit_code(), 5);
    assert_eq!(storage::write_file_atomic(&place.join("x"), b"x").unwrap_err().exit_code(), 5);
}

#[test]
fn a_full_stdout_is_exit_5_and_a_closed_one_is_silent() {
    for args in [&["man"][..], &["completions", "bash"], &["train", "--dry-run"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let told = common::outcome(common::clsgen().args(args).stdout(full));
        // `output()` pipes only what is not set.
        common::assert_fails(&told, 5, &["cannot write to stdout: No space left on device"]);

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let told = common::outcome(common::clsgen().args(args).stdout(writer));
        assert_eq!((told.code, told.stderr.as_str()), (Some(141), ""), "{args:?}");
    }
}

/// A prediction file that `eval` can score.
fn predictions(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("predictions.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    for i in 0..8 {
        let label = i % 2;
        let probability = 0.1 + 0.1 * f64::from(i);
        writeln!(
            file,
            concat!(
                r#"{{"id":"{i}","label":{label},"probability":{probability},"logits":[0.0,0.0],"#,
                r#""verbalized_label":{label},"parsable":true,"explanation":"e","text":"t","agreement":true,"#,
                r#""prompt_tokens":1,"truncated_tokens":0,"generated_tokens":1,"finish":"stop","error":null}}"#
            ),
            i = i,
            label = label,
            probability = probability
        )
        .unwrap();
    }
    path
}

fn eval(predictions: &Path, run: &Path) -> common::Outcome {
    common::outcome(common::clsgen().arg("eval").arg("--predictions").arg(predictions).arg("--run").arg(run))
}
