//! `mpirun -n N clsgen predict|construct|eval`: the files of one process, and an end whatever happens to a rank.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
};

use clsgen::demo::notes::{NoteSettings, Notes, SyntheticNote};
use serde_json::Value;

use super::{
    common,
    fixture::{Fixture, SECRET},
    job::{End, Job, PROGRAM, assert_failed, mpirun, send},
};

/// Seconds in which a job has to end once a rank is dead.
const SECONDS: f64 = 10.0;

/// The embedded model, trained a little on its notes, in `run`; records to predict in `data/test.jsonl`.
struct Work(Fixture);

impl Work {
    /// With so many test notes.
    fn new(test: u64) -> Self {
        let work = Self(Fixture::new());
        common::write_demo(&work.0.path("."), &[], 0, 0.4);
        let notes = Notes::new(3, NoteSettings { words: 60, prevalence: 0.4, typos: 0.0 });
        for (split, range) in [("train", 0..12), ("dev", 12..20), ("test", 20..20 + test)] {
            let line = |note: &SyntheticNote| {
                let mut record = note.record.to_json();
                let text = record["text"].as_str().unwrap();
                // Notes of different lengths.
                let text = format!("{text} {SECRET}{}", " and so on".repeat(record.len() * text.len() % 40));
                record.insert("text".into(), text.into());
                format!("{}\n", Value::Object(record))
            };
            let lines: String = notes.range(range).iter().map(line).collect();
            work.0.write(&format!("data/{split}.jsonl"), lines);
        }
        work
    }

    /// The same with a checkpoint in `run`.
    fn trained(test: u64) -> Self {
        let work = Self::new(test);
        work.one(&work.command("train", "run", &["--set", "train.epochs=1", "--set", "train.objective=\"cls\""]));
        work
    }

    fn command(&self, command: &str, run: &str, flags: &[&str]) -> Vec<String> {
        let short = ["--set", "model.max_output_tokens=48", "--set", "eval.bootstrap=50"];
        let all = [&[PROGRAM, command, "--config", "demo.toml", "--run", run], &short[..], flags].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    fn predict(&self, output: &str, flags: &[&str]) -> Vec<String> {
        let files = ["--model", "run", "--input", "data/test.jsonl", "--output", output];
        self.command("predict", "run", &[&files[..], flags].concat())
    }

    fn construct(&self, run: &str, flags: &[&str]) -> Vec<String> {
        let few = ["--set", "construct.trials=3", "--set", "construct.max_output_tokens=48"];
        self.command("construct", run, &[&few[..], flags].concat())
    }

    /// One process, which must succeed.
    #[track_caller]
    fn one(&self, command: &[String]) -> common::Outcome {
        let mut process = common::clsgen();
        let outcome = common::outcome(process.current_dir(self.0.path(".")).args(&command[1..]));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome
    }

    fn start(&self, n: usize, command: &[String]) -> Job {
        let n = n.to_string();
        Job::start(&self.0, "job", mpirun(&self.0).args(["-n", &n]).args(command))
    }

    /// `n` ranks, which must succeed.
    #[track_caller]
    fn ranks(&self, n: usize, command: &[String]) -> End {
        let end = self.start(n, command).end();
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        end
    }

    fn copy(&self, from: &str, to: &str) {
        let status = Command::new("cp").arg("-r").args([self.0.path(from), self.0.path(to)]).status().unwrap();
        assert!(status.success());
    }

    /// Files below a folder by name, without those that tell of the machine, the time and the command line.
    fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.0.path(folder)];
        while let Some(dir) = open.pop() {
            for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                let told = ["run.json", "report.html"].iter().any(|name| path.ends_with(name));
                if path.is_dir() {
                    open.push(path);
                } else if !told && path.extension().is_some_and(|extension| extension != "lock") {
                    let name = path.strip_prefix(self.0.path(folder)).unwrap().to_owned();
                    files.insert(name, std::fs::read(path).unwrap());
                }
            }
        }
        files
    }

    #[track_caller]
    fn assert_same_files(&self, one: &str, other: &str) {
        let files = [one, other].map(|folder| self.files(folder));
        assert!(!files[0].is_empty() && files[0].keys().eq(files[1].keys()), "{one}, {other}: {:?}", files[1].keys());
        let differing = files[0].iter().filter(|(name, bytes)| files[1][*name] != **bytes).map(|(name, _)| name);
        assert_eq!(differing.collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "{one}, {other}");
    }
}

