//! Damaged and foreign model files: each is refused with exit code 4 and a message that names what is wrong.

use std::path::Path;

use candle_core::DType;
use clsgen::{
    error::Error,
    model::{Llama, checkpoint, peft, source},
};

use crate::fixture::*;

type Raw = Vec<(String, String, Vec<usize>, Vec<u8>)>;

/// (name, dtype, shape, bytes) of every tensor of a file.
fn read(path: &Path) -> Raw {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, t)| (name.to_string(), "F32".to_string(), t.shape().to_vec(), t.data().to_vec())).collect()
}

/// A file written without any check, so that it may be wrong.
fn write(path: &Path, tensors: &Raw) {
    let mut header = Vec::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let end = data.len() + bytes.len();
        header.push(format!(
            "{name:?}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{},{end}]}}",
            data.len()
        ));
        data.extend(bytes);
    }
    let header = format!("{{{}}}", header.join(","));
    std::fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()).unwrap();
}

/// A copy of a case's folder.
fn copy(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(folder(case).join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn load(dir: &Path) -> Result<Llama, Error> {
    Llama::load(&source::resolve(dir.to_str().unwrap(), &[], false)?, DType::F32, &CPU)
}

#[track_caller]
fn assert_refused<T>(result: Result<T, Error>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted, though it should say {parts:?}") };
    assert_eq!(error.exit_code(), 4, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} does not name {part}");
    }
}

fn damaged(case: &str, change: impl FnOnce(&mut Raw), parts: &[&str]) {
    let dir = copy(case);
    let path = dir.path().join("model.safetensors");
    let mut tensors = read(&path);
    change(&mut tensors);
    write(&path, &tensors);
    assert_refused(load(dir.path()), parts);
}

fn at<'a>(tensors: &'a mut Raw, name: &str) -> &'a mut (String, String, Vec<usize>, Vec<u8>) {
    tensors.iter_mut().find(|t| t.0 == name).unwrap()
}

const K: &str = "model.layers.1.self_attn.k_proj.weight";

#[test]
fn tensors_must_be_there_well_shaped_and_finite_and_no_other() {
    damaged("gqa", |t| t.retain(|t| t.0 != K), &["missing", K]);
    damaged("gqa", |t| t.retain(|t| t.0 != "lm_head.weight"), &["missing", "lm_head.weight"]);
    damaged("gqa", |t| at(t, K).2.reverse(), &["misshapen", K, "[16, 12]", "[12, 16]"]);
    damaged(
        "gqa",
        |t| t.push(("model.layers.0.self_attn.q_proj.bias".into(), "F32".into(), vec![1], vec![0; 4])),
        &["unexpected", "q_proj.bias"],
    );
    damaged("gqa", |t| t.push(("../evil".into(), "F32".into(), vec![1], vec![0; 4])), &["unexpected", "../evil"]);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        damaged("gqa", |t| at(t, K).3[8..12].copy_from_slice(&value.to_le_bytes()), &[K, "NaN or infinite"]);
    }
    damaged("gqa", |t| at(t, K).1 = "I32".into(), &[K, "I32"]);
    damaged("gqa", |t| at(t, K).2 = vec![usize::MAX, 16], &[K]);
}

#[test]
fn several_faults_are_told_at_once() {
    let faults = |t: &mut Raw| {
        t.retain(|t| t.0 != "model.norm.weight");
        at(t, K).2.reverse();
    };
    damaged("gqa", faults, &["missing tensors: model.norm.weight", "misshapen", K]);
}

