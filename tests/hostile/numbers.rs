//! Every number of a checkpoint's and a model's JSON: negative, zero, huge, of another kind.

use serde_json::{Value, json};

use crate::bench::Bench;

const CHECKPOINT: &str = "run/checkpoints/epoch-01";

/// What a number of a file may turn out to be.
fn values() -> Vec<Value> {
    vec![
        json!(-1),
        json!(0),
        json!(1u64 << 24),
        json!(1u64 << 40),
        json!(1u64 << 63),
        json!(u64::MAX),
        json!(1e308),
        json!(-1e308),
        json!(1e-308),
        json!("\u{1b}[2J"),
        json!([[]]),
        json!("x".repeat(1 << 20)),
    ]
}

#[test]
fn numbers_of_json_files_are_checked_before_they_are_used() {
    let files: [(&str, &[&[&str]]); 4] = [
        (
            "base/config.json",
            &[
                &["vocab_size"],
                &["hidden_size"],
                &["intermediate_size"],
                &["num_hidden_layers"],
                &["num_attention_heads"],
                &["num_key_value_heads"],
                &["head_dim"],
                &["rms_norm_eps"],
                &["rope_theta"],
                &["max_position_embeddings"],
                &["eos_token_id"],
                &["model_type"],
                &["rope_scaling"],
            ],
        ),
        (
            "run/checkpoints/epoch-01/clsgen.json",
            &[
                &["schema"],
                &["max_input_tokens"],
                &["max_output_tokens"],
                &["head", "hidden"],
                &["head", "dropout"],
                &["labels"],
                &["prompt"],
                &["prompt", "user"],
                &["base_model"],
                &["base_hash"],
                &["tokenizer_hash"],
            ],
        ),
        (
            "run/checkpoints/epoch-01/adapter_config.json",
            &[&["r"], &["lora_alpha"], &["lora_dropout"], &["target_modules"], &["init_lora_weights"], &["use_rslora"]],
        ),
        ("base/tokenizer_config.json", &[&["eos_token"], &["added_tokens_decoder"], &["chat_template"]]),
    ];
    let mut bench = Bench::new("numbers in JSON");
    for (file, places) in files {
        let whole = bench.fixture.read(file);
        for (keys, value) in places.iter().flat_map(|keys| values().into_iter().map(move |value| (keys, value))) {
            bench.set(file, keys, value.clone());
            let told: String = value.to_string().chars().take(40).collect();
            let ended = bench.predict(&format!("{file}, {} = {told}", keys.join(".")));
            assert!(matches!(ended.code, 0 | 2 | 4 | 5), "{file} {keys:?} {told}: {}: {}", ended.code, ended.stderr);
            bench.fixture.write(file, &whole);
        }
    }
}

#[test]
fn what_a_file_says_of_another_is_held_against_it() {
    let mut bench = Bench::new("contradictions");
    let adapter = format!("{CHECKPOINT}/adapter_config.json");
    for rank in [5u64, 1 << 16, 1 << 40, u64::MAX] {
        bench.set(&adapter, &["r"], json!(rank));
        bench.predict(&format!("r = {rank}")).refused(4, &["adapter_"]);
    }
    bench.set(&adapter, &["r"], json!(4));
    bench.set(&adapter, &["target_modules"], json!("(.*)*(.*)*(.*)*x"));
    bench.predict("an expression of targets").refused(4, &["adapter_config.json"]);
    bench.set(&adapter, &["target_modules"], json!(["\u{1b}[2J\0"]));
    bench.predict("an escape sequence").refused(4, &["\\u{1b}[2J\\u{0}"]);
    bench.set(&adapter, &["target_modules"], json!(["q_proj", "v_proj"]));
    bench.predict("as it was").accepted();
    let best = "run/best.json";
    for path in ["/dev/zero", "../..", "checkpoints/../../run", ""] {
        bench.fixture.write(best, json!({"epoch": 1, "path": path, "score": 0.0}).to_string());
        let args = ["predict", "--quiet", "--model", "run", "--input", "in.jsonl", "--output", "out2.jsonl"];
        bench.run(&format!("best.json names {path:?}"), &args).refused(4, &["best.json", "leads out of the run"]);
    }
}

#[test]
fn a_manifest_names_the_files_beside_it() {
    let mut bench = Bench::new("manifests");
    let hash = "0".repeat(64);
    let entry = |name: &str| json!({"schema": 1, "files": {name: {"length": 0, "blake3": hash}}});
    for (manifest, word) in [
        (json!({"schema": 99, "files": {}}), "schema is 99"),
        (json!({"schema": 1, "files": {}}), "lists no file"),
        (entry("/dev/zero"), "/dev/zero, which is not below it"),
        (entry("../../../../../../../dev/zero"), "which is not below it"),
        (entry("\u{1b}[2J"), "\\u{1b}[2J"),
        (json!({"schema": 1, "files": {"clsgen.json": {"length": -1, "blake3": ""}}}), "not a manifest"),
        (json!([]), "not a manifest"),
    ] {
        bench.fixture.write(&format!("{CHECKPOINT}/manifest.json"), manifest.to_string());
        bench.predict(&format!("manifest {word}")).refused(4, &["epoch-01/", word]);
    }
    std::os::unix::fs::symlink("/dev/zero", bench.path(&format!("{CHECKPOINT}/endless"))).unwrap();
    bench.fixture.write(&format!("{CHECKPOINT}/manifest.json"), entry("endless").to_string());
    bench.predict("a device in the folder").refused(4, &["endless", "it is a device, not a file"]);
}
