//! A folder with the embedded model, a checkpoint over it and notes; and what `predict` makes of them.

use super::*;
use crate::common::{Scratch, in_scratch, random};

pub struct Bench(Scratch);

in_scratch!(Bench);

impl Bench {
    /// `model/`, the embedded model as a Hugging Face folder; `checkpoint/`, an adapter and head over it;
    /// `notes.jsonl`.
    pub fn new() -> Self {
        let bench = Self(Scratch::new());
        clsgen::demo::write_model(&bench.path("model")).unwrap();
        bench.checkpoint("checkpoint", json!(["q_proj", "v_proj"]), "plain");
        bench.write("notes.jsonl", records::jsonl());
        bench
    }

    pub fn spelled(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `model/` under another name, without the files named.
    pub fn model(&self, name: &str, without: &[&str]) {
        for entry in std::fs::read_dir(self.path("model")).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            if !without.contains(&file.as_str()) {
                self.write(&format!("{name}/{file}"), std::fs::read(self.path("model").join(&file)).unwrap());
            }
        }
    }

    pub fn tensors(&self) -> HashMap<String, Tensor> {
        safetensors::load(self.path("model/model.safetensors"), &Device::Cpu).unwrap()
    }

    /// A checkpoint as another tool writes it, on q and v of the embedded model.
    pub fn checkpoint(&self, name: &str, target_modules: Value, format: &str) {
        let info = json!({
            "schema": 1, "base_model": self.path("model"), "labels": ["alive", "dead"],
            "prompt": {"system": "You read notes.", "user": "Note: {document}", "question": "Dead or alive?",
            "prefix": "Reasoning: ",
                "response": "{explanation}\n\nClassification: {label}\n\n", "format": format},
            "head": {"hidden": 16, "activation": "gelu", "dropout": 0.1}, "max_input_tokens": 256,
            "max_output_tokens": 16,
        });
        self.write(&format!("{name}/clsgen.json"), info.to_string());
        let adapter = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8,
            "lora_dropout": 0.0, "bias": "none",
            "target_modules": target_modules, "base_model_name_or_path": "model", "fan_in_fan_out": false});
        self.write(&format!("{name}/adapter_config.json"), adapter.to_string());
        let mut tensors = HashMap::new();
        for layer in 0..4 {
            for (part, rows) in [("q_proj", 192), ("v_proj", 64)] {
                let name =
                    |side: &str| format!("base_model.model.model.layers.{layer}.self_attn.{part}.lora_{side}.weight");
                tensors.insert(name("A"), random(&name("A"), &[4, 192], 0.3));
                tensors.insert(name("B"), random(&name("B"), &[rows, 4], 0.3));
            }
        }
        safetensors::save(&tensors, self.path(&format!("{name}/adapter_model.safetensors"))).unwrap();
        let shapes: [(&str, &[usize]); 4] =
            [("dense.weight", &[16, 192]), ("dense.bias", &[16]), ("out.weight", &[2, 16]), ("out.bias", &[2])];
        let head: HashMap<String, Tensor> =
            shapes.iter().map(|(name, shape)| ((*name).to_owned(), random(name, shape, 0.5))).collect();
        safetensors::save(&head, self.path(&format!("{name}/cls_head.safetensors"))).unwrap();
    }

    /// `clsgen predict` of `input` in the scratch directory: what came of it, and id → logits.
    pub fn predict(
        &self,
        checkpoint: &str,
        input: &str,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> (Outcome, BTreeMap<String, Value>) {
        let mut command = clsgen();
        command.current_dir(self.path("")).args(["predict", "--no-explanation", "--overwrite", "--model", checkpoint]);
        command.args(["--input", input, "--output", "out.jsonl"]).args(more).envs(variables.iter().copied());
        let told = outcome(&mut command);
        let lines = std::fs::read_to_string(self.path("out.jsonl")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("out.jsonl"));
        let logits = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            (line["id"].as_str().unwrap_or_default().to_owned(), line["logits"].clone())
        };
        (told, lines.lines().map(logits).collect())
    }

    /// The same, which must give these logits.
    #[track_caller]
    pub fn same(&self, what: &str, wanted: &BTreeMap<String, Value>, got: (Outcome, BTreeMap<String, Value>)) {
        assert_eq!(got.0.code, Some(0), "{what}: {:?}", got.0);
        assert_eq!(&got.1, wanted, "{what}");
    }

    pub fn plain(&self) -> BTreeMap<String, Value> {
        let (told, logits) = self.predict("checkpoint", "notes.jsonl", &[], &[]);
        assert_eq!((told.code, logits.len()), (Some(0), records::COUNT), "{told:?}");
        assert!(logits.values().all(Value::is_array));
        logits
    }
}

pub const PROMPT: &str = r#"
system = "You read notes."
user = "Note: {document}"
question = "Dead or alive?"
prefix = "Reasoning: "
response = "{explanation}\n\nClassification: {label}\n\n"
format = "plain"
"#;
