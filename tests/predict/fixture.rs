//! A tiny checkpoint on disk as another tool would write it: random base, adapter and head, no manifest.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use candle_core::{Device, Tensor, safetensors};
use serde_json::{Map, Value, json};

use crate::common::{Scratch, in_scratch, random};

const HIDDEN: usize = 32;
const FFN: usize = 48;
const VOCAB: usize = 257;
const RANK: usize = 4;

/// A scratch directory with a base model, a checkpoint in a run directory, and inputs.
pub struct Fixture(Scratch);

in_scratch!(Fixture);

impl Fixture {
    pub fn new() -> Self {
        let fixture = Self(Scratch::new());
        fixture.write_base();
        fixture.write_checkpoint();
        fixture
    }

    /// What a file holds: nothing where there is none.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_default()
    }

    /// Every file and its bytes, but for locks.
    pub fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.path("")];
        while let Some(dir) = open.pop() {
            for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    open.push(path);
                } else {
                    files.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        files
    }

    /// The lines of an output as JSON.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        parse_lines(&self.read(name))
    }

    /// `clsgen predict` on the checkpoint, in the scratch directory.
    pub fn command(&self, input: &str, output: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clsgen"));
        command.current_dir(self.path("")).args(["predict", "--model", "run/checkpoints/epoch-01"]);
        command.args(["--input", input, "--output", output]).args(flags).env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs it; a record's text must not be on stderr whatever happens.
    pub fn predict(&self, input: &str, output: &str, flags: &[&str]) -> Output {
        let result = self.command(input, output, flags).output().unwrap();
        assert!(!stderr(&result).contains("SECRET"), "{}", stderr(&result));
        result
    }

    /// The same, which must succeed.
    pub fn succeed(&self, input: &str, output: &str, flags: &[&str]) -> Output {
        let result = self.predict(input, output, flags);
        assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
        result
    }

    fn write_base(&self) {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN,
            "intermediate_size": FFN,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "max_position_embeddings": 2048, "tie_word_embeddings": false, "hidden_act": "silu",
            "torch_dtype": "float32", "bos_token_id": null, "eos_token_id": 256,
        });
        self.write("base/config.json", config.to_string());
        self.write("base/tokenizer.json", byte_tokenizer().to_string());
        self.write(
            "base/tokenizer_config.json",
            json!({"eos_token": "<|eot|>", "tokenizer_class": "PreTrainedTokenizerFast"}).to_string(),
        );
        let mut tensors = HashMap::new();
        let mut add = |name: String, shape: &[usize], std: f32| tensors.insert(name.clone(), random(&name, shape, std));
        add("model.embed_tokens.weight".into(), &[VOCAB, HIDDEN], 1.0);
        add("lm_head.weight".into(), &[VOCAB, HIDDEN], 0.5);
        for layer in 0..2 {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            for (part, rows) in [("q_proj", HIDDEN), ("k_proj", HIDDEN / 2), ("v_proj", HIDDEN / 2), ("o_proj", HIDDEN)]
            {
                add(name(&format!("self_attn.{part}")), &[rows, HIDDEN], 0.3);
            }
            add(name("mlp.gate_proj"), &[FFN, HIDDEN], 0.3);
            add(name("mlp.up_proj"), &[FFN, HIDDEN], 0.3);
            add(name("mlp.down_proj"), &[HIDDEN, FFN], 0.3);
        }
        let ones = || Tensor::ones(HIDDEN, candle_core::DType::F32, &Device::Cpu).unwrap();
        tensors.insert("model.norm.weight".into(), ones());
        for layer in 0..2 {
            tensors.insert(format!("model.layers.{layer}.input_layernorm.weight"), ones());
            tensors.insert(format!("model.layers.{layer}.post_attention_layernorm.weight"), ones());
        }
        safetensors::save(&tensors, self.path("base/model.safetensors")).unwrap();
    }

    fn write_checkpoint(&self) {
        let dir = "run/checkpoints/epoch-01";
        let clsgen = json!({
            "schema": 1, "base_model": self.path("base"), "labels": ["0:alive", "1:death"],
            "prompt": {"system": "", "user": "Note: {document}", "question": "Dead or alive?", "prefix": "Reasoning: ",
                "response": "{explanation}\n\nClassification: {label}\n\n", "format": "plain"},
            "head": {"hidden": 16, "activation": "gelu", "dropout": 0.1}, "max_input_tokens": 160,
            "max_output_tokens": 48,
        });
        self.write(&format!("{dir}/clsgen.json"), clsgen.to_string());
        self.write("run/best.json", json!({"epoch": 1, "path": "checkpoints/epoch-01", "score": 0.0}).to_string());
        let adapter = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 8,
            "lora_dropout": 0.0, "bias": "none",
            "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "base", "fan_in_fan_out": false});
        self.write(&format!("{dir}/adapter_config.json"), adapter.to_string());
        let mut tensors = HashMap::new();
        for layer in 0..2 {
            for (part, rows) in [("q_proj", HIDDEN), ("v_proj", HIDDEN / 2)] {
                let name =
                    |side: &str| format!("base_model.model.model.layers.{layer}.self_attn.{part}.lora_{side}.weight");
                tensors.insert(name("A"), random(&name("A"), &[RANK, HIDDEN], 0.3));
                tensors.insert(name("B"), random(&name("B"), &[rows, RANK], 0.3));
            }
        }
        safetensors::save(&tensors, self.path(&format!("{dir}/adapter_model.safetensors"))).unwrap();
        let shapes: [(&str, &[usize]); 4] =
            [("dense.weight", &[16, HIDDEN]), ("dense.bias", &[16]), ("out.weight", &[2, 16]), ("out.bias", &[2])];
        let head: HashMap<String, Tensor> =
            shapes.iter().map(|(name, shape)| (name.to_string(), random(name, shape, 0.5))).collect();
        safetensors::save(&head, self.path(&format!("{dir}/cls_head.safetensors"))).unwrap();
    }
}

/// Notes of different lengths, as JSONL.
pub fn notes(count: usize) -> String {
    let note = |i: usize| {
        json!({"id": format!("n{i}"), "text": format!("SECRET {}", "fever ".repeat(1 + i * 7 % 30)),
        "label": i % 2})
    };
    (0..count).map(|i| note(i).to_string() + "\n").collect()
}

pub fn parse_lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn mode(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777
}

/// A token a byte (GPT-2's byte alphabet), and an end-of-turn token.
fn byte_tokenizer() -> Value {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let symbol = |b: u8| {
        if printable(b) {
            char::from(b)
        } else {
            char::from_u32(256 + (0..b).filter(|&b| !printable(b)).count() as u32).unwrap()
        }
    };
    let vocab: Map<String, Value> = (0..=255).map(|b| (symbol(b).to_string(), json!(b))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 256, "content": "<|eot|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []},
    })
}