fn host() -> String {
    String::from_utf8(Command::new("uname").arg("-n").output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn predictions_of_ranks_are_those_of_one_process() {
    let work = Work::trained(17);
    // A bad record among them: it has a line of its own.
    let mut lines = String::from_utf8(work.0.read("data/test.jsonl")).unwrap();
    lines.insert_str(lines.find('\n').unwrap() + 1, "{\"id\": \"no text\"}\n");
    work.0.write("data/test.jsonl", lines);
    let forms: [(&str, &[&str]); 3] = [
        ("text", &["--set", "generate.batch_tokens=2000"]),
        ("hot", &["--seed", "5", "--set", "generate.temperature=1.1", "--set", "generate.constrain=true"]),
        ("probability", &["--no-explanation"]),
    ];
    for (name, flags) in forms {
        let one = format!("{name}.jsonl");
        let told = work.one(&work.predict(&one, flags));
        assert!(told.stderr.contains("18 records, 1 errors"), "{}", told.stderr);
        for n in [1, 2, 3, 4] {
            let output = format!("{name}-{n}.jsonl");
            let end = work.ranks(n, &work.predict(&output, flags));
            assert_eq!(end.stderr.matches("18 records, 1 errors").count(), 1, "rank 0 alone says it: {}", end.stderr);
            assert_eq!(end.stderr.contains(&format!("ranks: {n}")), n > 1, "{}", end.stderr);
            assert!(work.0.read(&output) == work.0.read(&one), "{name} on {n} ranks");
            let sidecar = |output: &str| work.0.read(&format!("{output}.meta.json"));
            assert!(sidecar(&output) == sidecar(&one), "{name} on {n} ranks: another command, it says");
        }
    }
    // Finished already: no model is read by what has nothing to ask, and nothing changes.
    let end = work.ranks(3, &work.predict("text.jsonl", forms[0].1));
    assert!(end.stderr.contains("continuing after 18 records"), "{}", end.stderr);
}

#[test]
fn a_pipe_is_read_and_written_by_rank_0() {
    let work = Work::trained(5);
    let command = |input: &str| {
        let files = ["--model", "run", "--input", input, "--output", "-"];
        work.command("predict", "run", &files)
    };
    let one = work.one(&command("data/test.jsonl"));
    let mut ranks = mpirun(&work.0);
    ranks.args(["-n", "2"]).args(command("-")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let records = std::fs::File::open(work.0.path("data/test.jsonl")).unwrap();
    let output = ranks.stdin(records).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), one.stdout);
}

#[test]
fn explanations_constructed_by_ranks_are_those_of_one_process() {
    let work = Work::new(1);
    for fail in ["drop", "rationalize"] {
        let set = format!("construct.on_fail={fail}");
        let flags = ["--set", &set, "--set", "construct.splits=[\"train\", \"dev\"]"];
        let one = work.one(&work.construct(fail, &flags));
        for n in [2, 3, 4] {
            let run = format!("{fail}-{n}");
            let end = work.ranks(n, &work.construct(&run, &flags));
            assert_eq!(end.stdout, one.stdout.replace(&format!("{fail}/"), &format!("{run}/")));
            work.assert_same_files(fail, &run);
            assert_eq!(work.0.json(&format!("{run}/run.json"))["hardware"]["ranks"].as_array().unwrap().len(), n);
        }
    }
    // Some were kept at their first trial, some later or never: rank 0 judged what other ranks wrote.
    let stats = work.0.json("drop/construct/stats.json");
    let kept = &stats["splits"]["train"]["statistics"]["kept_at_trial"];
    assert!(kept["1"].as_u64() > Some(0) && kept.as_object().unwrap().len() > 1, "{stats}");
    assert!(!work.0.read("drop/construct/dropped.jsonl").is_empty());
}

const JUDGED: [&str; 12] = [
    "--baselines",
    "verbalized,label,self_consistency,token_probability",
    "--runs",
    "2",
    "--compare-base",
    "--curve",
    "--set",
    "eval.judge=model",
    "--set",
    "eval.temperature=0.9",
    "--set",
    "generate.constrain=true",
];

#[test]
fn an_evaluation_on_ranks_is_that_of_one_process() {
    let work = Work::new(9);
    let flags = ["--set", "train.epochs=1", "--set", "train.objective=\"cls\"", "--set", "generate.constrain=true"];
    work.one(&work.command("train", "run", &flags));
    for n in [2, 3, 4] {
        work.copy("run", &format!("run-{n}"));
    }
    let one = work.one(&work.command("eval", "run", &JUDGED));
    let dev = ["--split", "dev", "--set", "generate.constrain=true"];
    work.one(&work.command("eval", "run", &dev));
    for n in [2, 3, 4] {
        let run = format!("run-{n}");
        let end = work.ranks(n, &work.command("eval", &run, &JUDGED));
        assert_eq!(end.stdout, one.stdout);
        work.ranks(n, &work.command("eval", &run, &dev));
        work.assert_same_files("run", &run);
    }
    let names: Vec<String> = work.files("run-2/eval").keys().map(|name| name.display().to_string()).collect();
    for name in ["test/predictions", "test/judge", "test/base.predictions", "test/baselines/token_probability"] {
        assert!(names.contains(&format!("{name}.jsonl")), "{names:?}");
    }
    // Prediction files need no model, and the other ranks nothing to do.
    let files = ["--predictions", "run/eval/test/predictions.jsonl"];
    let one = work.one(&work.command("eval", "files", &files));
    assert_eq!(work.ranks(3, &work.command("eval", "files-3", &files)).stdout, one.stdout);
    work.assert_same_files("files", "files-3");
}

/// Signals a rank of `n` once a file has so many lines more; the job must end in seconds.
#[track_caller]
fn ended(work: &Work, n: usize, command: &[String], (file, lines): (&str, usize), rank: usize, signal: &str) -> End {
    let before = common::lines(&work.0.path(file));
    let mut job = work.start(n, command);
    job.wait_for_lines(&work.0.path(file), before + lines);
    let begun = std::time::Instant::now();
    send(signal, job.rank(rank));
    let end = job.end();
    let seconds = begun.elapsed().as_secs_f64();
    common::say(&format!("rank {rank} of {n}, SIG{signal}: the job ended {seconds:.1} s later"));
    assert!(seconds < SECONDS, "{seconds}: {}", end.stderr);
    end
}

#[track_caller]
fn assert_killed(end: &End, rank: usize) {
    assert_ne!(end.code, Some(0), "{}", end.stderr);
    assert!(end.stderr.contains(&format!("process rank {rank}")), "{}", end.stderr);
    assert!(end.stderr.contains("signal 9"), "{}", end.stderr);
}

const LONG: u64 = 240;

#[test]
fn predictions_go_on_after_a_killed_rank_with_any_number_of_ranks() {
    let work = Work::trained(LONG);
    work.one(&work.predict("whole.jsonl", &[]));
    let whole = work.0.read("whole.jsonl");
    let command = work.predict("out.jsonl", &[]);
    // Rank 0, another, and one of two that are all that is left to do the rest; then one process.
    for (n, rank, lines) in [(3, 1, 5), (2, 0, 5), (4, 3, 5)] {
        let end = ended(&work, n, &command, ("out.jsonl", lines), rank, "KILL");
        assert_killed(&end, rank);
        let done = work.0.read("out.jsonl");
        assert!(whole.starts_with(&done) && done.len() < whole.len(), "what is done stays, in order");
    }
    work.one(&command);
    assert!(work.0.read("out.jsonl") == whole);
}

#[test]
fn a_rank_killed_while_models_are_read_ends_the_job() {
    let work = Work::trained(LONG);
    let command = work.predict("out.jsonl", &[]);
    // The output is there before the first line; so is a rank from the start on.
    for rank in [1, 0] {
        let mut job = work.start(2, &command);
        let pid = loop {
            if let Some(pid) = job.find_rank(rank) {
                break pid;
            }
            job.wait_for("a moment", || true);
        };
        send("KILL", pid);
        let end = job.end();
        assert_ne!(end.code, Some(0), "{}", end.stderr);
        assert!(end.seconds < SECONDS, "{}", end.stderr);
    }
}

#[test]
fn construct_and_eval_go_on_after_a_killed_rank() {
    let work = Work::trained(24);
    let flags = ["--set", "construct.splits=[\"test\"]", "--set", "construct.on_fail=rationalize"];
    work.one(&work.construct("whole", &flags));
    let killed = work.construct("killed", &flags);
    let log = ("killed/construct/test.progress.jsonl", 4);
    assert_killed(&ended(&work, 3, &killed, log, 2, "KILL"), 2);
    work.ranks(2, &killed);
    work.assert_same_files("whole", "killed");

    work.copy("run", "run-whole");
    let asked = ["--baselines", "label,token_probability", "--runs", "4", "--compare-base"];
    work.one(&work.command("eval", "run-whole", &asked));
    let killed = work.command("eval", "run", &asked);
    for (file, rank) in [("predictions", 1), ("baselines/label", 0), ("base.predictions", 2)] {
        let log = format!("run/eval/test/{file}.jsonl");
        assert_killed(&ended(&work, 3, &killed, (&log, 1), rank, "KILL"), rank);
    }
    work.ranks(4, &killed);
    work.assert_same_files("run-whole", "run");
}

#[test]
fn a_signal_to_one_rank_ends_all_with_its_code_and_what_is_done_saved() {
    let work = Work::trained(LONG);
    work.one(&work.predict("whole.jsonl", &[]));
    let whole = work.0.read("whole.jsonl");
    let command = work.predict("out.jsonl", &[]);
    for (signal, code, rank) in [("TERM", 143, 2), ("INT", 130, 0), ("USR1", 138, 1)] {
        let end = ended(&work, 3, &command, ("out.jsonl", 5), rank, signal);
        let said = format!("error: rank {rank} on {}: stopped by SIG{signal}", host());
        assert_failed(&end, code, &[&said, "out.jsonl holds what is done", "goes on where this one stopped"]);
        assert_eq!(end.stderr.matches("error: ").count(), 1, "{}", end.stderr);
        let done = work.0.read("out.jsonl");
        assert!(whole.starts_with(&done) && done.len() < whole.len());
    }
    // mpirun hands USR1 on to all of them, and they say what one would.
    let before = common::lines(&work.0.path("out.jsonl"));
    let mut job = work.start(2, &command);
    job.wait_for_lines(&work.0.path("out.jsonl"), before + 5);
    send("USR1", job.mpirun());
    let end = job.end();
    assert_failed(&end, 138, &["stopped by SIGUSR1", "out.jsonl holds what is done"]);
    work.ranks(3, &command);
    assert!(work.0.read("out.jsonl") == whole);

    let flags = ["--set", "construct.splits=[\"test\"]"];
    let command = work.construct("run", &flags);
    let end = ended(&work, 3, &command, ("run/construct/test.progress.jsonl", 3), 1, "TERM");
    assert_failed(&end, 143, &["stopped by SIGTERM after ", "what is done is saved", "goes on where"]);
    let record = work.0.json("run/run.json");
    assert_eq!((record["command"].as_str(), &record["exit_code"]), (Some("construct"), &Value::from(143)));

    let end = ended(&work, 3, &work.command("eval", "run", &[]), ("run/eval/test/predictions.jsonl", 3), 2, "TERM");
    assert_failed(&end, 143, &["stopped by SIGTERM", "goes on where this one stopped"]);
}

/// Rank 0 as it should be, rank 1 by another command line behind `mpirun`'s own `-n 1`.
fn with_another(work: &Work, command: &[String], other: &[String]) -> End {
    let mut ranks = mpirun(&work.0);
    ranks.args(["-n", "1"]).args(command).args([":", "-n", "1"]).args(other);
    Job::start(&work.0, "job", &mut ranks).end()
}

#[test]
fn a_rank_that_is_not_as_rank_0_ends_all_before_work() {
    let work = Work::trained(6);
    let host = host();
    let differs = format!("error: rank 1 on {host} differs from rank 0 on {host}: ");
    let command = work.predict("out.jsonl", &[]);
    let refused = |other: &[String], code: i32, texts: &[&str]| {
        let end = with_another(&work, &command, other);
        assert_failed(&end, code, texts);
        assert_eq!(end.stderr.matches("error: ").count(), 1, "{}", end.stderr);
        assert!(!work.0.path("out.jsonl").exists(), "work was begun");
    };
    refused(&work.predict("other.jsonl", &[]), 2, &[&differs, "options ("]);
    refused(&work.predict("out.jsonl", &["--seed", "8"]), 2, &[&differs, "train.seed (42 → 8)"]);
    refused(&work.predict("out.jsonl", &["--device", "cuda"]), 5, &[&format!("error: rank 1 on {host}: ")]);

    // The same names in another folder: another checkpoint, another base, none.
    for file in ["demo.toml", "prompts", "data", "model", "run"] {
        work.0.write("elsewhere/.here", "");
        work.copy(file, &format!("elsewhere/{file}"));
    }
    let elsewhere = work.0.path("elsewhere");
    let there = || [&["-wdir".to_owned(), elsewhere.to_str().unwrap().to_owned()], &command[..]].concat();
    let head = "elsewhere/run/checkpoints/epoch-01/cls_head.safetensors";
    let bytes = work.0.read(head);
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    work.0.write(head, other);
    refused(&there(), 2, &[&differs, "checkpoint (its content differs)"]);
    work.0.write(head, bytes);
    std::fs::remove_file(work.0.path("elsewhere/run/checkpoints/epoch-01/clsgen.json")).unwrap();
    refused(&there(), 4, &[&format!("error: rank 1 on {host}: "), "clsgen.json"]);

    // A program of the same version, built otherwise.
    let other = work.0.path("clsgen");
    let mut bytes = std::fs::read(PROGRAM).unwrap();
    bytes.push(0);
    std::fs::write(&other, bytes).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&other).status().unwrap().success());
    let program = [&[other.to_str().unwrap().to_owned()], &command[1..]].concat();
    refused(&program, 2, &[&differs, "executable (its content differs)"]);

    // Less address space than the longest prompt takes.
    let long = ["--set", "model.max_input_tokens=60000", "--set", "model.allow_long=true"];
    let command = work.predict("out.jsonl", &long);
    let limited = format!("ulimit -v 1000000; exec {}", command.join(" "));
    let end = with_another(&work, &command, &["bash", "-c", &limited].map(str::to_owned));
    assert_failed(&end, 5, &[&format!("error: rank 1 on {host}: "), " of memory", "hint: "]);
    assert!(!work.0.path("out.jsonl").exists(), "work was begun");

    // A teacher of other bytes.
    let teacher = "elsewhere/model/model.safetensors";
    let mut bytes = work.0.read(teacher);
    *bytes.last_mut().unwrap() ^= 1;
    work.0.write(teacher, bytes);
    let construct = work.construct("made", &[]);
    let there = [&["-wdir".to_owned(), elsewhere.to_str().unwrap().to_owned()], &construct[..]].concat();
    let end = with_another(&work, &construct, &there);
    assert_failed(&end, 2, &[&differs, "construct.teacher (its content differs)"]);
    assert!(!work.0.path("made/construct/train.jsonl").exists());
}
