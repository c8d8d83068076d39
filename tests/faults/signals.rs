//! Whatever a command waits for, a signal ends it, with what is finished kept.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use super::{clusters::has_strace, work::Work};
use crate::common::{self, assert_fails, send};

/// Waits until a process has ended; one that never does is killed, and the test fails.
#[track_caller]
fn code_of(child: &mut Child, what: &str) -> Option<i32> {
    let mut status = None;
    let mut waited = std::time::Duration::ZERO;
    let moment = std::time::Duration::from_millis(20);
    while status.is_none() {
        status = child.try_wait().unwrap();
        waited += moment;
        if waited.as_secs() > 60 {
            child.kill().unwrap();
            panic!("{what}: it goes on after a signal");
        }
        std::thread::sleep(moment);
    }
    status.and_then(|status| status.code())
}

fn piped(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn told(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Waits until a process sleeps and has used no CPU for a while: it waits for somebody.
fn wait_until_idle(child: &mut Child) {
    let used = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields: Vec<String> = stat.rsplit(") ").next().unwrap_or_default().split(' ').map(str::to_owned).collect();
        (fields.first().cloned(), fields.get(11).cloned(), fields.get(12).cloned())
    };
    let mut before = used(child.id());
    let mut same = 0;
    let id = child.id();
    common::wait_until(child, "a process that waits", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = used(id);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        same >= 10
    });
}

const PREDICT: [&str; 6] = ["predict", "--model", "run", "--no-explanation", "--input", "-"];

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn an_idle_stdin_keeps_no_command_from_ending() {
    let work = Work::trained(8);
    let record = |i: usize| json!({"id": i.to_string(), "text": "A short note."}).to_string() + "\n";
    for (signal, code, records) in [("TERM", 143, 0), ("INT", 130, 3), ("USR1", 138, 3), ("HUP", 129, 1)] {
        let mut command = work.command(&[&PREDICT[..], &["--output", "-"]].concat());
        command = common::hearing_hangups(&command);
        let mut child = piped(command);
        let mut stdin = child.stdin.take().unwrap();
        (0..records).for_each(|i| stdin.write_all(record(i).as_bytes()).unwrap());
        wait_until_idle(&mut child);
        send(signal, &child);
        assert_eq!(code_of(&mut child, signal), Some(code), "{signal}");
        let told = told(&mut child);
        assert!(told.contains(&format!("stopped by SIG{signal}")) && !told.contains("cannot be read"), "{told}");
        drop(stdin);
    }
    // Nor one that is half a line, nor one that is CSV.
    for text in ["{\"id\": \"a\", \"te", "id,text\n1,\"a no"] {
        let mut child = piped(work.command(&[&PREDICT[..], &["--output", "out.jsonl", "--overwrite"]].concat()));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        wait_until_idle(&mut child);
        send("TERM", &child);
        assert_eq!(code_of(&mut child, text), Some(143), "{text}");
        drop(stdin);
    }
}

#[test]
fn a_fifo_without_another_end_keeps_no_command_from_ending() {
    let work = Work::trained(8);
    fifo(&work.path("in"));
    fifo(&work.path("out"));
    let predict = ["predict", "--model", "run", "--no-explanation"];
    for more in [&["--input", "in", "--output", "-"][..], &["--input", "data/test.jsonl", "--output", "out"]] {
        let mut child = piped(work.command(&[&predict[..], more].concat()));
        wait_until_idle(&mut child);
        send("TERM", &child);
        assert_eq!(code_of(&mut child, &more.concat()), Some(143), "{more:?}: {}", told(&mut child));
    }
    // Both have another end now.
    let mut child = piped(work.command(&[&predict[..], &["--input", "in", "--output", "out"]].concat()));
    let input = std::fs::read(work.path("data/test.jsonl")).unwrap();
    let to = work.path("in");
    let writer = std::thread::spawn(move || std::fs::write(to, input).unwrap());
    let lines = std::fs::read_to_string(work.path("out")).unwrap();
    writer.join().unwrap();
    assert_eq!((code_of(&mut child, "both"), lines.lines().count()), (Some(0), 8));
}

