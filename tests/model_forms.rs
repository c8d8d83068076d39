//! Every documented form of an input, through the program: what names a model, what PEFT writes, what holds records.
//!
//! One checkpoint over the embedded model predicts the same notes whatever form base, adapter or records have; the bits
//! must be those of the plain form.

mod common;
#[path = "model_forms/fixture.rs"]
mod fixture;
#[path = "model_forms/gguf.rs"]
mod gguf;
#[path = "model_forms/records.rs"]
mod records;
#[path = "model_forms/told.rs"]
mod told;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use candle_core::{Device, Tensor, safetensors};
use common::{Outcome, assert_fails, clsgen, outcome, run};
use fixture::{Bench, PROMPT};
use serde_json::{Value, json};

/// transformers 5 writes `dtype` and `rope_parameters`.
fn version_5(mut config: Value) -> Value {
    let keys = config.as_object_mut().unwrap();
    let theta = keys.remove("rope_theta").unwrap();
    let dtype = keys.remove("torch_dtype").unwrap();
    keys.remove("rope_scaling");
    keys.insert("dtype".into(), dtype);
    keys.insert("rope_parameters".into(), json!({"rope_type": "default", "rope_theta": theta}));
    config
}

/// Two shards and their index.
fn shards(bench: &Bench, name: &str) {
    bench.model(name, &["model.safetensors"]);
    let mut parts = [HashMap::new(), HashMap::new()];
    let mut map = serde_json::Map::new();
    for (i, (tensor, values)) in bench.tensors().into_iter().enumerate() {
        map.insert(tensor.clone(), format!("model-0000{}-of-00002.safetensors", i % 2 + 1).into());
        parts[i % 2].insert(tensor, values);
    }
    for (i, part) in parts.iter().enumerate() {
        safetensors::save(part, bench.path(name).join(format!("model-0000{}-of-00002.safetensors", i + 1))).unwrap();
    }
    bench
        .write(&format!("{name}/model.safetensors.index.json"), json!({"metadata": {}, "weight_map": map}).to_string());
}

/// Makes `owner/name` of a folder in a hub cache: `huggingface_hub`'s layout.
fn into_hub(bench: &Bench, model: &str, cache: &str, repository: &str) {
    let snapshot = format!("{cache}/models--{repository}/snapshots/abc");
    for entry in std::fs::read_dir(bench.path(model)).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        bench.write(&format!("{snapshot}/{file}"), std::fs::read(bench.path(model).join(&file)).unwrap());
    }
    bench.write(&format!("{cache}/models--{repository}/refs/main"), "abc");
}

#[test]
fn every_form_of_a_base_model_gives_the_same_bits() {
    let bench = Bench::new();
    let wanted = bench.plain();
    bench.model("v5", &["config.json"]);
    bench.write("v5/config.json", version_5(bench.json("model/config.json")).to_string());
    shards(&bench, "sharded");
    // Beside its folder's tokenizer.json, and with nothing but itself.
    let gguf = gguf::of_folder(&bench.path("model"));
    bench.model("with-tokenizer", &["model.safetensors", "config.json"]);
    bench.write("with-tokenizer/weights.gguf", &gguf);
    bench.write("folder-of-one/weights.gguf", &gguf);
    bench.write("alone/a.gguf", &gguf);
    bench.write("alone/another.GGUF", &gguf);
    into_hub(&bench, "model", "hub", "owner--tiny");
    into_hub(&bench, "folder-of-one", "hub", "owner--tiny-GGUF");
    let hub = bench.spelled("hub");
    let forms = [
        ("a folder by its whole path", bench.spelled("model")),
        ("a folder by a relative path", "model".into()),
        ("a config.json of transformers 5", "v5".into()),
        ("weights in shards", "sharded".into()),
        ("a hub id in the cache", "owner/tiny".into()),
        ("a hub id whose repository holds a .gguf file alone", "owner/tiny-GGUF".into()),
        ("a folder with a .gguf file and tokenizer.json", "with-tokenizer".into()),
        ("a .gguf file beside tokenizer.json", "with-tokenizer/weights.gguf".into()),
        ("a folder with a .gguf file alone", "folder-of-one".into()),
        ("a .gguf file alone", "alone/a.gguf".into()),
        ("a .gguf file in capitals", "alone/another.GGUF".into()),
    ];
    for (what, base) in forms {
        let set = format!("model.base={base}");
        bench.same(
            what,
            &wanted,
            bench.predict("checkpoint", "notes.jsonl", &["--set", &set], &[("HF_HUB_CACHE", &hub)]),
        );
    }
    // The chat template is in the file as well.
    bench.checkpoint("chat", json!(["q_proj", "v_proj"]), "chat");
    let chat = bench.predict("chat", "notes.jsonl", &[], &[]);
    assert_eq!(chat.0.code, Some(0), "{chat:?}");
    assert_ne!(chat.1, wanted);
    bench.same("chat", &chat.1, bench.predict("chat", "notes.jsonl", &["--set", "model.base=alone/a.gguf"], &[]));
}

