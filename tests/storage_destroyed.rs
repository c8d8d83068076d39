//! Files that a command must not destroy: inputs inside an evaluation that is replaced, evaluations whose replacement
//! fails, foreign files under names of ours. And files that are not what their format says.

mod common;

use clsgen::demo;
use common::{Outcome, Scratch, assert_fails, in_scratch, outcome};

struct Work(Scratch);

in_scratch!(Work);

impl Work {
    fn new() -> Self {
        Self(Scratch::new())
    }

    fn clsgen(&self, args: &[&str]) -> Outcome {
        outcome(common::clsgen().current_dir(self.path("")).args(args))
    }

    /// A model, a prompt and records that construct and train can work on.
    fn with_task(self) -> Self {
        demo::write_model(&self.path("model")).unwrap();
        self.write("prompt.toml", demo::PROMPT.1);
        self.write("train.jsonl", records(|i| i % 2));
        self.write(
            "c.toml",
            "[task]\nprompt = \"prompt.toml\"\n[data]\ntrain = \"train.jsonl\"\n[model]\nbase = \
            \"model\"\nmax_input_tokens = 500\n\
             max_output_tokens = 40\n[construct]\nteacher = \"model\"\nmax_input_tokens = 500\nmax_output_tokens = \
             40\ntrials = 1\n\
             [train]\nobjective = \"cls\"\nepochs = 1\n",
        );
        self
    }
}

fn records(label: impl Fn(usize) -> usize) -> String {
    (0..4)
        .map(|i| format!("{{\"id\": \"r{i}\", \"text\": \"A short note, number {i}.\", \"label\": {}}}\n", label(i)))
        .collect()
}

fn predictions(first: f64) -> String {
    let line = |i: usize| {
        let p = if i == 0 { first } else { 0.1 + 0.07 * i as f64 };
        format!("{{\"id\": \"p{i}\", \"label\": {}, \"probability\": {p}}}\n", i % 2)
    };
    (0..10).map(line).collect()
}

#[test]
fn an_evaluation_never_replaces_the_predictions_it_reads() {
    let work = Work::new();
    for name in ["run/eval/predictions/predictions.jsonl", "run/eval/predictions/tables/mine.jsonl"] {
        let work = Work::new();
        work.write(name, predictions(0.2));
        let told = work.clsgen(&["eval", "--predictions", name, "--run", "run", "--overwrite"]);
        assert_fails(&told, 2, &["input and output are the same file", "hint: "]);
        assert_eq!(work.read(name), predictions(0.2).as_bytes(), "{name}");
    }
    // Nor through a link that lies in there.
    work.write("mine.jsonl", predictions(0.2));
    work.write("run/eval/predictions/metrics.json", "{}");
    std::os::unix::fs::symlink(work.path("mine.jsonl"), work.path("run/eval/predictions/link.jsonl")).unwrap();
    let told =
        work.clsgen(&["eval", "--predictions", "run/eval/predictions/link.jsonl", "--run", "run", "--overwrite"]);
    assert_fails(&told, 2, &["input and output are the same file"]);
    assert_eq!(work.read("mine.jsonl"), predictions(0.2).as_bytes());
}

