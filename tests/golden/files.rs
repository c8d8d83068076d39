//! What we write: read back by us to the bit. `peft` has PEFT and transformers read it.

use std::path::Path;

use candle_core::DType;
use clsgen::{
    config::Parameters,
    model::{Model, checkpoint, source},
    storage::AtomicDir,
};

use crate::fixture::*;

fn write(model: &Model, case: &str, parameters: Parameters, to: &Path) {
    let source = source::resolve(folder(case).to_str().unwrap(), &[], false).unwrap();
    let mut info = checkpoint::read_info(foreign_checkpoint(case).path()).unwrap();
    info.base_hash = Some(source.hash().unwrap());
    let dir = AtomicDir::create(to).unwrap();
    checkpoint::write_model_files(&dir, model, &source, &info, parameters).unwrap();
    dir.commit(true).unwrap();
}

fn assert_same_bits(a: &Model, b: &Model, parameters: Parameters) {
    let a = a.trainable(parameters).unwrap();
    let b = b.trainable(parameters).unwrap();
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter().for_each(|(name, tensor)| assert_eq!(bits(tensor), bits(&b[name]), "{name}"));
}

#[test]
fn a_checkpoint_comes_back_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    for case in CASES {
        let model = tuned(case);
        let path = dir.path().join(case);
        write(&model, case, Parameters::Lora, &path);
        let loaded = checkpoint::load_model(&path, checkpoint::BaseLookup::default(), DType::F32, &CPU).unwrap();
        assert_same_bits(&model, &loaded.model, Parameters::Lora);
        assert_eq!(model.llama.lora, loaded.model.llama.lora);
        // Started from it: an adapter of the same shape takes its values, one of another rank is refused.
        let mut fresh = Model::new(untuned(case).llama, untuned("gqa").head);
        let lora = model.llama.lora.clone().unwrap();
        fresh.llama.add_lora(&lora, 9).unwrap();
        checkpoint::load_into(&mut fresh, &path).unwrap();
        assert_same_bits(&model, &fresh, Parameters::Lora);
        fresh.llama.add_lora(&clsgen::model::LoraConfig { rank: 7, ..lora }, 9).unwrap();
        let error = checkpoint::load_into(&mut fresh, &path).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("rank"), "{error}");
    }
}

#[test]
fn full_parameters_become_a_standard_folder() {
    let dir = tempfile::tempdir().unwrap();
    for case in CASES {
        let model = untuned(case);
        let path = dir.path().join(case);
        write(&model, case, Parameters::Full, &path);
        let loaded = checkpoint::load_model(&path, checkpoint::BaseLookup::default(), DType::F32, &CPU).unwrap();
        assert_same_bits(&model, &loaded.model, Parameters::Full);
        assert_eq!(model.llama.config, loaded.model.llama.config);
        assert_eq!(loaded.source.path, path);
        let mut fresh = Model {
            llama: clsgen::model::Llama::random(model.llama.config.clone(), candle_core::DType::F32, 1, &CPU).unwrap(),
            head: untuned(case).head,
            replicas: None,
        };
        checkpoint::load_into(&mut fresh, &path).unwrap();
        assert_same_bits(&model, &fresh, Parameters::Full);
    }
}

#[test]
fn a_changed_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("epoch-01");
    write(&tuned("gqa"), "gqa", Parameters::Lora, &path);
    let file = path.join("cls_head.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = checkpoint::load_model(&path, checkpoint::BaseLookup::default(), DType::F32, &CPU).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("cls_head.safetensors"), "{error}");
}

#[test]
fn the_adapter_file_is_pefts_tensor_for_tensor() {
    let dir = tempfile::tempdir().unwrap();
    for case in CASES {
        let path = dir.path().join(case);
        write(&tuned(case), case, Parameters::Lora, &path);
        let read = |path: &Path| candle_core::safetensors::load(path, &CPU).unwrap();
        let ours = read(&path.join("adapter_model.safetensors"));
        let theirs = read(&folder(case).join("adapter/adapter_model.safetensors"));
        assert_eq!(ours.len(), theirs.len());
        theirs.iter().for_each(|(name, tensor)| assert_eq!(bits(tensor), bits(&ours[name]), "{name}"));
        let config = |path: &Path| json::<serde_json::Value>(&path.join("adapter_config.json"));
        let ours = config(&path);
        let theirs = config(&folder(case).join("adapter"));
        for key in [
            "peft_type",
            "task_type",
            "r",
            "lora_alpha",
            "lora_dropout",
            "target_modules",
            "use_rslora",
            "bias",
            "use_dora",
        ] {
            assert_eq!(ours[key], theirs[key], "{case} {key}");
        }
    }
}
