//! N ranks train what one process trains.

use std::{collections::BTreeMap, io::BufRead, path::Path};

use candle_core::{Device, Tensor, safetensors};
use serde_json::{Value, json};

use super::{
    common,
    fixture::{Fixture, assert_same, notes},
    job::{fail, run, succeed},
};

/// Twenty steps of twelve records, of which the last of an epoch has four: 40 records five times.
const TWENTY: [&str; 8] = [
    "--set",
    "train.batch_size=1",
    "--set",
    "train.effective_batch=12",
    "--set",
    "train.epochs=5",
    "--set",
    "train.grad_accumulation=1",
];

/// A learning rate that leaves every weight as it is drawn.
const STILL: [&str; 2] = ["--set", "train.learning_rate=1e-30"];

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("train.jsonl", notes(40, true));
    fixture
}

/// The trained tensors of a checkpoint.
fn trained(checkpoint: &Path) -> BTreeMap<String, Tensor> {
    let names = ["adapter_model.safetensors", "model.safetensors", "cls_head.safetensors"];
    let files = names.map(|name| checkpoint.join(name)).into_iter().filter(|path| path.is_file());
    files.flat_map(|path| safetensors::load(path, &Device::Cpu).unwrap()).collect()
}

fn distance(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f64 {
    let squared = |(name, a): (&String, &Tensor)| {
        let difference = (a - &b[name]).unwrap().sqr().unwrap().sum_all().unwrap();
        f64::from(difference.to_scalar::<f32>().unwrap())
    };
    assert!(!a.is_empty() && a.keys().eq(b.keys()));
    a.iter().map(squared).sum::<f64>().sqrt()
}

/// Losses of every step, and those that dev gave.
fn losses(fixture: &Fixture, run: &str) -> Vec<f64> {
    let keys = ["loss", "loss_gen", "loss_cls"];
    let of = |line: &Value| keys.map(|key| line[key].as_f64().unwrap());
    let steps: Vec<Value> = fixture.log(run, "step");
    let epochs = fixture.log(run, "epoch");
    let dev = epochs.iter().map(|line| line["dev"]["loss_cls"].as_f64().unwrap());
    steps.iter().flat_map(of).chain(epochs.iter().flat_map(of)).chain(dev).collect()
}

#[track_caller]
fn assert_close(one: &[f64], other: &[f64], what: &str) -> f64 {
    assert_eq!(one.len(), other.len(), "{what}");
    let furthest = one.iter().zip(other).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
    assert!(furthest < 1e-5, "{what}: losses {furthest:e} apart");
    furthest
}

/// Trains twenty steps on one process and on each of these numbers of ranks, into checkpoints of this epoch.
fn ranks_equal_one_process(fixture: &Fixture, flags: &[&str], epoch: usize, numbers: &[usize], what: &str) {
    fixture.succeed("start", &[flags, &STILL, &["--set", "train.max_steps=1"]].concat());
    fixture.succeed("one", flags);
    let checkpoint = |run: &str, epoch: usize| trained(&fixture.path(&format!("{run}/checkpoints/epoch-{epoch:02}")));
    let start = checkpoint("start", 1);
    let one = checkpoint("one", epoch);
    let moved = distance(&one, &start);
    for &n in numbers {
        let name = format!("on-{n}");
        let end = succeed(fixture, n, &name, flags);
        assert_eq!(end.stdout.lines().count(), 1, "rank 0 alone names the best checkpoint: {}", end.stdout);
        assert_eq!(fixture.log(&name, "step").len(), 20);
        let furthest = assert_close(&losses(fixture, "one"), &losses(fixture, &name), &name);
        let apart = distance(&checkpoint(&name, epoch), &one) / moved;
        common::say(&format!(
            "{what}, 20 steps on {n} ranks: |A_N - A_1| / |A_1 - A_0| = {apart:.1e}, losses within {furthest:.1e}"
        ));
        assert!(apart <= 1e-3, "{what} on {n} ranks: {apart:e}");
    }
}

#[test]
fn adapters_and_head_on_ranks_are_those_of_one_process() {
    ranks_equal_one_process(&fixture(), &TWENTY, 5, &[2, 3, 4], "lora");
}

#[test]
fn all_weights_on_ranks_are_those_of_one_process() {
    let flags = [&TWENTY[..], &["--set", "train.parameters=\"full\""]].concat();
    ranks_equal_one_process(&fixture(), &flags, 5, &[2, 3, 4], "full");
}

#[test]
fn smollm2_on_two_ranks_is_smollm2_on_one_process() {
    let Some(model) = common::smollm2() else { return };
    let base = format!("model.base={}", model.display());
    let flags = ["--set", &base, "--set", "train.batch_size=1", "--set", "train.grad_accumulation=1"];
    let once = ["--set", "train.effective_batch=2", "--set", "train.epochs=1"];
    ranks_equal_one_process(&fixture(), &[&flags[..], &once].concat(), 1, &[2], "SmolLM2-135M");
}

#[test]
fn as_many_ranks_give_the_same_bytes_again() {
    let fixture = Fixture::new();
    succeed(&fixture, 3, "first", &[]);
    succeed(&fixture, 3, "second", &["--threads", "2"]);
    assert_same(&fixture.result("first"), &fixture.result("second"), "twice three ranks");
    for step in fixture.log("first", "step") {
        let [seconds, share] = ["allreduce_seconds", "allreduce_share"].map(|key| step[key].as_f64().unwrap());
        assert!(seconds > 0.0 && share > 0.0 && share < 1.0, "{step}");
    }
}

#[test]
fn one_rank_is_one_process_to_the_byte() {
    let fixture = Fixture::new();
    fixture.succeed("plain", &[]);
    succeed(&fixture, 1, "mpirun", &[]);
    assert_same(&fixture.result("plain"), &fixture.result("mpirun"), "one rank");
    assert!(!String::from_utf8(fixture.read("plain/metrics.jsonl")).unwrap().contains("allreduce"));
}

#[test]
fn dev_scored_by_ranks_is_dev_scored_by_one() {
    let fixture = fixture();
    // Every kind of key that a prediction can have: groups, subgroups, explanations, probabilities of classes.
    let record = |i: usize, classes: usize| {
        let sex = if i.is_multiple_of(2) { "f" } else { "m" };
        json!({"id": i, "text": format!("note {i}"), "label": i % classes, "group": format!("g{}", i / 2), "sex": sex,
            "explanation": format!("Because of {i}.")})
        .to_string()
            + "\n"
    };
    let flags = [&TWENTY[..], &STILL, &["--set", "train.epochs=1", "--set", "eval.subgroups=[\"sex\"]"]].concat();
    let three = ["--set", "task.labels=[\"0:a\", \"1:b\", \"2:c\"]"];
    for (classes, more) in [(2, &[][..]), (3, &three)] {
        for (file, count) in [("train.jsonl", 40), ("dev.jsonl", 7)] {
            fixture.write(file, (0..count).map(|i| record(i, classes)).collect::<String>());
        }
        let [one, four] = ["one", "four"].map(|ranks| format!("{classes}-on-{ranks}"));
        fixture.succeed(&one, &[&flags, more].concat());
        succeed(&fixture, 4, &four, &[&flags, more].concat());
        for file in ["dev.predictions.jsonl", "dev.metrics.json"] {
            let read = |run: &str| fixture.read(&format!("{run}/checkpoints/epoch-01/{file}"));
            assert!(read(&one) == read(&four), "{classes} classes: {file}");
        }
        let lines = fixture.read(&format!("{four}/checkpoints/epoch-01/dev.predictions.jsonl"));
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        assert_eq!(lines.iter().map(|line| line["id"].as_str().unwrap()).collect::<String>(), "0123456");
        assert!(lines.iter().all(|line| line["sex"].is_string() && line["group"].is_string()), "{lines:?}");
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let fixture = fixture();
    fixture.succeed("one", &TWENTY);
    let until = |steps: &'static str| [&TWENTY[..], &["--resume", "--set", steps]].concat();
    succeed(&fixture, 3, "many", &until("train.max_steps=6"));
    let record = fixture.json("many/run.json");
    assert_eq!(record["hardware"]["ranks"].as_array().map(Vec::len), Some(3), "{record}");
    succeed(&fixture, 2, "many", &until("train.max_steps=11"));
    fixture.succeed("many", &until("train.max_steps=14"));
    let last = succeed(&fixture, 4, "many", &until("train.max_steps=20"));
    assert!(last.stderr.contains("resuming from"), "{}", last.stderr);
    assert_close(&losses(&fixture, "one")[..60], &losses(&fixture, "many")[..60], "3, 2, 1 and 4 ranks");
}

#[test]
fn steps_of_other_sizes_are_not_gone_on_with() {
    let fixture = Fixture::new();
    succeed(&fixture, 2, "run", &["--set", "train.max_steps=1"]);
    let texts = ["steps are of 8 records, on 2 ranks; on 3 they would be of 12", "resume it on 2 ranks"];
    fail(&fixture, 3, "run", &["--resume"], 2, &texts);
    let alone = fixture.fail("run", &["--resume"], 2);
    assert!(alone.contains("on 2 ranks; on 1 they would be of 4"), "{alone}");
    succeed(&fixture, 2, "run", &["--resume"]);
}

#[test]
fn an_effective_batch_that_ranks_do_not_divide_is_refused_naming_what_would() {
    let fixture = Fixture::new();
    let flags = ["--set", "train.batch_size=2", "--set", "train.effective_batch=8"];
    let texts = ["effective_batch = 8 is not a multiple of batch_size 2 × 3 ranks", "it takes 1, 2, 4 ranks"];
    let end = fail(&fixture, 3, "run", &flags, 2, &texts);
    assert_eq!(end.stderr.matches("error: ").count(), 1, "rank 0 alone says it: {}", end.stderr);
    assert!(!fixture.path("run/train.json").exists());
    let dry = run(&fixture, 2, "dry", &["--dry-run", "--set", "train.effective_batch=8"]);
    assert_eq!((dry.code, dry.stdout.matches("records of a step: 8").count()), (Some(0), 1), "{dry:?}");
    assert!(!fixture.path("dry").exists());
}

#[test]
fn lines_of_other_ranks_carry_their_number() {
    let fixture = Fixture::new();
    let quiet = succeed(&fixture, 2, "quiet", &["--set", "train.max_steps=1"]);
    assert!(quiet.stderr.contains("ranks: 2, hosts: 1, ") && !quiet.stderr.contains("rank 1: "), "{}", quiet.stderr);
    let told = succeed(&fixture, 2, "told", &["-v", "--set", "train.max_steps=1"]);
    assert!(told.stderr.contains("rank 1: ") && !told.stderr.contains("rank 0: "), "{}", told.stderr);
}