#[test]
fn what_cannot_be_evaluated_replaces_no_evaluation() {
    let work = Work::new();
    work.write("good.jsonl", predictions(0.2));
    let good = work.clsgen(&["eval", "--predictions", "good.jsonl", "--run", "run"]);
    assert_eq!(good.code, Some(0), "{good:?}");
    let files = ["metrics.json", "settings.json", "report.html", "tables/metrics.csv"]
        .map(|name| format!("run/eval/predictions/{name}"));
    let before: Vec<Vec<u8>> = files.iter().map(|name| work.read(name)).collect();
    work.write("other.jsonl", predictions(0.3));
    work.write("label.jsonl", predictions(0.3).replacen("\"label\": 1", "\"label\": 7", 1));
    work.write("twice.jsonl", predictions(0.3).replacen("p1", "p0", 1));
    let overwrite = |more: &[&str]| work.clsgen(&[&["eval", "--run", "run", "--overwrite"], more].concat());
    for (more, code) in [
        (&["--predictions", "label.jsonl"][..], 3),
        (&["--predictions", "twice.jsonl"], 3),
        (&["--predictions", "other.jsonl", "--dev-predictions", "label.jsonl"], 3),
        (&["--predictions", "other.jsonl", "--paper", "table2"], 2),
    ] {
        let told = overwrite(more);
        assert_eq!(told.code, Some(code), "{more:?} {told:?}");
        let after: Vec<Vec<u8>> = files.iter().map(|name| work.read(name)).collect();
        assert!(after == before, "{more:?}");
        assert!(!work.path("run/eval/.predictions.replaced").exists(), "{more:?}");
    }
    // A kill in between left the folder aside: the next command puts it back before it looks.
    std::fs::rename(work.path("run/eval/predictions"), work.path("run/eval/.predictions.replaced")).unwrap();
    assert_eq!(work.clsgen(&["eval", "--predictions", "good.jsonl", "--run", "run"]).code, Some(0));
    assert_eq!(work.read(&files[0]), before[0]);
    // What can be evaluated replaces it.
    assert_eq!(overwrite(&["--predictions", "other.jsonl"]).code, Some(0));
    assert_ne!(work.read(&files[0]), before[0]);
    assert!(!work.path("run/eval/.predictions.replaced").exists());
}

