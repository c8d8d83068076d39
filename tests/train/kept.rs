//! What a run keeps whatever happens to it: signals, kills, damage, files of others in its place.

use super::*;

#[test]
fn every_stopping_signal_saves_and_has_its_code_and_nohup_stays_nohup() {
    let fixture = Fixture::new();
    let log = |run: &str| fixture.path(&format!("{run}/metrics.jsonl"));
    for (signal, code) in [("HUP", 129), ("INT", 130), ("USR1", 138), ("USR2", 140), ("XCPU", 152)] {
        let command = fixture.command(signal, &["--set", "train.epochs=500"]);
        let mut child = common::hearing_hangups(&command).stderr(Stdio::piped()).spawn().unwrap();
        common::wait_for_lines(&mut child, &log(signal), 2);
        common::send(signal, &child);
        let output = common::end_of(child);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{signal}: {told}");
        assert!(told.contains(&format!("stopped by SIG{signal} after step")) && told.contains("state saved"), "{told}");
        let done = fixture.log(signal, "step").len();
        let limit = format!("train.max_steps={}", done + 1);
        fixture.succeed(signal, &["--resume", "--set", "train.epochs=500", "--set", &limit]);
        assert_eq!(fixture.log(signal, "step").len(), done + 1, "{signal}");
    }
    // Started by nohup, a run outlives its terminal.
    let inner = fixture.command("nohup", &["--set", "train.epochs=500"]);
    let arguments = inner.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())).collect::<Vec<_>>().join(" ");
    let script = format!("trap '' HUP; exec {} {arguments}", env!("CARGO_BIN_EXE_clsgen"));
    let mut child =
        Command::new("sh").current_dir(fixture.path("")).args(["-c", &script]).stderr(Stdio::null()).spawn().unwrap();
    common::wait_for_lines(&mut child, &log("nohup"), 2);
    common::send("HUP", &child);
    let seen = fixture.log("nohup", "step").len();
    common::wait_until(&mut child, "three steps after SIGHUP", || fixture.log("nohup", "step").len() >= seen + 3);
    common::send("TERM", &child);
    assert_eq!(common::end_of(child).status.code(), Some(143));
}

/// NFS and Lustre cannot swap two directories: the old one steps aside first, and a kill comes before the new one takes
/// its place.
#[test]
fn a_kill_between_two_renames_loses_nothing() {
    let fixture = Fixture::new();
    fixture.succeed("whole", &[]);
    let whole = fixture.result("whole");
    for passage in 1..=4 {
        let run = format!("run-{passage}");
        let every_step = ["--set", "train.save_every_steps=1"];
        let killed =
            fixture.command(&run, &every_step).env("CLSGEN_FAULT", format!("dir.aside:{passage}")).output().unwrap();
        assert_eq!(killed.status.code(), None, "{}", stderr(&killed));
        let last = fixture.path(&format!("{run}/checkpoints/last"));
        let aside = clsgen::storage::stepped_aside(&last).unwrap();
        assert!(aside.join("trainer.json").exists() && !last.exists());
        let refused = fixture.fail(&run, &[], 2);
        assert!(refused.contains("holds a training run already"), "{refused}");
        let resumed = fixture.succeed(&run, &["--resume"]);
        assert!(stderr(&resumed).contains("resuming from"), "{}", stderr(&resumed));
        assert_same(&whole, &fixture.result(&run), &run);
        assert!(!aside.exists());
    }
}

#[test]
fn a_run_of_which_only_dot_names_are_left_is_not_new() {
    let fixture = Fixture::new();
    fixture.succeed("whole", &[]);
    let whole = fixture.result("whole");
    for (name, kept) in [(".epoch-02.aside-4294967294.0123abcd", "epoch-02"), (".epoch-02.tmp-4294967294", "epoch-02")]
    {
        let run = name.trim_start_matches('.').to_owned();
        fixture.succeed(&run, &[]);
        let checkpoints = fixture.path(&format!("{run}/checkpoints"));
        std::fs::rename(checkpoints.join(kept), checkpoints.join(name)).unwrap();
        for gone in ["epoch-01", "last"] {
            std::fs::remove_dir_all(checkpoints.join(gone)).unwrap();
        }
        assert!(fixture.fail(&run, &[], 2).contains("holds a training run already"));
        let resumed = fixture.succeed(&run, &["--resume"]);
        assert!(stderr(&resumed).contains("step 6 of 6"), "{}", stderr(&resumed));
        assert_eq!(fixture.result(&run)["epoch-02/trainer.json"], whole["epoch-02/trainer.json"]);
    }
}