#[test]
fn every_command_takes_a_gguf_file_alone() {
    let bench = Bench::new();
    bench.write("elsewhere/tiny.gguf", gguf::of_folder(&bench.path("model")));
    bench.write("prompt.toml", PROMPT);
    let common =
        ["--set", "task.prompt=prompt.toml", "--set", "data.train=notes.jsonl", "--set", "data.dev=notes.jsonl"];
    let small = [
        "--set",
        "model.base=elsewhere/tiny.gguf",
        "--set",
        "construct.teacher=elsewhere/tiny.gguf",
        "--set",
        "construct.trials=1",
        "--set",
        "construct.splits=train",
        "--set",
        "construct.max_output_tokens=16",
        "--set",
        "model.max_output_tokens=16",
        "--set",
        "model.max_input_tokens=1024",
        "--set",
        "construct.max_input_tokens=1024",
        "--set",
        "train.objective=cls",
        "--set",
        "train.epochs=1",
        "--set",
        "head.hidden=8",
        "--set",
        "eval.bootstrap=0",
    ];
    let succeed = |args: &[&str]| {
        let run: &[&str] = if args.contains(&"--run") { &[] } else { &["--run", "run"] };
        let told = outcome(clsgen().current_dir(bench.path("")).args([args, &common, &small, run].concat()));
        assert_eq!(told.code, Some(0), "{args:?}: {told:?}");
    };
    succeed(&["construct", "--set", "construct.on_fail=label_only"]);
    succeed(&["train"]);
    succeed(&[
        "eval",
        "--split",
        "dev",
        "--compare-base",
        "--set",
        "eval.judge=elsewhere/tiny.gguf",
        "--baselines",
        "token_probability",
    ]);
    succeed(&["selftest", "--dry-run", "--model", "elsewhere/tiny.gguf"]);
    // Its checkpoint finds it again, with nothing set.
    let told = bench.predict("run", "notes.jsonl", &[], &[]);
    assert_eq!((told.0.code, told.1.len()), (Some(0), records::COUNT), "{told:?}");
    // Trained in full, the checkpoint is a Hugging Face folder, tokenizer included.
    succeed(&["train", "--set", "train.parameters=full", "--set", "train.max_steps=1", "--run", "full"]);
    for name in ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        assert!(bench.path("full/checkpoints/epoch-01").join(name).is_file(), "{name}");
    }
    std::fs::remove_dir_all(bench.path("elsewhere")).unwrap();
    let told = bench.predict("full", "notes.jsonl", &[], &[]);
    assert_eq!((told.0.code, told.1.len()), (Some(0), records::COUNT), "{told:?}");
}