#[test]
fn a_reader_that_takes_nothing_keeps_no_command_from_ending_and_a_slow_one_gets_all() {
    let work = Work::trained(8);
    let records: String = (0..1500).map(|i| json!({"id": i, "text": "A note."}).to_string() + "\n").collect();
    work.write("many.jsonl", &records);
    let predict = ["predict", "--model", "run", "--no-explanation", "--input", "many.jsonl", "--output", "-"];
    let mut child = piped(work.command(&predict));
    wait_until_idle(&mut child);
    send("TERM", &child);
    assert_eq!(code_of(&mut child, "a full pipe"), Some(143));
    let mut some = String::new();
    child.stdout.take().unwrap().read_to_string(&mut some).unwrap();
    let whole = some.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
    assert!(whole > 50 && whole < 1500, "{whole} lines");

    let mut child = piped(work.command(&predict));
    let mut stdout = child.stdout.take().unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 3000];
    loop {
        let n = stdout.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..n]);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!((code_of(&mut child, "a slow reader"), common::lines_of(&all)), (Some(0), 1500));

    // `| head -1`: what a shell says of a program that SIGPIPE ended, and not a word.
    let script = "\"$0\" \"$@\" | head -1; exit ${PIPESTATUS[0]}";
    let told = common::outcome(&mut work.under(&["bash", "-c", script], &predict));
    assert_eq!((told.code, told.stdout.lines().count()), (Some(141), 1), "{told:?}");
    assert!(!told.stderr.contains("error: ") && !told.stderr.contains("panic"), "{told:?}");
}

#[test]
fn a_long_evaluation_ends_and_leaves_no_half_of_it() {
    let work = Work::new(2);
    let line =
        |i: usize| format!("{{\"id\": \"{i}\", \"label\": {}, \"probability\": 0.{:04}}}\n", i % 3 / 2, i * 37 % 9999);
    work.write("p.jsonl", (0..20_000).map(line).collect::<String>());
    let eval = ["eval", "--predictions", "p.jsonl", "--run", "scored"];
    let mut command = work.command(&eval);
    command.args(["--set", "eval.bootstrap=500000"]);
    let mut child = piped(command);
    common::wait_until(&mut child, "the evaluation's folder", || {
        work.path("scored/eval/predictions/settings.json").exists()
    });
    std::thread::sleep(std::time::Duration::from_secs(1));
    send("TERM", &child);
    assert_eq!(code_of(&mut child, "eval"), Some(143));
    let told = told(&mut child);
    assert!(told.contains("stopped by SIGTERM") && told.contains("hint: ") && !told.contains("internal"), "{told}");
    assert!(!work.path("scored/eval/predictions/metrics.json").exists());
    let record: serde_json::Value = work.json("scored/run.json");
    assert_eq!((&record["exit_code"], &record["outcome"]), (&json!(143), &json!("stopped by signal 15")));
    assert!(work.files("scored").iter().all(|path| !path.contains(".tmp-")), "{:?}", work.files("scored"));
    let again = work.run(&[&eval[..], &["--overwrite"]].concat());
    assert_eq!(again.code, Some(0), "{again:?}");
}

/// No weight has changed since the checkpoint that it goes on from, which holds what dev says of them.
#[test]
fn a_resume_that_is_stopped_before_its_first_step_replaces_nothing() {
    if !has_strace() {
        return;
    }
    let work = Work::new(8);
    let train = ["train", "--config", "demo.toml", "--run", "run", "--set", "train.batch_size=2"];
    let resume = [&train[..], &["--resume"]].concat();
    let first = common::outcome(work.command(&train).args(["--set", "train.max_steps=1"]));
    assert_eq!(first.code, Some(0), "{first:?}");
    let kept = || {
        let texts = ["best.json", "metrics.jsonl"].map(|name| work.text(&format!("run/{name}")));
        (common::files(&work.path("run/checkpoints"), &[]), texts)
    };
    let before = kept();
    assert!(before.0.contains_key(Path::new("epoch-01/dev.metrics.json")), "{:?}", before.0.keys());

    // It comes when all is loaded: as the folder of events is looked for.
    let signal = ["-P", "run/tensorboard", "-e", "inject=?mkdir,mkdirat:signal=INT"];
    let wrapper = [&["strace", "-f", "-qq", "-o", "strace.log"][..], &signal].concat();
    let told = common::outcome(&mut work.under(&wrapper, &resume));
    assert_fails(&told, 130, &["stopped by SIGINT after step 1 of 2, state saved"]);
    let after = kept();
    assert_eq!(common::differing(&before.0, &after.0), Vec::<&PathBuf>::new());
    assert_eq!(before.1, after.1);

    // It goes on, and then the log has one line of the epoch.
    let told = work.run(&resume);
    assert_eq!(told.code, Some(0), "{told:?}");
    let log = work.text("run/metrics.jsonl");
    assert_eq!(["step", "epoch"].map(|kind| log.matches(&format!(r#""type":"{kind}""#)).count()), [2, 1], "{log}");
}

/// A file that takes minutes to hash.
#[test]
fn a_large_file_is_not_hashed_to_its_end() {
    let work = Work::trained(8);
    let large = std::fs::File::create(work.path("run/checkpoints/epoch-01/large.bin")).unwrap();
    large.set_len(1 << 40).unwrap();
    let predict = ["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "out.jsonl"];
    let mut child = piped(work.command(&predict));
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none());
    send("TERM", &child);
    assert_eq!(code_of(&mut child, "hashing"), Some(143), "{}", told(&mut child));
}
