//! Reading the fixtures, and comparing tensors with them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use clsgen::{
    config::Parameters,
    model::{ActivationCheckpointing, Model, Precision, TrainingContext, checkpoint},
};
use serde::Deserialize;

pub const CASES: [&str; 3] = ["gqa", "llama3", "bias"];
pub const CPU: Device = Device::Cpu;
pub const KEEP: TrainingContext =
    TrainingContext { dropout: None, memory: ActivationCheckpointing::Keep, trains: Parameters::Lora, read_from: None };

#[derive(Debug, Clone, Deserialize)]
pub struct Sequence {
    pub prompt: Vec<u32>,
    pub target: Vec<u32>,
    pub class: u32,
}

impl Sequence {
    pub fn ids(&self) -> Vec<u32> {
        [self.prompt.as_slice(), &self.target].concat()
    }
}

#[derive(Deserialize)]
struct Batch {
    sequences: Vec<Sequence>,
}

pub fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model").join(case)
}

pub fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn batch(case: &str) -> Vec<Sequence> {
    json::<Batch>(&folder(case).join("batch.json")).sequences
}

pub fn expected(case: &str) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load(folder(case).join("expected.safetensors"), &CPU).unwrap().into_iter().collect()
}

/// A checkpoint as another tool would leave it: PEFT's adapter, the head, a minimal clsgen.json, no manifest.
pub fn foreign_checkpoint(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "cls_head.safetensors"] {
        let from = folder(case).join(name);
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    let info = serde_json::json!({
        "schema": 1, "base_model": folder(case), "labels": ["0:alive", "1:death"], "prompt": {"user": "{document}"},
        "head": {"hidden": 12, "activation": "gelu", "dropout": 0.1}, "max_input_tokens": 64, "max_output_tokens": 16,
    });
    std::fs::write(dir.path().join("clsgen.json"), info.to_string()).unwrap();
    dir
}

/// The case's base, PEFT-written adapter and head.
pub fn tuned(case: &str) -> Model {
    tuned_on(case, DType::F32)
}

/// The same on a base held in this precision.
pub fn tuned_on(case: &str, precision: impl Into<Precision>) -> Model {
    checkpoint::load_model(foreign_checkpoint(case).path(), checkpoint::BaseLookup::default(), precision, &CPU)
        .unwrap()
        .model
}

/// The case's base and head, no adapter.
pub fn untuned(case: &str) -> Model {
    let source = clsgen::model::source::resolve(folder(case).to_str().unwrap(), &[], false).unwrap();
    Model {
        llama: clsgen::model::Llama::load(&source, DType::F32, &CPU).unwrap(),
        head: tuned(case).head,
        replicas: None,
    }
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

pub fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).into_iter().map(f32::to_bits).collect()
}

pub fn rows(tensor: &Tensor, range: std::ops::Range<usize>) -> Tensor {
    tensor.narrow(0, range.start, range.len()).unwrap()
}

/// ‖ours − theirs‖ ≤ tolerance · ‖theirs‖, and theirs is not zero.
#[track_caller]
pub fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor, tolerance: f64) {
    assert_eq!(ours.dims(), theirs.dims(), "{what}");
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let a = values(ours);
    let b = values(theirs);
    let scale = norm(&mut b.iter().map(|x| f64::from(*x)));
    let error = norm(&mut a.iter().zip(&b).map(|(x, y)| f64::from(*x) - f64::from(*y)));
    assert!(scale > 0.0, "{what}: the reference is zero");
    assert!(error <= tolerance * scale, "{what}: off by {:.2e} of its norm {scale:.3e}", error / scale);
}
