//! The state that a run is resumed from.

use serde_json::{Value, json};

use crate::bench::Bench;

const CONFIG: &str = "[task]\nname = \"t\"\nlabels = [\"0:alive\", \"1:death\"]\nprompt = \"prompt.toml\"\n\
    [data]\ntrain = \"train.jsonl\"\n[model]\nbase = \"base\"\nmax_input_tokens = 128\nmax_output_tokens = 64\n\
    [head]\nhidden = 16\n[lora]\nrank = 2\n\
    [train]\nepochs = 3\nmax_steps = 4\ngrad_accumulation = 2\nwarmup_steps = 1\n";

#[test]
fn a_state_that_the_run_cannot_have_come_to_is_refused() {
    let mut bench = Bench::new("trainer.json");
    bench.fixture.write("t.toml", CONFIG);
    bench.fixture.write("prompt.toml", "user = \"{document}\"\nprefix = \"R: \"\nformat = \"plain\"\n");
    let record = |i: usize| json!({"id": format!("n{i}"), "text": "fever", "label": i % 2, "explanation": "Why."});
    bench.fixture.write("train.jsonl", (0..6).map(|i| record(i).to_string() + "\n").collect::<String>());
    let train = ["train", "--quiet", "--config", "t.toml", "--run", "r"];
    bench.run("the run", &train).accepted();
    let resume = ["train", "--quiet", "--config", "t.toml", "--run", "r", "--resume"];
    // One checkpoint to go on from, which no manifest guards.
    let kept = bench.path("r/checkpoints/epoch-02");
    for entry in std::fs::read_dir(bench.path("r/checkpoints")).unwrap().map(|entry| entry.unwrap().path()) {
        if entry != kept {
            std::fs::remove_dir_all(entry).unwrap();
        }
    }
    let manifest: Value = serde_json::from_slice(&bench.fixture.read("r/checkpoints/epoch-02/manifest.json")).unwrap();
    let file = "r/checkpoints/epoch-02/trainer.json";
    let whole = bench.fixture.read(file);
    let mut resumed = |what: &str, bytes: &[u8]| {
        bench.fixture.write(file, bytes);
        let mut manifest = manifest.clone();
        manifest["files"]["trainer.json"] =
            json!({"length": bytes.len(), "blake3": clsgen::storage::hash_bytes(bytes)});
        bench.fixture.write("r/checkpoints/epoch-02/manifest.json", manifest.to_string());
        bench.run(what, &resume)
    };
    let state: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!((&state["step"], &state["epoch"]), (&json!(4), &json!(2)));
    let big = [json!(0), json!(99), json!(1u64 << 40), json!(u64::MAX), json!(-1), json!(1e308), json!("\u{1b}[2J")];
    for key in ["schema", "step", "epoch", "ranks", "epoch_records", "epoch_target_tokens", "epoch_prompt_tokens"] {
        for value in &big {
            let mut state = state.clone();
            state[key] = value.clone();
            let ended = resumed(&format!("{key} = {value}"), state.to_string().as_bytes());
            // Few tokens or records of an epoch are no contradiction, and another number of ranks is a matter of
            // config.
            let free = key.starts_with("epoch_") || key == "ranks";
            assert!(ended.code == 4 || free, "{key} = {value}: {}: {}", ended.code, ended.stderr);
        }
    }
    for order in [json!([]), json!([0, 1, 2, 3, 4, 99]), json!([0, 0, 0, 0, 0, 0]), json!([u64::MAX]), json!(7)] {
        let mut state = state.clone();
        state["data_order"] = order.clone();
        resumed(&format!("data_order = {order}"), state.to_string().as_bytes()).refused(4, &["trainer.json"]);
    }
    let mut complete = state;
    complete["complete"] = json!(true);
    resumed("complete", complete.to_string().as_bytes()).refused(4, &["trainer.json", "complete"]);
    resumed("as it was", &whole).accepted();
}