#[test]
fn a_run_whose_checkpoints_are_all_damaged_is_not_started_over() {
    let fixture = Fixture::new();
    fixture.succeed("run", &[]);
    for checkpoint in ["epoch-01", "epoch-02", "last"] {
        fixture.write(&format!("run/checkpoints/{checkpoint}/trainer.safetensors"), "damaged");
    }
    let before = fixture.read("run/metrics.jsonl");
    let told = fixture.fail("run", &["--resume"], 4);
    assert!(
        told.contains("no checkpoint of run can be resumed from") && told.contains("trainer.safetensors"),
        "{told}"
    );
    assert_eq!(fixture.read("run/metrics.jsonl"), before);
}

#[test]
fn constructed_records_that_were_changed_are_refused() {
    let fixture = Fixture::new();
    let records = fixture::notes(8, true);
    let hash = |name: &str| clsgen::storage::hash_file(&fixture.path(name)).unwrap();
    fixture.write("run/construct/train.jsonl", &records);
    let source = clsgen::data::source_hash(&fixture.path("train.jsonl")).unwrap();
    let stats = json!({"splits": {"train": {"source": {"blake3": source},
        "output": {"blake3": hash("run/construct/train.jsonl")}}}});
    fixture.write("run/construct/stats.json", stats.to_string());
    let flipped = records.replacen("\"label\":1", "\"label\":0", 1);
    let shorter: String = records.lines().take(5).map(|line| format!("{line}\n")).collect();
    for changed in [flipped, shorter] {
        fixture.write("run/construct/train.jsonl", changed);
        let told = fixture.fail("run", &[], 3);
        assert!(told.contains("construct/train.jsonl was changed since"), "{told}");
    }
    // Training on the source instead would be another run, and no file would say so.
    std::fs::remove_file(fixture.path("run/construct/train.jsonl")).unwrap();
    let told = fixture.fail("run", &["--set", "train.objective=cls"], 3);
    assert!(told.contains("construct/train.jsonl is gone, and "), "{told}");
    fixture.write("run/construct/train.jsonl", &records);
    fixture.write("whole.toml", "user = \"{document}\"\nresponse = \"{explanation}\"\n");
    let told = fixture.fail("run", &["--set", "task.prompt=whole.toml"], 2);
    assert!(told.contains("which construct takes off"), "{told}");
    fixture.succeed("run", &[]);
}

#[test]
fn a_run_directory_removed_while_training_is_not_made_anew() {
    let fixture = Fixture::new();
    let mut child = fixture.command("run", &["--set", "train.epochs=500"]).stderr(Stdio::piped()).spawn().unwrap();
    common::wait_for_lines(&mut child, &fixture.path("run/metrics.jsonl"), 2);
    // In one step: while its files go one by one, others may still come.
    std::fs::rename(fixture.path("run"), fixture.path("gone")).unwrap();
    let output = common::end_of(child);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("/run was removed while this command worked in it"), "{}", stderr(&output));
    assert!(!fixture.path("run").exists());
}

#[test]
fn a_foreign_log_and_a_config_in_the_runs_place_are_kept() {
    let fixture = Fixture::new();
    fixture.write("run/metrics.jsonl", "{\"mine\": 1}\n{\"mine\": 2}\n");
    assert!(fixture.fail("run", &[], 2).contains("is there already, and no train.json says which run it is of"));
    assert_eq!(fixture.read("run/metrics.jsonl"), b"{\"mine\": 1}\n{\"mine\": 2}\n");
    let notes = fixture.read("train.jsonl");
    fixture.write("own/metrics.jsonl", &notes);
    let told = fixture.fail("own", &["--set", "data.train=\"own/metrics.jsonl\""], 2);
    assert!(told.contains("is there already"), "{told}");
    assert_eq!(fixture.read("own/metrics.jsonl"), notes);
}