#[test]
fn every_form_of_target_modules_that_peft_writes_is_the_same_adapter() {
    let bench = Bench::new();
    let wanted = bench.plain();
    let whole =
        |part: &str| -> Vec<Value> { (0..4).map(|i| json!(format!("model.layers.{i}.self_attn.{part}"))).collect() };
    let forms = [
        json!(["v_proj", "q_proj"]),
        json!(["self_attn.q_proj", "self_attn.v_proj"]),
        json!([whole("q_proj"), whole("v_proj")].concat()),
        json!(r".*\.(q|v)_proj"),
        json!(r"model\.layers\.\d+\.self_attn\.(q_proj|v_proj)"),
    ];
    for form in forms {
        bench.checkpoint("form", form.clone(), "plain");
        bench.same(&form.to_string(), &wanted, bench.predict("form", "notes.jsonl", &[], &[]));
    }
    let mut config = bench.json("checkpoint/adapter_config.json");
    config["target_modules"] = json!("all-linear");
    config["exclude_modules"] = json!(["k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]);
    bench.write("form/adapter_config.json", config.to_string());
    bench.same("exclude_modules", &wanted, bench.predict("form", "notes.jsonl", &[], &[]));
}

/// PEFT would leave out what an adapter has beyond them, and start what it lacks at random.
#[test]
fn target_modules_that_are_not_the_adapters_own_are_refused() {
    let bench = Bench::new();
    for (form, told) in [
        (json!(r".*\.q_proj"), "v_proj, which target_modules"),
        (json!(r".*layers\.0\..*_proj"), "model.layers.1.self_attn.q_proj, which target_modules"),
        (json!(["self_attn.q_proj"]), "v_proj, which target_modules"),
        (json!(r".*\.(?!k_proj)[qvo]_proj"), "o_proj.lora_A.weight is missing"),
        (json!("(q_proj"), "is not a regular expression"),
        (json!(["q_proj", 7]), "target_modules must be"),
    ] {
        bench.checkpoint("form", form.clone(), "plain");
        let (told_of, _) = bench.predict("form", "notes.jsonl", &[], &[]);
        assert_eq!(told_of.code, Some(4), "{form}: {}", told_of.stderr);
        assert!(told_of.stderr.contains(told) && told_of.stderr.contains("hint: "), "{form}: {}", told_of.stderr);
    }
    let mut config = bench.json("checkpoint/adapter_config.json");
    config["exclude_modules"] = json!(r".*layers\.3\..*");
    bench.write("form/adapter_config.json", config.to_string());
    let (told, _) = bench.predict("form", "notes.jsonl", &[], &[]);
    assert!(told.stderr.contains("model.layers.3.self_attn.q_proj, which target_modules"), "{}", told.stderr);
}

#[test]
fn every_form_of_records_gives_the_same_predictions() {
    let bench = Bench::new();
    let wanted = bench.plain();
    bench.write("notes.csv", records::csv());
    bench.write("notes.parquet", records::parquet());
    bench.write("notes.json", records::lcd());
    bench.write("clinifact.csv", records::clinifact());
    bench.write("no-extension", records::jsonl());
    let forms: [(&str, &[&str]); 6] = [
        ("notes.csv", &[]),
        ("notes.parquet", &[]),
        ("notes.json", &["--set", "data.format=lcd", "--set", "data.horizon=30"]),
        ("clinifact.csv", &["--set", "data.format=clinifact", "--set", "data.fields.text=article_abstract"]),
        ("clinifact.csv", &["--set", "data.fields.text=article_abstract"]),
        ("no-extension", &["--set", "data.format=jsonl"]),
    ];
    for (input, sets) in forms {
        bench.same(&format!("{input} {sets:?}"), &wanted, bench.predict("checkpoint", input, sets, &[]));
    }
}

#[test]
fn what_is_not_read_says_how_to_make_it_readable() {
    let bench = Bench::new();
    let base =
        |value: &str| bench.predict("checkpoint", "notes.jsonl", &["--set", &format!("model.base={value}")], &[]).0;
    bench.model("bin", &["model.safetensors"]);
    bench.write("bin/pytorch_model.bin", "x");
    assert_fails(
        &base("bin"),
        4,
        &[
            "no model.safetensors",
            "hint: PyTorch .bin weights",
            "AutoModelForCausalLM.from_pretrained('",
            "save_pretrained",
        ],
    );
    assert_fails(&base("bin/pytorch_model.bin"), 4, &["neither a directory", "AutoModelForCausalLM"]);
    assert_fails(&base("model/model.safetensors"), 4, &["hint: name the directory that holds it"]);
    assert_fails(&base("checkpoint"), 4, &["hint: it holds an adapter, not a model"]);
    let gguf = gguf::of_folder(&bench.path("model"));
    bench.write("several/a.gguf", &gguf);
    bench.write("several/b.gguf", &gguf);
    assert_fails(&base("several"), 4, &["hint: it holds 2 .gguf files (a.gguf to b.gguf): name one"]);
    bench.write("parts/a-00001-of-00002.gguf", &gguf);
    bench.write("parts/a-00002-of-00002.gguf", &gguf);
    assert_fails(&base("parts"), 4, &["llama-gguf-split --merge"]);
    // A repository in the cache that holds `.bin` weights alone is there, and says so.
    into_hub(&bench, "bin", "hub", "owner--old");
    let hub = bench.spelled("hub");
    let told =
        bench.predict("checkpoint", "notes.jsonl", &["--set", "model.base=owner/old"], &[("HF_HUB_CACHE", &hub)]).0;
    assert_fails(&told, 4, &["owner/old: ", "hint: PyTorch .bin weights"]);
    // An adapter.
    for targets in [json!(["q_proj", "v_proj"]), json!(".*_proj")] {
        bench.checkpoint("old", targets, "plain");
        std::fs::rename(bench.path("old/adapter_model.safetensors"), bench.path("old/adapter_model.bin")).unwrap();
        let told = bench.predict("old", "notes.jsonl", &[], &[]).0;
        assert_fails(&told, 4, &["the adapter is missing", "hint: PyTorch .bin adapters", "save_file(torch.load("]);
    }
}

/// The real model's own quantized file, alone in its folder.
#[test]
fn smollm2s_gguf_file_alone_trains_and_predicts() {
    let Some(folder) = common::smollm2() else { return };
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let Some(gguf) = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "gguf")) else {
        common::skip(&format!("{} holds no .gguf file", folder.display()));
        return;
    };
    let bench = Bench::new();
    std::os::unix::fs::symlink(gguf, bench.path("real.gguf")).unwrap();
    bench.write("prompt.toml", PROMPT.replace("plain", "chat"));
    let sets = [
        "model.base=real.gguf",
        "task.prompt=prompt.toml",
        "data.train=notes.jsonl",
        "model.max_input_tokens=512",
        "train.objective=cls",
        "train.epochs=1",
        "train.max_steps=1",
        "train.grad_accumulation=2",
        "model.max_output_tokens=16",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let told = outcome(clsgen().current_dir(bench.path("")).args([&["train", "--run", "run"][..], &sets].concat()));
    assert_eq!(told.code, Some(0), "{told:?}");
    let (told, logits) = bench.predict("run", "notes.jsonl", &[], &[]);
    assert_eq!((told.code, logits.len()), (Some(0), records::COUNT), "{told:?}");
}

/// The names of every form that this file tries stand where users look for them.
#[test]
fn the_forms_are_documented() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for form in ["hub id", "`.gguf`", "JSONL", "Parquet", "CSV", "`target_modules`", ".bin"] {
        assert!(readme.contains(form), "README lacks {form}");
    }
    assert!(run(&["selftest", "--help"]).stdout.contains("GGUF"));
}
