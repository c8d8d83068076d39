//! A base and judge that thinks before it answers, as DeepSeek-R1's distillates do: their chat template opens the
//! thought.

use std::{collections::HashMap, process::Command};

use candle_core::{Device, Tensor, safetensors};
use serde_json::{Value, json};

#[allow(dead_code)]
#[path = "../train/fixture.rs"]
mod fixture;

use fixture::{Fixture, check, golden, stderr};

const OPENS: &str =
    "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<think>\n{% endif %}";
const SILENT: &str =
    "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}Answer: {% endif %}";
/// More tokens than a judge gets for its one line.
const STEPS: usize = 60;
/// What is said in the thought, in the very format of an answer.
const DOUBT: &str = "Perhaps\nClassification: 0:alive\nReadability: UNREADABLE\nProbability: 20\n";
const ANSWER: &str = "Sure.\nClassification: 1:death\nReadability: READABLE\nProbability: 80\n";

/// A model folder that says these tokens one after the other, whatever it is asked: each token's embedding is its own
/// axis, attention and MLP add nothing, and the LM head maps an axis to the token that follows.
fn write_scripted(fixture: &Fixture, folder: &str, template: &str, script: &[String]) {
    let plain =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(golden("base").join(name)).unwrap()).unwrap() };
    let mut tokenizer = plain("tokenizer.json");
    let mut config = plain("config.json");
    let first = 257;
    for (i, content) in script.iter().enumerate() {
        let token = json!({"id": first + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false,
            "special": false});
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    }
    let vocab = first + script.len();
    let hidden = vocab.next_multiple_of(8);
    for (key, value) in
        [("vocab_size", vocab), ("hidden_size", hidden), ("num_hidden_layers", 1), ("max_position_embeddings", 2048)]
    {
        config[key] = json!(value);
    }
    fixture.write(&format!("{folder}/tokenizer.json"), tokenizer.to_string());
    fixture.write(&format!("{folder}/config.json"), config.to_string());
    fixture.write(&format!("{folder}/chat_template.jinja"), template);
    fixture.write(&format!("{folder}/tokenizer_config.json"), plain("tokenizer_config.json").to_string());

    let next = |id: usize| {
        if id < first {
            first
        } else if id + 1 < vocab {
            id + 1
        } else {
            256
        }
    };
    let axes = |row: &dyn Fn(usize) -> usize| {
        let mut values = vec![0f32; vocab * hidden];
        (0..vocab).for_each(|id| values[row(id) * hidden + id] += 1.0);
        Tensor::from_vec(values, (vocab, hidden), &Device::Cpu).unwrap()
    };
    let zeros =
        |rows: usize, columns: usize| Tensor::zeros((rows, columns), candle_core::DType::F32, &Device::Cpu).unwrap();
    let ones = || Tensor::ones(hidden, candle_core::DType::F32, &Device::Cpu).unwrap();
    let heads = 4 * 8;
    let kv = 2 * 8;
    let ffn = 48;
    let layer = |part: &str| format!("model.layers.0.{part}.weight");
    let tensors: HashMap<String, Tensor> = [
        ("model.embed_tokens.weight".into(), axes(&|id| id)),
        ("lm_head.weight".into(), axes(&next)),
        ("model.norm.weight".into(), ones()),
        (layer("input_layernorm"), ones()),
        (layer("post_attention_layernorm"), ones()),
        (layer("self_attn.q_proj"), zeros(heads, hidden)),
        (layer("self_attn.k_proj"), zeros(kv, hidden)),
        (layer("self_attn.v_proj"), zeros(kv, hidden)),
        (layer("self_attn.o_proj"), zeros(hidden, heads)),
        (layer("mlp.gate_proj"), zeros(ffn, hidden)),
        (layer("mlp.up_proj"), zeros(ffn, hidden)),
        (layer("mlp.down_proj"), zeros(hidden, ffn)),
    ]
    .into();
    safetensors::save(&tensors, fixture.path(&format!("{folder}/model.safetensors"))).unwrap();
}

/// The steps of a thought, its doubt, and what follows.
fn thought(then: &[&str]) -> Vec<String> {
    (0..STEPS).map(|i| format!("step {i}; ")).chain([DOUBT].iter().chain(then).map(|text| (*text).to_owned())).collect()
}

/// A run of one step over a base that says `script`, judged by that same model, and its baselines.
struct Scored {
    fixture: Fixture,
    told: String,
}