#[test]
fn a_window_beyond_the_models_positions_is_refused_unless_insisted_on() {
    let fixture = Fixture::new();
    let long = ["--set", "model.max_input_tokens=600"];
    let told = fixture.fail("run", &long, 2);
    assert!(
        told.contains("600 + ") && told.contains("max_position_embeddings = 512") && told.contains("model.allow_long"),
        "{told}"
    );
    assert!(!fixture.path("run/run.json").exists(), "refused before any work");
    let insisting = [&long[..], &["--set", "model.allow_long=true", "--set", "train.max_steps=1"]].concat();
    assert!(fixture.command("run", &insisting).output().unwrap().status.success());
}

#[test]
fn a_checkpoint_cut_off_at_any_point_is_passed_over() {
    let fixture = Fixture::new();
    fixture.succeed("whole", &[]);
    let whole = fixture.result("whole");
    let points = clsgen::storage::points();
    let mut kills = 0;
    for point in points {
        for passage in [1, 3] {
            let run = format!("{point}-{passage}");
            let mut command = fixture.command(&run, &["--set", "train.save_every_steps=1"]);
            let output = check(command.env("CLSGEN_FAULT", format!("{point}:{passage}")).output().unwrap());
            kills += usize::from(output.status.code().is_none());
            fixture.succeed(&run, &["--resume"]);
            assert_same(&whole, &fixture.result(&run), &run);
        }
    }
    common::say(&format!("kill sweep: {} points, {kills} kills of train", points.len()));
}

#[test]
fn a_signal_saves_the_epoch_and_a_resume_goes_on() {
    let fixture = Fixture::new();
    let mut child =
        fixture.command("run", &["--quiet", "--set", "train.epochs=500"]).stderr(Stdio::null()).spawn().unwrap();
    common::wait_for_lines(&mut child, &fixture.path("run/metrics.jsonl"), 2);
    common::send("TERM", &child);
    assert_eq!(common::end_of(child).status.code(), Some(143));
    let done = fixture.log("run", "step").len();
    let epoch = done.div_ceil(3);
    let state = fixture.json(&format!("run/checkpoints/epoch-{epoch:02}/trainer.json"));
    assert_eq!(state["step"], json!(done));
    assert!(fixture.json("run/best.json")["epoch"].is_u64());
    let limit = format!("train.max_steps={}", done + 2);
    fixture.succeed("run", &["--resume", "--set", "train.epochs=500", "--set", &limit]);
    fixture.succeed("whole", &["--set", "train.epochs=500", "--set", &limit]);
    assert_same(&fixture.result("whole"), &fixture.result("run"), "signal");
}

#[test]
fn a_broken_newest_checkpoint_falls_back_to_the_one_before() {
    let fixture = Fixture::new();
    fixture.succeed("whole", &[]);
    let whole = fixture.result("whole");
    let path = "whole/checkpoints/epoch-02/adapter_model.safetensors";
    let mut bytes = fixture.read(path);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fixture.write(path, bytes);
    let output = fixture.succeed("whole", &["--resume"]);
    assert!(stderr(&output).contains("epoch-02"), "{}", stderr(&output));
    assert_same(&whole, &fixture.result("whole"), "broken epoch-02");
}

