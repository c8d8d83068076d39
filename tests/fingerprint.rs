//! Every config key that decides a stored result, changed in turn: the command that would go on with the result
//! refuses, naming it. And what no key says: the tokenizer, the chat template, the day.

#[path = "fingerprint/changed.rs"]
mod changed;
mod common;

use std::path::PathBuf;

use changed::changed;
use clsgen::{
    config::Stage,
    demo::{
        self,
        notes::{NoteSettings, Notes},
    },
};
use common::{Outcome, Scratch, assert_fails, in_scratch, outcome};
use serde_json::{Value, json};

/// Settings under which every decoding draws, so that top_p and the seed decide something.
const SETTINGS: &str = r#"
[task]
name = "demo"
labels = ["0:alive", "1:death"]
prompt = "prompt.toml"
[data]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
[model]
base = "model"
max_input_tokens = 560
max_output_tokens = 48
[construct]
teacher = "model"
max_input_tokens = 320
max_output_tokens = 48
trials = 1
temperature = 0.5
on_fail = "label_only"
[lora]
rank = 2
[head]
hidden = 8
[train]
epochs = 1
batch_size = 4
objective = "cls"
[generate]
temperature = 0.5
[eval]
bootstrap = 20
runs = 1
judge = "model"
baselines = ["verbalized", "label", "token_probability"]
[cnn]
embeddings = "bert"
filters = 2
projection = 2
epochs = 1
seeds = 1
learning_rate = 1e-3
"#;

/// A folder with a model, notes, explanations, a trained run, its predictions and its evaluation.
struct World(Scratch);

in_scratch!(World);

impl World {
    fn new() -> Self {
        let world = Self(Scratch::new());
        demo::write_model(&world.path("model")).unwrap();
        world.write("prompt.toml", demo::PROMPT.1);
        world.write("clsgen.toml", SETTINGS);
        let notes = Notes::new(5, NoteSettings { words: 90, prevalence: 0.5, typos: 0.0 });
        for (name, range) in [("train", 0..10), ("dev", 10..16), ("test", 16..22), ("longer", 0..11)] {
            let lines = notes.range(range).into_iter().map(|note| {
                let mut record = note.record.to_json();
                // Columns that other settings read.
                record.insert("other".into(), record["text"].clone());
                record.insert("sex".into(), json!("f"));
                Value::Object(record).to_string()
            });
            world.write(&format!("{name}.jsonl"), lines.collect::<Vec<_>>().join("\n"));
        }
        world.word_embeddings();
        world
    }

    /// A copy of a model folder with one more blank in one of its files.
    fn other_model(&self, name: &str, file: &str) {
        for entry in std::fs::read_dir(self.path("model")).unwrap().flatten() {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            bytes.extend(if entry.file_name() == file { &b" "[..] } else { b"" });
            self.write(&format!("{name}/{}", entry.file_name().to_str().unwrap()), bytes);
        }
    }

    /// A folder as BERT's with four words.
    fn word_embeddings(&self) {
        use candle_core::{Device, Tensor, safetensors};
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "decoder": null,
            "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "[SEP]": 1, "the": 2, "fever": 3},
            "unk_token": "[UNK]"},
        });
        let table: Vec<f32> = (0..4 * 5).map(|i| ((i * 37) % 11) as f32 / 11.0 - 0.5).collect();
        for folder in ["bert", "bert2"] {
            self.write(&format!("{folder}/tokenizer.json"), tokenizer.to_string());
            let table = table.iter().map(|x| if folder == "bert" { *x } else { -x }).collect();
            let name = "bert.embeddings.word_embeddings.weight".to_owned();
            let tensors =
                std::collections::HashMap::from([(name, Tensor::from_vec(table, (4, 5), &Device::Cpu).unwrap())]);
            safetensors::save(&tensors, self.path(&format!("{folder}/model.safetensors"))).unwrap();
        }
    }

    /// `clsgen COMMAND` in this folder; `sets` are `--set`s.
    fn clsgen(&self, command: &[&str], sets: &[String]) -> Outcome {
        let mut clsgen = common::clsgen();
        clsgen.current_dir(self.path("")).args(command).args(["--config", "clsgen.toml", "--run", "run"]);
        for set in sets {
            clsgen.args(["--set", set]);
        }
        outcome(&mut clsgen)
    }

    #[track_caller]
    fn succeed(&self, command: &[&str], sets: &[String]) -> Outcome {
        let outcome = self.clsgen(command, sets);
        assert_eq!(outcome.code, Some(0), "{command:?} {outcome:?}");
        outcome
    }
}