#[test]
fn a_header_must_be_whole_small_and_name_each_tensor_once() {
    let twice = |t: &mut Raw| {
        let again = at(t, K).clone();
        t.push(again);
    };
    damaged("gqa", twice, &["twice", K]);
    let dir = copy("gqa");
    let path = dir.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_refused(load(dir.path()), &["model.safetensors", "truncated"]);
    }
    std::fs::write(&path, [whole.as_slice(), &[0; 4]].concat()).unwrap();
    assert_refused(load(dir.path()), &["follow the last tensor"]);
    std::fs::write(&path, [&(1_u64 << 40).to_le_bytes(), &whole[8..]].concat()).unwrap();
    assert_refused(load(dir.path()), &["not plausible"]);
    std::fs::write(&path, [&8_u64.to_le_bytes(), b"not json".as_slice()].concat()).unwrap();
    assert_refused(load(dir.path()), &["not a safetensors header"]);
    let overlap = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    std::fs::write(&path, [&(overlap.len() as u64).to_le_bytes(), overlap.as_slice(), &[0; 4]].concat()).unwrap();
    assert_refused(load(dir.path()), &["overlaps"]);
}

#[test]
fn what_old_exports_carry_is_ignored() {
    let dir = copy("llama3");
    let path = dir.path().join("model.safetensors");
    let mut tensors = read(&path);
    let embedding = at(&mut tensors, "model.embed_tokens.weight").clone();
    tensors.push(("lm_head.weight".into(), embedding.1, embedding.2, embedding.3));
    tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), "F32".into(), vec![2], vec![0; 8]));
    write(&path, &tensors);
    assert_eq!(
        bits(&load(dir.path()).unwrap().base_tensors()["model.embed_tokens.weight"]),
        bits(&untuned("llama3").llama.base_tensors()["model.embed_tokens.weight"])
    );
}

#[test]
fn shards_are_read_through_their_index() {
    let dir = copy("gqa");
    let path = dir.path().join("model.safetensors");
    let tensors = read(&path);
    std::fs::remove_file(&path).unwrap();
    assert_refused(load(dir.path()), &["no model.safetensors"]);
    let (first, second) = tensors.split_at(7);
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    write(&dir.path().join(names[0]), &first.to_vec());
    write(&dir.path().join(names[1]), &second.to_vec());
    let index = |place: &dyn Fn(usize) -> String| {
        let map: serde_json::Map<String, serde_json::Value> =
            tensors.iter().enumerate().map(|(i, t)| (t.0.clone(), place(i).into())).collect();
        let json = serde_json::json!({"metadata": {}, "weight_map": map});
        std::fs::write(dir.path().join("model.safetensors.index.json"), json.to_string()).unwrap();
    };
    index(&|i| names[usize::from(i >= 7)].into());
    let sharded = load(dir.path()).unwrap().base_tensors();
    let single = untuned("gqa").llama.base_tensors();
    assert_eq!(sharded.len(), single.len());
    sharded.iter().for_each(|(name, tensor)| assert_eq!(bits(tensor), bits(&single[name]), "{name}"));
    index(&|i| names[usize::from(i >= 6)].into());
    assert_refused(load(dir.path()), &["index", &tensors[6].0]);
    index(&|_| "../model.safetensors".into());
    assert_refused(load(dir.path()), &["../model.safetensors"]);
    index(&|i| names[usize::from(i >= 7)].into());
    std::fs::remove_file(dir.path().join(names[1])).unwrap();
    assert_refused(load(dir.path()), &[names[1], "missing"]);
    write(&dir.path().join(names[1]), &tensors[6..].to_vec());
    assert_refused(load(dir.path()), &["in both", &tensors[6].0]);
}

