//! `mpirun -n N clsgen predict|construct|eval`: the files of one process.

use std::process::Stdio;

use super::{infer_work::Work, job::mpirun};

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
    for (fail, ranks) in [("drop", &[2, 3][..]), ("rationalize", &[4])] {
        let set = format!("construct.on_fail={fail}");
        let flags = ["--set", &set, "--set", "construct.splits=[\"train\", \"dev\"]"];
        let one = work.one(&work.construct(fail, &flags));
        for &n in ranks {
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
    for n in [2, 4] {
        work.copy("run", &format!("run-{n}"));
    }
    let one = work.one(&work.command("eval", "run", &JUDGED));
    let dev = ["--split", "dev", "--set", "generate.constrain=true"];
    work.one(&work.command("eval", "run", &dev));
    for n in [2, 4] {
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