/// The command that goes on with a stage's result.
fn command(stage: Stage) -> &'static [&'static str] {
    match stage {
        Stage::Construct => &["construct"],
        Stage::Train => &["train", "--resume"],
        Stage::Predict => &["predict", "--model", "run", "--input", "test.jsonl", "--output", "out.jsonl"],
        Stage::Measure | Stage::Judge | Stage::Baselines => &["eval"],
        Stage::Cnn => &["eval", "--baselines", "cnn"],
    }
}

#[test]
fn every_key_that_decides_a_result_is_missed_by_the_command_that_goes_on_with_it() {
    let world = World::new();
    world.other_model("model2", "config.json");
    world.write("prompt2.toml", demo::PROMPT.1.replace("patient", "person"));
    world.write("judge.toml", "system = \"Judge.\"\ntemplate = \"{explanation}\"\n");
    world.write("verbalized.toml", "system = \"Say a number.\"\nquestion = \"A probability?\"\n");
    let stages = [Stage::Construct, Stage::Train, Stage::Predict, Stage::Measure, Stage::Cnn];
    stages.iter().for_each(|stage| drop(world.succeed(command(*stage), &[])));
    for stage in Stage::ALL {
        for (key, _) in stage.keys() {
            // A base counts for construct by its tokenizer, below; and finished baselines need none.
            if key == "model.base" && matches!(stage, Stage::Construct | Stage::Baselines) {
                continue;
            }
            let sets: Vec<String> = changed(key).into_iter().map(str::to_owned).collect();
            let before = snapshot(&world);
            let outcome = world.clsgen(command(stage), &sets);
            // A checkpoint knows its base, and says so before anything is compared.
            let code = if (stage, key) == (Stage::Predict, "model.base") { 4 } else { 2 };
            assert_eq!(outcome.code, Some(code), "{stage:?}, {key}: {outcome:?}");
            assert!(
                outcome.stderr.contains(key) && outcome.stderr.contains("hint: "),
                "{stage:?}, {key}: {}",
                outcome.stderr
            );
            assert_eq!(snapshot(&world), before, "{stage:?}, {key}");
        }
    }
    // run.json names what was used.
    let run: Value = serde_json::from_slice(&std::fs::read(world.path("run/run.json")).unwrap()).unwrap();
    let roles: Vec<&str> =
        run["inputs"].as_array().unwrap().iter().filter_map(|input| input["role"].as_str()).collect();
    assert_eq!(roles, ["checkpoint", "model.base", "eval.judge"]);
    assert_eq!((&run["hardware"]["dtype"], run["exit_code"].is_i64()), (&json!("f32"), true));
    // A new evaluation reads the split as the run read its own: thresholds come from the run's dev predictions.
    std::fs::rename(world.path("run/eval"), world.path("aside")).unwrap();
    for key in [
        "model.max_input_tokens",
        "model.truncate",
        "generate.temperature",
        "data.horizon",
        "data.dev",
        "task.labels",
        "task.prompt",
    ] {
        let sets: Vec<String> = changed(key).into_iter().map(str::to_owned).collect();
        assert_fails(
            &world.clsgen(&["eval"], &sets),
            2,
            &["was trained and its dev split scored under other settings", key, "hint: "],
        );
        assert!(!world.path("run/eval").exists(), "{key}");
    }
    std::fs::rename(world.path("aside"), world.path("run/eval")).unwrap();
    // Unchanged, every one of them still goes on.
    stages.iter().for_each(|stage| drop(world.succeed(command(*stage), &[])));
}