#[test]
fn foreign_files_under_names_of_ours_are_kept() {
    let work = Work::new().with_task();
    for (name, command) in [
        ("run.json", "construct"),
        ("run.json", "train"),
        (".lock", "construct"),
        (".lock", "train"),
        ("construct/dropped.jsonl", "construct"),
        ("metrics.jsonl", "train"),
        ("best.json", "train"),
        ("train.json", "train"),
        ("checkpoints", "train"),
        ("tensorboard", "train"),
        ("construct", "construct"),
    ] {
        let file = format!("{command}/{name}");
        work.write(&file, "mine\n");
        let told =
            work.clsgen(&[command, "--config", "c.toml", "--run", command, "--set", r#"construct.splits=["train"]"#]);
        assert_fails(&told, 2, &[name, "is there already", "hint: "]);
        assert_eq!(work.read(&file), b"mine\n", "{command}, {name}");
        let left = std::fs::read_dir(work.path(command)).unwrap().map(Result::unwrap);
        let left =
            left.filter(|left| left.path().is_file() && ![".lock", name].map(Into::into).contains(&left.file_name()));
        let left: Vec<_> = left.map(|left| left.file_name()).collect();
        assert!(left.is_empty(), "{command}, {name}: {left:?}");
        std::fs::remove_dir_all(work.path(command)).unwrap();
    }
    // The lock of an output, even where it is the input.
    work.write(".out.jsonl.lock", records(|i| i % 2));
    assert_eq!(work.clsgen(&["train", "--config", "c.toml", "--run", "run"]).code, Some(0));
    for input in ["train.jsonl", ".out.jsonl.lock"] {
        let set = "data.format=jsonl";
        let predict =
            ["predict", "--model", "run", "--input", input, "--output", "out.jsonl", "--set", set, "--overwrite"];
        assert_eq!(work.clsgen(&predict).code, Some(2), "{input}");
        assert_eq!(work.read(".out.jsonl.lock"), records(|i| i % 2).as_bytes());
    }
}

#[test]
fn a_file_is_no_folder_to_write_into() {
    let work = Work::new().with_task();
    assert_eq!(work.clsgen(&["train", "--config", "c.toml", "--run", "run"]).code, Some(0));
    work.write("file", "mine\n");
    for (output, why) in [("file/out.jsonl", "file is a file"), ("gone/out.jsonl", "gone is not there")] {
        for dry in [&[][..], &["--dry-run"]] {
            let predict = ["predict", "--model", "run", "--input", "train.jsonl", "--output", output];
            assert_fails(&work.clsgen(&[&predict[..], dry].concat()), 2, &[output, why, "hint: "]);
        }
    }
    for (command, code) in [("construct", 2), ("train", 2), ("eval", 4)] {
        let told = work.clsgen(&[command, "--config", "c.toml", "--run", "file"]);
        assert_eq!(told.code, Some(code), "{command}: {told:?}");
    }
    assert_eq!(work.read("file"), b"mine\n");
    // Nor is a link that leads nowhere, or to itself.
    work.write("p.jsonl", predictions(0.2));
    for (link, to) in [("nowhere", "gone"), ("circle", "circle")] {
        std::os::unix::fs::symlink(to, work.path(link)).unwrap();
        for run in [link, &format!("{link}/run")] {
            let told = work.clsgen(&["eval", "--predictions", "p.jsonl", "--run", run]);
            assert_fails(&told, 2, &[link, "is there already, and it is a link that leads to no directory", "hint: "]);
        }
    }
    for dry in [&[][..], &["--dry-run"]] {
        let predict = ["predict", "--model", "run", "--input", "train.jsonl", "--output", "circle"];
        assert_fails(&work.clsgen(&[&predict[..], dry].concat()), 2, &["circle", "hint: check the path"]);
    }
}

#[test]
fn construct_too_needs_both_classes_to_train_on() {
    let work = Work::new().with_task();
    work.write("train.jsonl", records(|_| 0));
    let told =
        work.clsgen(&["construct", "--config", "c.toml", "--run", "run", "--set", r#"construct.splits=["train"]"#]);
    assert_fails(&told, 3, &["train.jsonl", "class", "hint: "]);
}

#[test]
fn a_file_that_is_not_what_its_format_says_is_refused_whole() {
    let work = Work::new().with_task();
    assert_eq!(work.clsgen(&["train", "--config", "c.toml", "--run", "run"]).code, Some(0));
    let utf16: Vec<u8> = [0xfe_u8, 0xff].into_iter().chain(records(|_| 1).bytes().flat_map(|byte| [0, byte])).collect();
    for (bytes, words) in [
        (&b"PAR1 and so on"[..], "is a Parquet file"),
        (&utf16, "is UTF-16"),
        (b"\xff\xfe\x00\x00{\x00\x00\x00", "is UTF-32"),
        (b"\x00\x00\xfe\xff\x00\x00\x00{", "is UTF-32"),
        (b" [{\"id\": 1}]", "is a JSON array"),
    ] {
        work.write("in.jsonl", bytes);
        let predict = ["predict", "--model", "run", "--input", "in.jsonl", "--output", "-", "--no-explanation"];
        assert_fails(&work.clsgen(&predict), 3, &["in.jsonl", words, "hint: "]);
    }
    let mut piped = common::clsgen();
    piped.current_dir(work.path("")).args([
        "predict",
        "--model",
        "run",
        "--input",
        "-",
        "--output",
        "-",
        "--no-explanation",
    ]);
    piped.stdin(std::fs::File::open(work.path("in.jsonl")).unwrap());
    assert_fails(&outcome(&mut piped), 3, &["is a JSON array", "hint: "]);
    work.write("c.csv", "# made by a tool\nid,text\n1,a note\n");
    let predict = ["predict", "--model", "run", "--input", "c.csv", "--output", "-", "--no-explanation"];
    assert_fails(&work.clsgen(&predict), 3, &["hint: its first line is no header of column names"]);
}

#[test]
fn what_the_config_alone_names_is_no_output() {
    let work = Work::new().with_task();
    assert_eq!(work.clsgen(&["train", "--config", "c.toml", "--run", "run"]).code, Some(0));
    let inside = "run/eval/predictions/mine.jsonl";
    for name in ["dev.jsonl", "test.jsonl", "judge.toml", "verbalized.toml", inside] {
        work.write(name, records(|i| i % 2));
    }
    let sets = [
        ["--set", "data.dev=dev.jsonl"],
        ["--set", "data.test=test.jsonl"],
        ["--set", "eval.judge=model"],
        ["--set", "eval.judge_prompt=judge.toml"],
        ["--set", "eval.verbalized_prompt=verbalized.toml"],
    ];
    std::os::unix::fs::symlink(work.path("test.jsonl"), work.path("link.jsonl")).unwrap();
    std::fs::hard_link(work.path("judge.toml"), work.path("hard.toml")).unwrap();
    for output in [
        "c.toml",
        "prompt.toml",
        "train.jsonl",
        "dev.jsonl",
        "test.jsonl",
        "link.jsonl",
        "judge.toml",
        "hard.toml",
        "verbalized.toml",
        "model/config.json",
        "model/model.safetensors",
    ] {
        let before = work.read(output);
        work.write("in.jsonl", "{\"id\": \"a\", \"text\": \"a note\"}\n");
        let predict = ["predict", "--config", "c.toml", "--model", "run", "--input", "in.jsonl", "--output", output];
        for more in [&["--overwrite"][..], &["--overwrite", "--dry-run"], &[]] {
            let told = work.clsgen(&[&predict[..], sets.as_flattened(), more].concat());
            assert_fails(&told, 2, &["input and output are the same file", "hint: "]);
            assert!(work.read(output) == before, "{output} {more:?}");
        }
    }
    // An evaluation replaces its folder, but not with what the config names in it.
    work.write("p.jsonl", predictions(0.2));
    let eval = ["eval", "--config", "c.toml", "--predictions", "p.jsonl", "--run", "run", "--overwrite"];
    let dev = ["--set", "data.dev=run/eval/predictions/mine.jsonl"];
    assert_fails(&work.clsgen(&[&eval[..], &dev].concat()), 2, &["input and output are the same file"]);
    assert_eq!(work.read(inside), records(|i| i % 2).as_bytes());
    let gate = ["--gate", "run/eval/predictions/gate.toml"];
    work.write(gate[1], "auroc = 0.0\n");
    assert_fails(&work.clsgen(&[&eval[..], &gate].concat()), 2, &["input and output are the same file"]);
    assert_eq!(work.read(gate[1]), b"auroc = 0.0\n");
    // What nobody names any more goes with the folder.
    assert_eq!(work.clsgen(&eval).code, Some(0));
    assert!(!work.path(inside).exists());
}

/// A document that is broken outside of its records is told; what was read before is kept.
#[test]
fn a_broken_lcd_document_is_not_read_in_part() {
    let work = Work::new().with_task();
    assert_eq!(work.clsgen(&["train", "--config", "c.toml", "--run", "run"]).code, Some(0));
    let one = |id: usize| {
        format!("{{\"id\": {id}, \"text\": \"ZEBRA note {id}\", \"out_hospital_mortality_30\": {}}}", id % 2)
    };
    let two = format!("{}, {}", one(1), one(2));
    let whole = format!("{{\"data\": [{two}]}}");
    for (text, place, kept) in [
        (format!("{whole}\n{whole}"), "after record 2: something follows the document", 2),
        (format!("{{\"data\":[{two}], \"data\": []}}"), "after record 2: `data` occurs twice", 2),
        (format!("{whole} ZEBRA"), "after record 2: something follows the document", 2),
        (format!("{{\"data\": [{two}]"), "after record 2: the file ends inside", 2),
        (format!("{{\"data\": [{} {}]}}", one(1), one(2)), "after record 1: no comma between two records", 1),
        (format!("{{\"data\": [{two},]}}"), "after record 2: no record beside a comma", 2),
        (format!("{{\"data\": [{two}], \"x\": [}}"), "after record 2: the file ends inside", 2),
        (format!("{{\"data\": [{two}], \"x\": no}}"), "after record 2: a value is no JSON", 2),
    ] {
        work.write("in.json", &text);
        let told =
            work.clsgen(&["predict", "--model", "run", "--input", "in.json", "--output", "-", "--no-explanation"]);
        assert_fails(&told, 3, &["in.json: broken JSON", place, "hint: "]);
        // A file is read through before any work, a pipe as far as it goes.
        assert!(told.stdout.is_empty() && !told.stderr.contains("ZEBRA"), "{told:?}");
        let mut piped = common::clsgen();
        piped.current_dir(work.path("")).stdin(std::fs::File::open(work.path("in.json")).unwrap());
        piped.args(["predict", "--model", "run", "--input", "-", "--output", "-", "--no-explanation"]);
        let told = outcome(&mut piped);
        assert_fails(&told, 3, &["broken JSON", place, "hint: "]);
        assert!(told.stdout.lines().count() == kept && !told.stderr.contains("ZEBRA"), "{told:?}");
        let train = ["train", "--config", "c.toml", "--run", "other", "--set", "data.train=in.json"];
        assert_fails(&work.clsgen(&[&train[..], &["--set", "data.format=lcd"]].concat()), 3, &[place]);
        assert!(!work.path("other/checkpoints").exists());
    }
    let indented = format!("{{\n \"version\": 1,\n \"data\": [\n  {two}\n ]\n}}\n");
    work.write("in.json", &indented);
    let predict = ["predict", "--model", "run", "--input", "in.json", "--output", "-", "--no-explanation"];
    for flags in [&[][..], &["--set", "data.format=lcd"]] {
        let told = work.clsgen(&[&predict[..], flags].concat());
        assert_eq!((told.code, told.stdout.lines().count()), (Some(0), 2), "{flags:?}: {told:?}");
    }
    // Of a pipe no more is looked at than its first bytes.
    let mut piped = common::clsgen();
    piped.current_dir(work.path("")).stdin(std::fs::File::open(work.path("in.json")).unwrap());
    piped.args(["predict", "--model", "run", "--input", "-", "--output", "-", "--no-explanation"]);
    assert_fails(&outcome(&mut piped), 3, &["over several lines", "--set data.format=lcd"]);

    // The cells of a file without a header are no names to show.
    work.write("nh.csv", "a1,ZEBRA,0\na2,ZEBRATOO,1\n");
    let predict = ["predict", "--model", "run", "--input", "nh.csv", "--output", "-", "--no-explanation"];
    let told = work.clsgen(&predict);
    assert_fails(&told, 3, &["no column `text`", "or its 3 names are unknown"]);
    assert!(!told.stderr.contains("ZEBRA") && !told.stderr.contains("a1"), "{told:?}");
}

/// A limit of a file's size (`ulimit -f`, in KiB) is an error like a full disk, not the end by SIGXFSZ.
#[test]
fn a_limit_of_file_size_is_told() {
    let work = Work::new().with_task();
    let limited = |kib: usize, args: &[&str]| {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &format!("ulimit -f {kib}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_clsgen")]);
        outcome(command.args(args).current_dir(work.path("")))
    };
    let told = limited(16, &["train", "--config", "c.toml", "--run", "limited"]);
    assert_fails(&told, 5, &["File too large", "hint: ", "ulimit -f"]);
    let record: serde_json::Value = serde_json::from_slice(&work.read("limited/run.json")).unwrap();
    assert_eq!(record["exit_code"], 5, "{record}");
    assert_eq!(work.clsgen(&["train", "--config", "c.toml", "--run", "run"]).code, Some(0));
    let many: String = (0..100).map(|i| format!("{{\"id\": {i}, \"text\": \"a note\"}}\n")).collect();
    work.write("many.jsonl", many);
    let predict = ["predict", "--model", "run", "--input", "many.jsonl", "--output", "out.jsonl", "--no-explanation"];
    assert_fails(&limited(4, &predict), 5, &["out.jsonl", "File too large", "ulimit -f"]);
    // What is finished is kept, and the same command goes on.
    let told = work.clsgen(&predict);
    assert_eq!((told.code, common::lines(&work.path("out.jsonl"))), (Some(0), 100), "{told:?}");
}