#[test]
fn other_models_are_refused() {
    let refuse = |key: &str, value: serde_json::Value, parts: &[&str]| {
        let dir = copy("gqa");
        let path = dir.path().join("config.json");
        let mut config: serde_json::Value = json(&path);
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        assert_refused(load(dir.path()), parts);
    };
    use serde_json::json;
    refuse("model_type", json!("qwen2"), &["qwen2"]);
    refuse("architectures", json!(["LlamaForSequenceClassification"]), &["LlamaForSequenceClassification"]);
    refuse("hidden_act", json!("gelu"), &["hidden_act"]);
    refuse("quantization_config", json!({"bits": 4}), &["quantized"]);
    refuse("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0}), &["yarn"]);
    refuse("rope_scaling", json!({"rope_type": "llama3", "factor": 2.0}), &["low_freq_factor"]);
    refuse("num_key_value_heads", json!(3), &["num_key_value_heads"]);
    refuse("hidden_size", json!("wide"), &["hidden_size"]);
    refuse("hidden_size", json!(null), &["hidden_size"]);
    refuse("num_hidden_layers", json!(0), &["num_hidden_layers"]);
    refuse("num_hidden_layers", json!(3), &["missing", "layers.2"]);
    refuse("vocab_size", json!(41), &["embed_tokens", "[41, 16]"]);
    refuse("attention_bias", json!(true), &["missing", "q_proj.bias"]);
}

#[test]
fn other_adapters_are_refused() {
    let refuse = |key: &str, value: serde_json::Value, parts: &[&str]| {
        let dir = foreign_checkpoint("gqa");
        let path = dir.path().join("adapter_config.json");
        let mut config: serde_json::Value = json(&path);
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        assert_refused(checkpoint::load_model(dir.path(), checkpoint::BaseLookup::default(), DType::F32, &CPU), parts);
    };
    use serde_json::json;
    refuse("use_dora", json!(true), &["use_dora"]);
    refuse("rank_pattern", json!({"q_proj": 4}), &["rank_pattern"]);
    refuse("modules_to_save", json!(["lm_head"]), &["modules_to_save"]);
    refuse("peft_type", json!("IA3"), &["LORA"]);
    refuse("bias", json!("all"), &["bias"]);
    refuse("init_lora_weights", json!("pissa"), &["pissa"]);
    refuse("target_modules", json!(["q_proj", "c_attn"]), &["c_attn"]);
    refuse("target_modules", json!(["q_proj"]), &["unexpected", "v_proj.lora_A"]);
    refuse(
        "target_modules",
        json!(["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]),
        &["missing", "up_proj.lora_A"],
    );
    refuse("r", json!(4), &["[3, 16]", "rank 4"]);
    refuse("r", json!(0), &["rank"]);
}

#[test]
fn checkpoints_must_have_head_and_adapter_of_the_right_shape() {
    let open = |dir: &Path| checkpoint::load_model(dir, checkpoint::BaseLookup::default(), DType::F32, &CPU);
    for name in ["adapter_config.json", "adapter_model.safetensors", "cls_head.safetensors", "clsgen.json"] {
        let dir = foreign_checkpoint("gqa");
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let part = if name.starts_with("adapter") { "adapter" } else { name };
        assert_refused(open(dir.path()), &[part]);
    }
    let edit = |key: &str, value: serde_json::Value, parts: &[&str]| {
        let dir = foreign_checkpoint("gqa");
        let path = dir.path().join("clsgen.json");
        let mut info: serde_json::Value = json(&path);
        info[key] = value;
        std::fs::write(&path, info.to_string()).unwrap();
        assert_refused(open(dir.path()), parts);
    };
    use serde_json::json;
    edit("head", json!({"hidden": 13, "activation": "gelu", "dropout": 0.1}), &["dense", "[12, 16]", "[13, 16]"]);
    edit("base_hash", json!("0123456789abcdef"), &["another base"]);
    edit("base_model", json!("nobody/nothing"), &["nobody/nothing"]);
    edit("base_model", json!("no such place"), &["no such place"]);
    edit("schema", json!(2), &["schema"]);
    let dir = foreign_checkpoint("gqa");
    let path = dir.path().join("cls_head.safetensors");
    let mut tensors = read(&path);
    at(&mut tensors, "out.bias").3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    write(&path, &tensors);
    assert_refused(open(dir.path()), &["out.bias", "NaN"]);
    // An adapter of another base: PEFT's file of the three-key-head case.
    let dir = foreign_checkpoint("gqa");
    let mut llama = untuned("llama3").llama;
    assert_refused(peft::load_adapter(&mut llama, dir.path()), &["k_proj.lora_B"]);
}