/// Results by name and content: what a refusal must leave alone.
fn snapshot(world: &World) -> Vec<(PathBuf, String)> {
    fn walk(dir: PathBuf, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(path, found),
                path if path.extension().is_some_and(|kind| kind == "jsonl" || kind == "safetensors") => {
                    found.push((path.clone(), blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()));
                }
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(world.path("run"), &mut found);
    found.sort();
    found
}

#[test]
fn another_tokenizer_or_chat_template_is_refused_by_whatever_goes_on() {
    let world = World::new();
    for stage in [Stage::Construct, Stage::Train, Stage::Predict] {
        world.succeed(command(stage), &[]);
    }
    let info: Value =
        serde_json::from_slice(&std::fs::read(world.path("run/checkpoints/epoch-01/clsgen.json")).unwrap()).unwrap();
    assert_eq!(info["tokenizer_hash"].as_str().map(str::len), Some(64));
    let lines = std::fs::read(world.path("out.jsonl")).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        let whole = std::fs::read(world.path("model").join(file)).unwrap();
        world.write(&format!("model/{file}"), [&whole[..], b"\n"].concat());
        assert_fails(
            &world.clsgen(command(Stage::Construct), &[]),
            2,
            &["teacher's tokenizer", "model.base", "hint: "],
        );
        assert_fails(&world.clsgen(command(Stage::Train), &[]), 2, &["tokenizer (its content differs)"]);
        for goes_on in [command(Stage::Predict), &["eval"]] {
            assert_fails(
                &world.clsgen(goes_on, &[]),
                4,
                &["was trained with another tokenizer, chat template", "hint: put the files back"],
            );
        }
        world.write(&format!("model/{file}"), whole);
    }
    assert_eq!(std::fs::read(world.path("out.jsonl")).unwrap(), lines);
    // A checkpoint of an older clsgen names none: one warning.
    let mut older = info.clone();
    older.as_object_mut().unwrap().remove("tokenizer_hash");
    std::fs::remove_file(world.path("run/checkpoints/epoch-01/manifest.json")).unwrap();
    world.write("run/checkpoints/epoch-01/clsgen.json", older.to_string());
    let predict = ["predict", "--model", "run", "--input", "test.jsonl", "--output", "older.jsonl"];
    let outcome = world.succeed(&predict, &[]);
    assert_eq!(outcome.stderr.matches("names no tokenizer_hash").count(), 1, "{}", outcome.stderr);
    assert_eq!(std::fs::read(world.path("older.jsonl")).unwrap(), lines);
}

/// A template that prints the minute, so that tests need not wait for midnight.
const CLOCK: &str = "{{ strftime_now('%Y-%m-%d %H:%M') }} {% for m in messages %}{{ m.content }} {% endfor %}";

#[test]
fn a_template_that_reads_the_clock_reads_the_runs_own() {
    let world = World::new();
    world.write("model/chat_template.jinja", CLOCK);
    for stage in [Stage::Construct, Stage::Train] {
        world.succeed(command(stage), &[]);
    }
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(world.path(name)).unwrap()).unwrap() };
    let date = read("run/run.json")["prompt_date"].clone();
    assert_eq!(read("run/checkpoints/epoch-01/clsgen.json")["prompt"]["date"], date);
    // A run of long ago: each command goes on with its date, on a day when its machine's clock says another.
    let away = |command: &[&str], zone: &str| {
        let mut clsgen = common::clsgen();
        clsgen
            .current_dir(world.path(""))
            .args(command)
            .args(["--config", "clsgen.toml", "--run", "run"])
            .env("TZ", zone);
        outcome(&mut clsgen)
    };
    for stage in [Stage::Construct, Stage::Train, Stage::Predict, Stage::Measure] {
        for zone in ["Pacific/Kiritimati", "Etc/GMT+12"] {
            let outcome = away(command(stage), zone);
            assert_eq!(outcome.code, Some(0), "{stage:?} in {zone}: {outcome:?}");
        }
    }
    // Torn after its first line and gone on with half a world away, a file is the one made at home.
    let whole = std::fs::read_to_string(world.path("out.jsonl")).unwrap();
    let sidecar = std::fs::read(world.path("out.jsonl.meta.json")).unwrap();
    world.write("out.jsonl", whole.split_inclusive('\n').next().unwrap());
    let mut unfinished: Value = serde_json::from_slice(&sidecar).unwrap();
    unfinished.as_object_mut().unwrap().remove("written");
    world.write("out.jsonl.meta.json", unfinished.to_string());
    assert_eq!(away(command(Stage::Predict), "Etc/GMT+12").code, Some(0));
    assert_eq!(std::fs::read_to_string(world.path("out.jsonl")).unwrap(), whole);
    // Without a date in its prompt, as an older clsgen left it, a checkpoint takes today's, and two days are not mixed
    // in one file.
    let mut info = read("run/checkpoints/epoch-01/clsgen.json");
    info["prompt"].as_object_mut().unwrap().remove("date");
    info.as_object_mut().unwrap().remove("tokenizer_hash");
    std::fs::remove_file(world.path("run/checkpoints/epoch-01/manifest.json")).unwrap();
    std::fs::remove_file(world.path("run/run.json")).unwrap();
    world.write("run/checkpoints/epoch-01/clsgen.json", info.to_string());
    let predict = ["predict", "--model", "run", "--input", "test.jsonl", "--output", "older.jsonl", "--no-explanation"];
    assert_eq!(away(&predict, "Pacific/Kiritimati").code, Some(0));
    assert_fails(&away(&predict, "Etc/GMT+12"), 2, &["prompt date (", "hint: "]);
}