#[test]
fn explanations_constructed_for_dev_give_its_generation_loss() {
    let fixture = Fixture::new();
    let metrics = |run: &str| fixture.json(&format!("{run}/checkpoints/epoch-01/dev.metrics.json"));
    let one = ["--set", "train.epochs=1"];
    fixture.succeed("before", &one);
    assert_eq!(metrics("before")["loss_gen"], Value::Null, "dev has no explanations of its own");

    // What construct leaves: three of the six records are explained, one is kept for its label alone, the rest were
    // dropped.
    let dev = String::from_utf8(fixture.read("dev.jsonl")).unwrap();
    let explained = |i: usize, line: &str, text: Value| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record["explanation"] = if i < 3 { text } else { Value::Null };
        record.to_string() + "\n"
    };
    let constructed: String =
        dev.lines().enumerate().take(4).map(|(i, line)| explained(i, line, json!("It was seen."))).collect();
    let construct = |run: &str, source: &str, records: &str| {
        fixture.write(&format!("{run}/construct/dev.jsonl"), records);
        let hash = |name: &str| clsgen::storage::hash_file(&fixture.path(name)).unwrap();
        let output = hash(&format!("{run}/construct/dev.jsonl"));
        let stats = json!({"splits": {"dev": {"source": {"blake3": hash(source)}, "output": {"blake3": output}}}});
        fixture.write(&format!("{run}/construct/stats.json"), stats.to_string());
    };
    construct("after", "dev.jsonl", &constructed);
    fixture.succeed("after", &one);
    let before = metrics("before");
    let after = metrics("after");
    assert!(after["loss_gen"].as_f64().unwrap() > 0.0, "{after}");
    assert_eq!(
        (&after["loss_cls"], &after["auroc"]),
        (&before["loss_cls"], &before["auroc"]),
        "dev is scored whole, as before"
    );
    let inputs = fixture.json("after/run.json")["inputs"].to_string();
    assert!(inputs.contains("construct/dev.jsonl"), "{inputs}");

    // The same as if data.dev had held them; and where it does, its own count.
    let own: String = dev.lines().enumerate().map(|(i, line)| explained(i, line, json!("It was seen."))).collect();
    fixture.write("own.jsonl", &own);
    let of_own = ["--set", "train.epochs=1", "--set", "data.dev=own.jsonl"];
    fixture.succeed("own", &of_own);
    assert_eq!(metrics("own")["loss_gen"], after["loss_gen"]);
    construct("both", "own.jsonl", &constructed.replace("It was seen.", "Who can say why, or how, or when?"));
    fixture.succeed("both", &of_own);
    assert_eq!(metrics("both")["loss_gen"], after["loss_gen"]);

    // Every record may have been dropped.
    construct("none", "dev.jsonl", "");
    fixture.succeed("none", &one);
    assert_eq!(metrics("none")["loss_gen"], Value::Null);
}

#[test]
fn explanations_of_dev_belong_to_their_run() {
    let fixture = Fixture::new();
    let dev = String::from_utf8(fixture.read("dev.jsonl")).unwrap();
    let constructed = dev.replace("\"label\"", "\"explanation\":\"It was seen.\",\"label\"");
    fixture.write("run/construct/dev.jsonl", &constructed);
    let hash = |name: &str| clsgen::storage::hash_file(&fixture.path(name)).unwrap();
    let stats = |source: &str, settings: Value| {
        let output = json!({"blake3": hash("run/construct/dev.jsonl")});
        json!({"splits": {"dev": {"source": {"blake3": hash(source)}, "output": output, "settings": settings}}})
            .to_string()
    };
    fixture.write("run/construct/stats.json", stats("train.jsonl", json!({})));
    assert!(fixture.fail("run", &[], 2).contains("from other records than data.dev"));
    fixture.write("run/construct/stats.json", stats("dev.jsonl", json!({"task.labels": ["no", "yes"]})));
    let told = fixture.fail("run", &[], 2);
    assert!(told.contains("construct/dev.jsonl was constructed under other settings"), "{told}");
    fixture.write("run/construct/stats.json", stats("dev.jsonl", json!({})));
    fixture.write("run/construct/dev.jsonl", constructed.replacen("seen", "felt", 1));
    assert!(fixture.fail("run", &[], 3).contains("construct/dev.jsonl was changed since"));

    // A run goes on as it began: with them, or without.
    fixture.write("run/construct/dev.jsonl", &constructed);
    let stopped = ["--set", "train.max_steps=2"];
    fixture.succeed("run", &stopped);
    fixture.succeed("run", &["--resume", "--set", "train.max_steps=3"]);
    std::fs::rename(fixture.path("run/construct"), fixture.path("aside")).unwrap();
    let told = fixture.fail("run", &["--resume"], 2);
    assert!(told.contains("construct/dev.jsonl"), "{told}");
    fixture.succeed("plain", &stopped);
    // As a version wrote it that did not know of them.
    let mut recorded = fixture.json("plain/train.json");
    recorded.as_object_mut().unwrap().remove("construct/dev.jsonl").expect("it is recorded");
    fixture.write("plain/train.json", recorded.to_string());
    fixture.succeed("plain", &["--resume", "--set", "train.max_steps=3"]);
    std::fs::rename(fixture.path("aside"), fixture.path("plain/construct")).unwrap();
    let told = fixture.fail("plain", &["--resume"], 2);
    assert!(told.contains("construct/dev.jsonl"), "{told}");
}