impl Scored {
    fn new(template: &str, script: &[String], flags: &[&str]) -> Self {
        let fixture = Fixture::new();
        write_scripted(&fixture, "scripted", template, script);
        let prompt = String::from_utf8(fixture.read("prompt.toml")).unwrap();
        fixture.write("prompt.toml", prompt.replace("\"plain\"", "\"chat\""));
        let windows = ["--set", "model.base=scripted", "--set", "model.max_input_tokens=1200"];
        let short = ["--set", "train.epochs=1", "--set", "train.max_steps=1"];
        fixture.succeed("run", &[&windows[..], &short, flags].concat());
        // Something to judge.
        let line = |i: usize| {
            json!({"id": format!("n{i}"), "label": i % 2, "probability": 0.5, "verbalized_label": i % 2,
                "explanation": "It is so.",
                "text": "It is so."})
        };
        fixture.write("told.jsonl", (0..3).map(|i| line(i).to_string() + "\n").collect::<String>());
        let eval = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
            command
                .current_dir(fixture.path(""))
                .args(["eval", "--config", "config.toml", "--run", "run"])
                .args(more)
                .args(flags);
            command.args([
                "--set",
                "model.base=scripted",
                "--set",
                "eval.bootstrap=0",
                "--set",
                "model.max_input_tokens=1200",
            ]);
            let output = check(command.env("RUST_BACKTRACE", "0").output().unwrap());
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            stderr(&output)
        };
        eval(&["--split", "dev", "--baselines", "label,verbalized,self_consistency", "--runs", "2"]);
        let told = eval(&["--predictions", "told.jsonl", "--set", "eval.judge=scripted"]);
        Self { fixture, told }
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = String::from_utf8(self.fixture.read(&format!("run/eval/{name}.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What was read of every answer, the same of each: the judge's label and readability, the label, the probability.
    fn read(&self) -> [Value; 4] {
        let same = |name: &str, value: &dyn Fn(&Value) -> Value| {
            let values: Vec<Value> = self.lines(name).iter().map(value).collect();
            assert!(!values.is_empty() && values.iter().all(|value| *value == values[0]), "{name}: {values:?}");
            values[0].clone()
        };
        let run = |key: &'static str| move |line: &Value| line["runs"][1][key].clone();
        [
            same("predictions/judge", &|line| line["inferred_label"].clone()),
            same("predictions/judge", &|line| line["readable"].clone()),
            same("dev/baselines/label", &run("verbalized_label")),
            same("dev/baselines/verbalized", &run("probability")),
        ]
    }
}

const ROOM: [&str; 2] = ["--set", "model.max_output_tokens=100"];

#[test]
fn an_answer_is_read_behind_the_thought_that_the_template_opened() {
    let scored = Scored::new(OPENS, &thought(&["</think>", ANSWER]), &ROOM);
    assert_eq!(scored.read(), [json!(1), json!(true), json!(1), json!(0.8)]);
    assert!(scored.told.contains("0 of 6 answers unparsable"), "{}", scored.told);
    let text = scored.lines("dev/baselines/label")[0]["runs"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains(DOUBT) && text.ends_with(ANSWER), "what was written is kept whole");
    let votes = scored.lines("dev/baselines/self_consistency");
    assert_eq!((&votes[0]["votes"], &votes[0]["unparsable"]), (&json!([0, 2]), &json!(0)));
}

#[test]
fn a_thought_that_never_ends_is_no_answer() {
    // The model stops in its thought, or is cut off in it.
    for (script, room) in
        [(thought(&[]), &ROOM[..]), (thought(&["</think>", ANSWER]), &["--set", "model.max_output_tokens=61"])]
    {
        let scored = Scored::new(OPENS, &script, room);
        assert_eq!(scored.read(), [Value::Null, Value::Null, Value::Null, Value::Null]);
        assert!(scored.told.contains("6 of 6 answers unparsable"), "{}", scored.told);
        assert_eq!(scored.lines("dev/baselines/self_consistency")[0]["unparsable"], 2);
    }
}

#[test]
fn a_model_that_opens_no_thought_is_read_as_it_speaks() {
    let scored = Scored::new(SILENT, &[DOUBT.to_owned()], &[]);
    assert_eq!(scored.read(), [json!(0), json!(false), json!(0), json!(0.2)]);
    // One that opens it itself must close it.
    let scored = Scored::new(SILENT, &["<think>".to_owned(), DOUBT.to_owned()], &ROOM);
    assert_eq!(scored.read(), [Value::Null, Value::Null, Value::Null, Value::Null]);
}
