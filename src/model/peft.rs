//! Adapter files exactly as PEFT writes them: `adapter_config.json` and `adapter_model.safetensors`.

mod targets;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use super::{
    Llama, LlamaConfig,
    adapter::{self, LoraConfig},
    safetensors::{self, SafetensorsFile},
    tensor_spec,
};
use crate::{
    error::{Error, Result, ResultExt},
    foreign,
    storage::{AtomicDir, reason},
};

/// PEFT's config file.
pub const CONFIG: &str = "adapter_config.json";
/// PEFT's weight file.
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// Keys that, unless null, false or empty, make something else than plain LoRA of every target in every layer.
const REFUSED: [&str; 18] = [
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "fan_in_fan_out",
    "lora_bias",
    "use_qalora",
    "alora_invocation_tokens",
    "megatron_config",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
];

/// Ranks beyond this are no adapters': as wide as the widest models.
const MAX_RANK: usize = 1 << 16;

/// Initialisations that change the base weights as well, so that the adapter alone is not the model.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// Reads an adapter's configuration; refuses what we do not compute (DoRA, `rank_pattern`, `modules_to_save`, …).
pub fn read_config(dir: &Path) -> Result<LoraConfig> {
    let path = dir.join(CONFIG);
    let failed = |what: String| Error::model(format!("{}: {what}", path.display()));
    let text = foreign::read_text(&path, foreign::SMALL).map_err(|e| failed(reason(&e)))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| failed(format!("not JSON: {}", foreign::reason(&e))))?;
    parse(&json, dir).context(path.display()).or_hint(
        "adapters of plain LoRA are read, of one rank and without biases: merge any other into its base (PEFT's \
        merge_and_unload) and name that as model.base",
    )
}

fn parse(json: &Value, dir: &Path) -> Result<LoraConfig> {
    if json.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        return Err(Error::model("peft_type is not LORA"));
    }
    let set = |key: &&&str| !json.get(**key).is_none_or(is_off);
    let refused: Vec<&str> = REFUSED.iter().filter(set).copied().collect();
    if !refused.is_empty() {
        return Err(Error::model(format!("{} not supported: plain LoRA adapters only", refused.join(", "))));
    }
    if json.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
        return Err(Error::model("trained biases (bias other than \"none\") are not supported"));
    }
    let start = json.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
    if CHANGES_BASE.iter().any(|name| start.starts_with(name)) {
        return Err(Error::model(format!(
            "init_lora_weights = \"{}\" changes the base weights, which is not supported",
            foreign::name(start)
        )));
    }
    let number = |key: &str| {
        json.get(key).and_then(Value::as_f64).ok_or_else(|| Error::model(format!("{key} is missing or not a number")))
    };
    let rank =
        json.get("r").and_then(Value::as_u64).ok_or_else(|| Error::model("r is missing or not a whole number"))?;
    let config = LoraConfig {
        rank: rank as usize,
        alpha: number("lora_alpha")?,
        dropout: number("lora_dropout").unwrap_or(0.0),
        targets: targets::targets(json, dir)?,
        use_rslora: json.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
    };
    config.check()?;
    let dropout = (0.0..1.0).contains(&config.dropout);
    // A factor beyond f32 would make every activation infinite.
    if config.rank > MAX_RANK || !dropout || !(config.scaling() as f32).is_finite() {
        return Err(Error::model(format!(
            "r = {}, lora_alpha = {:e}, lora_dropout = {:e}: one of them is out of range",
            config.rank, config.alpha, config.dropout
        )));
    }
    Ok(config)
}

/// A value that leaves its feature switched off.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(keys) => keys.is_empty(),
        _ => false,
    }
}

/// The adapter's weight file.
fn weights(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(WEIGHTS);
    if path.is_file() {
        return Ok(path);
    }
    let error = Error::model(format!("{}: the adapter is missing", path.display()));
    let bin = dir.join("adapter_model.bin");
    Err(if bin.is_file() {
        error.hint(format!(
            "PyTorch .bin adapters are not read: convert it, python -c \"import torch; from safetensors.torch import \
            save_file; \
             save_file(torch.load('{}', map_location='cpu', weights_only=True), '{}')\"",
            bin.display(),
            path.display()
        ))
    } else {
        error
    })
}

