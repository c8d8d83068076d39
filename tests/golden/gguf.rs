//! The cases as llama.cpp would store them: same model, to the bit where nothing is quantized.

use std::{collections::BTreeMap, fs::File, path::Path};

use candle_core::{
    DType, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use clsgen::{
    model::{Llama, LlamaConfig, source},
    ops::rope::RopeScaling,
};

use crate::{
    common::{gguf_name, gguf_permuted},
    fixture::*,
};

fn metadata(config: &LlamaConfig) -> BTreeMap<String, Value> {
    let number = |n: usize| Value::U32(n as u32);
    let mut all: BTreeMap<String, Value> = [
        ("embedding_length", number(config.hidden_size)),
        ("feed_forward_length", number(config.intermediate_size)),
        ("block_count", number(config.num_hidden_layers)),
        ("attention.head_count", number(config.num_attention_heads)),
        ("attention.head_count_kv", number(config.num_key_value_heads)),
        ("attention.key_length", number(config.head_dim)),
        ("context_length", number(config.max_position_embeddings)),
        ("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ("rope.freq_base", Value::F32(config.rope.theta as f32)),
    ]
    .map(|(key, value)| (format!("llama.{key}"), value))
    .into();
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        all.insert("llama.rope.scaling.type".into(), Value::String("linear".into()));
        all.insert("llama.rope.scaling.factor".into(), Value::F32(factor as f32));
    }
    all.insert("general.architecture".into(), Value::String("llama".into()));
    all.insert("tokenizer.ggml.bos_token_id".into(), number(1));
    all.insert("tokenizer.ggml.eos_token_id".into(), number(2));
    all
}

fn write(path: &Path, metadata: &BTreeMap<String, Value>, tensors: &BTreeMap<String, QTensor>) {
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

fn quantized(llama: &Llama) -> BTreeMap<String, QTensor> {
    let config = &llama.config;
    let heads = [config.num_attention_heads, config.num_key_value_heads];
    let store = |hf: &String, tensor: &Tensor| {
        QTensor::quantize(&gguf_permuted(hf, tensor, heads, config.head_dim), GgmlDType::F32).unwrap()
    };
    llama.base_tensors().iter().map(|(hf, tensor)| (gguf_name(hf), store(hf, tensor))).collect()
}

fn load(path: &Path) -> clsgen::error::Result<Llama> {
    Llama::load(&source::resolve(path.to_str().unwrap(), &[], false)?, DType::F32, &CPU)
}

#[test]
fn a_gguf_file_is_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    for case in ["gqa", "bias"] {
        let llama = untuned(case).llama;
        let path = dir.path().join(format!("{case}.gguf"));
        write(&path, &metadata(&llama.config), &quantized(&llama));
        let read = load(&path).unwrap();
        assert_eq!(read.config, llama.config);
        let ours = read.base_tensors();
        let theirs = llama.base_tensors();
        theirs.iter().for_each(|(name, tensor)| assert_eq!(bits(tensor), bits(&ours[name]), "{case} {name}"));
    }
}

/// llama.cpp's defaults: a factor without a type is linear, its old name counts, and 0 and 1 scale nothing.
#[test]
fn a_rope_factor_alone_is_a_linear_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let llama = untuned("gqa").llama;
    let scaling = |keys: &[(&str, Value)]| {
        let mut metadata = metadata(&llama.config);
        metadata.retain(|key, _| !key.starts_with("llama.rope.scal"));
        metadata.extend(keys.iter().map(|(key, value)| (format!("llama.rope.{key}"), value.clone())));
        write(&path, &metadata, &quantized(&llama));
        load(&path).unwrap().config.rope.scaling
    };
    let linear = RopeScaling::Linear { factor: 4.0 };
    let text = |value: &str| Value::String(value.into());
    assert_eq!(scaling(&[("scaling.factor", Value::F32(4.0))]), linear);
    assert_eq!(scaling(&[("scale_linear", Value::F32(4.0))]), linear);
    assert_eq!(scaling(&[("scaling.type", text("linear")), ("scale_linear", Value::F32(4.0))]), linear);
    for plain in [
        &[("scaling.type", text("none")), ("scaling.factor", Value::F32(4.0))][..],
        &[("scaling.factor", Value::F32(0.0))],
        &[("scaling.factor", Value::F32(1.0))],
        &[],
    ] {
        assert_eq!(scaling(plain), RopeScaling::None);
    }
}

#[test]
fn damaged_gguf_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let llama = untuned("gqa").llama;
    let refused = |parts: &[&str]| {
        let error = load(&path).unwrap_err();
        assert_eq!(error.exit_code(), 4, "{error}");
        parts.iter().for_each(|part| assert!(error.to_string().contains(part), "{error} lacks {part}"));
    };
    let mut other = metadata(&llama.config);
    other.insert("general.architecture".into(), Value::String("mamba".into()));
    write(&path, &other, &quantized(&llama));
    refused(&["mamba"]);
    let mut fewer = quantized(&llama);
    fewer.remove("blk.1.attn_k.weight");
    write(&path, &metadata(&llama.config), &fewer);
    refused(&["missing", "layers.1.self_attn.k_proj"]);
    write(&path, &metadata(&llama.config), &quantized(&llama));
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 10, 300, whole.len() - 100] {
        std::fs::write(&path, &whole[..length]).unwrap();
        refused(&["m.gguf"]);
    }
}
