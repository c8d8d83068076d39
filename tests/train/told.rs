//! What a run says about inputs that it refuses or doubts.

use super::*;

/// A record of the fixture's kind.
fn record(id: &str, text: &str, label: u8) -> String {
    json!({"id": id, "text": text, "label": label, "explanation": "why"}).to_string() + "\n"
}

#[test]
fn a_word_of_over_a_megabyte_ends_a_run_before_it_begins() {
    let fixture = Fixture::new();
    let word = "x".repeat(1_100_000);
    let good = record("a", "a note", 0) + &record("b", "a note", 1);
    fixture.write("long.jsonl", good.clone() + &record("c", &word, 1));
    fixture.write(
        "explained.jsonl",
        good + &json!({"id": "c", "text": "a note", "label": 1, "explanation": word}).to_string(),
    );
    for (flag, wanted) in [
        ("data.train=\"long.jsonl\"", "long.jsonl: record 3, field text: holds a word of over 1 MB"),
        ("data.dev=\"long.jsonl\"", "long.jsonl: record 3, field text: holds a word of over 1 MB"),
        ("data.train=\"explained.jsonl\"", "explained.jsonl: record 3, field explanation: holds a word of over 1 MB"),
    ] {
        let told = fixture.fail("run", &["--set", flag], 3);
        assert!(told.contains(wanted) && told.contains("hint:"), "{flag}: {told}");
        assert!(!fixture.path("run/metrics.jsonl").exists(), "{flag}");
    }
}

#[test]
fn a_warmup_that_never_ends_is_one_warning() {
    let fixture = Fixture::new();
    let warnings = |run: &str, warmup: &str| {
        let told = stderr(&fixture.succeed(run, &["--set", "train.max_steps=1", "--set", warmup]));
        told.lines().filter(|line| line.contains("train.warmup_steps")).count()
    };
    assert_eq!((warnings("long", "train.warmup_steps=1000"), warnings("short", "train.warmup_steps=1")), (1, 0));
}

#[test]
fn a_loss_that_is_not_trained_is_not_spoken_of() {
    let fixture = Fixture::new();
    for (objective, spoken_of) in [("train.objective=joint", true), ("train.objective=lm", false)] {
        let flags = ["--set", "train.sample=balanced", "--set", "train.max_steps=1", "--set", objective];
        let told = stderr(&fixture.succeed(&objective.replace('=', "-"), &flags));
        assert!(told.contains("train.sample = \"balanced\": an epoch draws "), "{told}");
        assert_eq!(told.contains("the classification loss adds "), spoken_of, "{objective}: {told}");
    }
}

/// Of many epochs `max_steps` leaves one.
#[test]
fn a_run_is_asked_for_room_for_the_checkpoints_that_it_writes() {
    let fixture = Fixture::new();
    let Some(_mount) = common::Mount::tmpfs(&fixture.path("small"), "size=16m") else { return };
    let epochs = ["--set", "train.epochs=100000"];
    let told = fixture.fail("small/run", &epochs, 5);
    assert!(told.contains("No space left on device: ") && told.contains("hint: free some space"), "{told}");
    fixture.succeed("small/run", &[&epochs[..], &["--set", "train.max_steps=1"]].concat());
}

#[test]
fn a_missing_file_and_a_model_on_a_server_are_named_in_plain_words() {
    let fixture = Fixture::new();
    let told = fixture.fail("run", &["--set", "data.train=\"nowhere.jsonl\""], 3);
    assert!(
        told.contains("nowhere.jsonl: no such file") && told.contains("hint:") && !told.contains("os error"),
        "{told}"
    );
    for key in ["model.base", "construct.teacher_tokenizer", "cnn.embeddings"] {
        for url in ["http://localhost:8000/v1", "HTTPS://host/v1"] {
            let told = fixture.fail("run", &["--set", &format!("{key}={url}")], 2);
            assert!(told.contains(key) && told.contains("names a server") && told.contains("hub id"), "{told}");
        }
    }
}

/// On a login node: no GPU, and less memory than the run takes.
#[test]
fn a_dry_run_says_on_which_cards_a_run_fits_and_for_how_long() {
    let fixture = Fixture::new();
    let record = |i: usize| {
        let text = "went home well ".repeat(30);
        json!({"id": i.to_string(), "text": text, "label": i % 2, "explanation": "All is well."}).to_string() + "\n"
    };
    fixture.write("train.jsonl", (0..40).map(record).collect::<String>());
    let large = ["--threads", "1", "--set", "train.batch_size=40", "--set", "lora.rank=4096"];
    let limited = |flags: &[&str]| {
        let command = fixture.command("run", &[&large, flags].concat());
        let mut shell = Command::new("bash");
        shell.args(["-c", "ulimit -v 500000; exec \"$@\"", "bash"]).arg(command.get_program()).args(command.get_args());
        check(shell.current_dir(fixture.path(".")).output().unwrap())
    };
    let told = |output: &std::process::Output| String::from_utf8(output.stdout.clone()).unwrap();

    let planned = limited(&["--dry-run", "--assume", "100"]);
    let plan = told(&planned);
    assert_eq!(planned.status.code(), Some(0), "{}", stderr(&planned));
    for line in [
        "# memory of a rank on a GPU: weights ",
        "# cards: 24 GB: fits, every layer keeps its activations; 40 GB: ",
        "# hours at 100 tokens/s a rank: ",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }

    // Of this machine it says the same, and then that this one has too little.
    let here = limited(&["--dry-run"]);
    assert_eq!(here.status.code(), Some(5), "{}", stderr(&here));
    assert!(told(&here).contains("# cards: 24 GB: fits") && !told(&here).contains("# hours"), "{}", told(&here));
    assert!(stderr(&here).contains("hint: "), "{}", stderr(&here));

    let trained = fixture.fail("run", &["--assume", "100"], 2);
    assert!(trained.contains("hint: add --dry-run"), "{trained}");
    assert!(fixture.fail("run", &["--dry-run", "--assume", "0"], 2).contains("not a positive number"));
    let full = ["--dry-run", "--assume", "100", "--set", "train.parameters=full", "--set", "model.dtype=bf16"];
    assert!(fixture.fail("run", &full, 2).contains("trains weights in f32"));
    assert!(!fixture.path("run").exists());
}

/// What mpirun or srun starts would be so many processes at one run directory.
#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_mpi_is_not_started_on_ranks() {
    let fixture = Fixture::new();
    let ranks = [
        [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")],
        [("SLURM_NTASKS", "4"), ("PMIX_RANK", "1")],
        [("PMI_SIZE", "3"), ("PMI_RANK", "1")],
    ];
    for launch in ranks {
        let output = check(fixture.command("run", &[]).envs(launch).output().unwrap());
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{launch:?}: {told}");
        let starts = format!("rank 1: error: clsgen was started as rank 1 of {}", launch[0].1);
        assert!(told.starts_with(&starts), "{launch:?}: {told}");
        assert!(told.contains("knows no MPI") && told.contains("hint: build it with --features mpi"), "{told}");
        assert!(!fixture.path("run").exists());
    }
    // One rank is one process, and so is a batch script, whatever its job may start.
    for launch in [("OMPI_COMM_WORLD_SIZE", "1"), ("SLURM_NTASKS", "4")] {
        let output = check(fixture.command("run", &["--dry-run"]).envs([launch]).output().unwrap());
        assert_eq!(output.status.code(), Some(0), "{launch:?}: {}", stderr(&output));
    }
}