/// The adapter stored in `dir` for a model of this shape: every tensor there once, of the config's rank.
pub(super) fn open_adapter(model: &LlamaConfig, dir: &Path) -> Result<(LoraConfig, SafetensorsFile)> {
    let config = read_config(dir)?;
    let path = weights(dir)?;
    let file = SafetensorsFile::open(&path)?;
    // Before room is made for what adapter_config.json says: the file must hold it.
    let expected = shapes(model, &config);
    let mut problems: Vec<String> = Vec::new();
    for (name, shape) in &expected {
        match file.entries.get(name) {
            None => problems.push(format!("tensor {name} is missing")),
            Some(entry) if entry.shape != shape => {
                problems.push(format!(
                    "tensor {name} has shape {:?}, {shape:?} expected (rank {})",
                    entry.shape, config.rank
                ));
            }
            Some(_) => {}
        }
    }
    problems.extend(
        file.entries
            .keys()
            .filter(|name| !expected.contains_key(*name))
            .map(|name| format!("tensor {} is unexpected", foreign::name(name))),
    );
    if !problems.is_empty() {
        let more = if problems.len() > 5 { format!(" and {} more", problems.len() - 5) } else { String::new() };
        problems.truncate(5);
        return Err(Error::model(format!("{}: {}{more}", path.display(), problems.join("; ")))
            .hint("does the adapter belong to this base model and this adapter_config.json?"));
    }
    Ok((config, file))
}

/// Gives `llama` the adapter stored in `dir`, whose values must be finite.
pub fn load_adapter(llama: &mut Llama, dir: &Path) -> Result<()> {
    let (config, file) = open_adapter(&llama.config, dir)?;
    llama.add_lora(&config, 0)?;
    for (name, slot) in &llama.adapter_tensors() {
        slot.slice_set(&file.tensor(name, DType::F32, slot.device())?, 0, 0)?;
    }
    Ok(())
}

/// The tensors of an adapter of this model, by PEFT's names.
fn shapes(model: &LlamaConfig, adapter: &LoraConfig) -> BTreeMap<String, [usize; 2]> {
    let mut shapes = BTreeMap::new();
    for (name, shape) in tensor_spec::shapes(model) {
        let (Some(projection), &[out, input]) = (name.strip_suffix(".weight"), shape.as_slice()) else { continue };
        let kind = projection.rsplit('.').next().unwrap_or_default();
        if adapter.targets.iter().any(|target| target == kind) {
            shapes.insert(adapter::name_a(projection), [adapter.rank, input]);
            shapes.insert(adapter::name_b(projection), [out, adapter.rank]);
        }
    }
    shapes
}

/// Writes the model's adapter, as `peft.PeftModel.from_pretrained` reads it.
pub fn write_adapter(dir: &AtomicDir, llama: &Llama, base_model: &str) -> Result<()> {
    let Some(lora) = &llama.lora else { return Err(Error::run("the model has no adapter to write")) };
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_model, "revision": null,
        "inference_mode": true, "r": lora.rank, "lora_alpha": whole(lora.alpha), "lora_dropout": lora.dropout,
        "target_modules": lora.targets, "use_rslora": lora.use_rslora, "use_dora": false, "bias": "none",
        "fan_in_fan_out": false, "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {},
        "init_lora_weights": true, "layers_to_transform": null, "layers_pattern": null,
    });
    dir.write_file(CONFIG, format!("{config:#}\n").as_bytes())?;
    write_tensors(dir, WEIGHTS, &llama.adapter_tensors())
}

/// α as PEFT writes it: a whole number without a fraction.
fn whole(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// A safetensors file of these tensors.
pub fn write_tensors(dir: &AtomicDir, name: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut writer = dir.writer(name)?;
    safetensors::write(&mut writer, tensors)?;
    writer.finish()
}
