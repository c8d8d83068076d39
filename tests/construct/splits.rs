//! Splits that are added to a run, and documents that the teacher could not read whole.

use std::process::Stdio;

use clsgen::{
    config::Truncate,
    data::{Needs, load_canonical},
    demo::notes::{NoteSettings, Notes},
    labels::Labels,
    prompt::{PromptTemplate, Prompter, TextTokenizer, Tokens},
};
use serde_json::Value;

use super::{RECORDS, Work, common};

const FILES: [&str; 4] = ["train.jsonl", "dev.jsonl", "dropped.jsonl", "stats.json"];

impl Work {
    /// The same with a dev split.
    fn with_dev() -> Self {
        let work = Self::new();
        let notes = Notes::new(3, NoteSettings { words: 120, prevalence: 0.4, typos: 0.0 });
        let lines: Vec<String> = notes
            .range(RECORDS..RECORDS + 8)
            .iter()
            .map(|note| Value::Object(note.record.to_json()).to_string())
            .collect();
        std::fs::write(work.path("data/dev.jsonl"), lines.join("\n")).unwrap();
        work
    }

    /// `clsgen construct` of these splits; its streams.
    fn construct(&self, run: &str, splits: &str, more: &[&str]) -> common::Outcome {
        let mut command = self.command(run);
        command.args(["--set", &format!("construct.splits={splits}")]).args(more);
        common::outcome(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    fn succeed(&self, run: &str, splits: &str, more: &[&str]) -> common::Outcome {
        let outcome = self.construct(run, splits, more);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome
    }

    fn file(&self, run: &str, name: &str) -> Vec<u8> {
        std::fs::read(self.path(run).join("construct").join(name)).unwrap_or_default()
    }

    /// What lies there, but for what a killed write left under a dot name.
    fn names(&self, run: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(run).join("construct")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    fn dropped_of_train(&self, run: &str) -> Vec<u8> {
        let lines = String::from_utf8(self.file(run, "dropped.jsonl")).unwrap();
        lines.split_inclusive('\n').filter(|line| line.contains("\"split\":\"train\"")).collect::<String>().into_bytes()
    }

    fn statistics(&self, run: &str, split: &str) -> Value {
        let stats: Value = serde_json::from_slice(&self.file(run, "stats.json")).unwrap();
        stats["splits"][split]["statistics"].clone()
    }
}

/// One trial a record is enough where it matters only which records are done.
const ONE: [&str; 2] = ["--set", "construct.trials=1"];
const BOTH: &str = r#"["train","dev"]"#;

#[test]
fn a_split_added_to_a_finished_run_gives_the_files_of_both_at_once() {
    let work = Work::with_dev();
    work.succeed("whole", BOTH, &ONE);
    let whole = FILES.map(|name| work.file("whole", name));
    assert!(whole.iter().all(|file| !file.is_empty()), "some records of each kind");
    for (run, added) in [("named", BOTH), ("alone", r#"["dev"]"#)] {
        work.succeed(run, r#"["train"]"#, &ONE);
        assert_eq!(work.names(run), ["dropped.jsonl", "stats.json", "train.jsonl"]);
        let train = std::fs::metadata(work.path(run).join("construct/train.jsonl")).unwrap().modified().unwrap();
        // Killed in the second split's trials, then before and after each of its files: itself, the dropped list,
        // stats.json.
        let faults = [
            "log.append:4",
            "log.torn:3",
            "file.write:2",
            "file.renamed:2",
            "file.write:2",
            "file.renamed:2",
            "file.write:3",
        ];
        for fault in faults.into_iter().chain(["file.renamed:3"]) {
            work.killed(run, &["--set", &format!("construct.splits={added}"), ONE[0], ONE[1]], fault);
            assert!(work.file(run, "dropped.jsonl").starts_with(&work.dropped_of_train("whole")), "{fault}");
        }
        assert!(
            work.names(run).contains(&"dev.progress.jsonl".to_owned()),
            "it goes only when stats.json names the split"
        );
        work.succeed(run, added, &ONE);
        assert_eq!(FILES.map(|name| work.file(run, name)), whole, "{run}");
        assert_eq!(work.names(run), ["dev.jsonl", "dropped.jsonl", "stats.json", "train.jsonl"], "{run}");
        assert_eq!(
            std::fs::metadata(work.path(run).join("construct/train.jsonl")).unwrap().modified().unwrap(),
            train,
            "it is left alone"
        );
    }
    // The other way round: the same records, the entries in the order in which they were made.
    work.succeed("turned", r#"["dev"]"#, &ONE);
    work.succeed("turned", r#"["train"]"#, &ONE);
    for name in ["train.jsonl", "dev.jsonl"] {
        assert_eq!(work.file("turned", name), work.file("whole", name));
    }
    assert_eq!(work.statistics("turned", "train"), work.statistics("whole", "train"));
}

#[test]
fn a_finished_split_is_kept_and_under_other_settings_refused_by_their_names() {
    let work = Work::with_dev();
    work.succeed("run", r#"["train"]"#, &[]);
    let before = FILES.map(|name| work.file("run", name));
    let told = work.construct("run", BOTH, &["--set", "construct.trials=2"]);
    common::assert_fails(&told, 2, &["stats.json: made with other settings: construct.trials (3 → 2)"]);
    assert!(!told.stderr.contains("splits") && !told.stderr.contains("seed"), "{}", told.stderr);
    assert_eq!(FILES.map(|name| work.file("run", name)), before);
    let told = work.succeed("run", BOTH, &[]);
    assert!(told.stdout.contains("demo (train)") && told.stdout.contains("demo (dev)"), "{}", told.stdout);
    // A stats.json that cannot be read is not replaced by one without its splits.
    std::fs::write(work.path("run/construct/stats.json"), "{").unwrap();
    common::assert_fails(&work.construct("run", BOTH, &[]), 3, &["does not say which splits are finished"]);
}

#[test]
fn documents_that_the_teacher_reads_in_part_are_counted_also_by_a_killed_run() {
    let work = Work::new();
    let mut lengths: Vec<usize> = prompts(&work, 100_000).iter().map(|prompt| prompt.ids.len()).collect();
    lengths.sort_unstable();
    let window = lengths[RECORDS as usize / 2];
    let cut = lengths.iter().filter(|&&length| length > window).count();
    let tokens: usize = prompts(&work, window).iter().map(|prompt| prompt.truncated_tokens).sum();
    assert!(cut > 0 && cut < RECORDS as usize, "{cut}");
    let narrow = format!("construct.max_input_tokens={window}");
    let narrow = ["--set", &narrow, "--set", "construct.trials=1"];
    let sentence = format!(
        "{cut} of {RECORDS} documents are longer than the teacher's window and were cut, by {tokens} tokens in all"
    );
    let mut loud = work.command("whole");
    let arguments: Vec<_> = loud.get_args().filter(|arg| *arg != "--quiet").map(ToOwned::to_owned).collect();
    loud = common::clsgen();
    let outcome = common::outcome(loud.args(arguments).args(narrow));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("train: {sentence}")), "{}", outcome.stderr);
    assert!(outcome.stdout.contains(&format!("{sentence}.")), "{}", outcome.stdout);
    let statistics = work.statistics("whole", "train");
    assert_eq!((&statistics["truncated_records"], &statistics["truncated_tokens"]), (&cut.into(), &tokens.into()));

    work.killed("killed", &narrow, "log.torn:5");
    work.killed("killed", &narrow, "log.append:9");
    work.succeed("killed", r#"["train"]"#, &narrow);
    assert_eq!(FILES.map(|name| work.file("killed", name)), FILES.map(|name| work.file("whole", name)));

    // A log of a version that did not count.
    work.killed("older", &narrow, "log.append:21");
    let log = work.path("older").join("construct/train.progress.jsonl");
    let lines = std::fs::read_to_string(&log).unwrap();
    let mut uncounted = 0;
    let older: String = lines
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            uncounted += usize::from(line.as_object_mut().unwrap().shift_remove("truncated_tokens").is_some());
            line.to_string() + "\n"
        })
        .collect();
    assert!(uncounted > 0);
    std::fs::write(log, older).unwrap();
    work.succeed("older", r#"["train"]"#, &narrow);
    assert_eq!(work.statistics("older", "train")["truncated_records"], cut - uncounted);
    assert_eq!(work.file("older", "train.jsonl"), work.file("whole", "train.jsonl"));
}

/// The teacher's prompts under this window.
fn prompts(work: &Work, window: usize) -> Vec<Tokens> {
    let template = PromptTemplate::load(&work.path("prompts/lcd30.toml")).unwrap();
    let template = PromptTemplate { prefix: String::new(), ..template };
    let tokenizer = std::sync::Arc::new(TextTokenizer::load(&work.path("model")).unwrap());
    let labels = Labels::two("0:alive", "1:death");
    let prompter = Prompter::new(template, tokenizer, labels.clone(), window, 1000, Truncate::Tail).unwrap();
    let records = load_canonical(&work.path("data/train.jsonl"), &labels, &Needs::default()).unwrap();
    records.iter().map(|record| prompter.prompt(record).unwrap()).collect()
}
