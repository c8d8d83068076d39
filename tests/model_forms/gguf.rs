//! A Hugging Face folder as one `.gguf` file, as llama.cpp's converter writes it: q and k with each head's channels
//! interleaved, the tokenizer in the metadata.

use std::path::Path;

use candle_core::{
    DType, Device,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{Value, write},
    },
    safetensors,
};

use crate::common::{gguf_name, gguf_permuted};

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The file's bytes, weights in f32. The pre-tokenizer is called GPT-2's: the embedded model's own has no name, and
/// cuts texts without numbers of several digits and without apostrophes at the same places.
pub fn of_folder(folder: &Path) -> Vec<u8> {
    let config = json(&folder.join("config.json"));
    let tokenizer = json(&folder.join("tokenizer.json"));
    let settings = json(&folder.join("tokenizer_config.json"));
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let number = |key: &str| Value::U32(size(key) as u32);
    let mut tokens = vec![String::new(); size("vocab_size")];
    let mut kinds = vec![1; tokens.len()];
    for (token, id) in tokenizer["model"]["vocab"].as_object().unwrap() {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    for token in tokenizer["added_tokens"].as_array().unwrap() {
        let id = token["id"].as_u64().unwrap() as usize;
        (tokens[id], kinds[id]) = (token["content"].as_str().unwrap().into(), 3);
    }
    for (id, token) in tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
        (*token, kinds[id]) = (format!("<unused {id}>"), 5);
    }
    let id_of = |key: &str| Value::U32(tokens.iter().position(|token| settings[key] == token.as_str()).unwrap() as u32);
    let merge = |merge: &serde_json::Value| format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
    let strings = |all: Vec<String>| Value::Array(all.into_iter().map(Value::String).collect());
    let metadata = [
        ("general.architecture", Value::String("llama".into())),
        ("llama.embedding_length", number("hidden_size")),
        ("llama.feed_forward_length", number("intermediate_size")),
        ("llama.block_count", number("num_hidden_layers")),
        ("llama.attention.head_count", number("num_attention_heads")),
        ("llama.attention.head_count_kv", number("num_key_value_heads")),
        ("llama.attention.key_length", number("head_dim")),
        ("llama.context_length", number("max_position_embeddings")),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config["rms_norm_eps"].as_f64().unwrap() as f32)),
        ("llama.rope.freq_base", Value::F32(config["rope_theta"].as_f64().unwrap() as f32)),
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("gpt-2".into())),
        ("tokenizer.ggml.bos_token_id", id_of("bos_token")),
        ("tokenizer.ggml.eos_token_id", id_of("eos_token")),
        (
            "tokenizer.ggml.merges",
            strings(tokenizer["model"]["merges"].as_array().unwrap().iter().map(merge).collect()),
        ),
        ("tokenizer.ggml.token_type", Value::Array(kinds.into_iter().map(Value::I32).collect())),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.chat_template", Value::String(settings["chat_template"].as_str().unwrap().into())),
        ("tokenizer.ggml.tokens", strings(tokens.clone())),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let heads = [size("num_attention_heads"), size("num_key_value_heads")];
    let mut tensors: Vec<(String, QTensor)> = Vec::new();
    for (name, tensor) in safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap() {
        let tensor = gguf_permuted(&name, &tensor.to_dtype(DType::F32).unwrap(), heads, size("head_dim"));
        tensors.push((gguf_name(&name), QTensor::quantize(&tensor, GgmlDType::F32).unwrap()));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    write(&mut file, &metadata, &tensors).unwrap();
    file.into_inner()
}
