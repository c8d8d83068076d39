//! A whole training pass on a device, in bf16, against the same weights in f32 on the CPU: what `clsgen selftest`
//! prints last.
//!
//! Two records, dropout on, adapters on all seven projections with a B that is not 0 (or A would have no gradient).

use candle_core::{DType, Device, Tensor};

use super::{Bench, CheckResult, numbers};
use crate::{
    config::{Activation, Objective, Parameters},
    error::{Error, Result},
    model::{
        ActivationCheckpointing, ClsHead, Footprint, Gradients, Llama, LlamaConfig, Loading, LoraConfig, Model,
        ModelSource, adapter::PROJECTIONS, tensor_spec,
    },
    ops::{
        Offsets,
        dropout::{self, DropoutKey},
        random,
    },
    prompt::TextTokenizer,
    rng::{Rng, hash_name, streams},
    train::{
        examples::{Batch, Example},
        loss::{Counts, LossWeights, StepSettings},
        micro_batch::forward_backward,
        plan::Sample,
    },
};

/// What a given model reads: a language model on noise is no measure of its arithmetic.
const TEXT: &str = "A 67-year-old woman with type 2 diabetes and chronic heart failure was admitted with three days \
    of increasing shortness of \
    breath. On examination her blood pressure was 148 over 86, her pulse 96, and both lungs had crackles at the \
    bases. She was given furosemide, \
    lost four kilograms in five days and walked the ward without oxygen. Her kidney function stayed stable and her \
    potassium was replaced. She \
    was discharged home with her usual medicines, a higher dose of the diuretic, and an appointment at the heart \
    failure clinic within a week. \
    The risk of coming back within thirty days was judged to be high, because she had been admitted twice in the last \
    half year and lives alone.";

/// bf16 noise of a mean of cross-entropies: each logit is within 2⁻⁹ of its own size.
const LOSS: f64 = 4e-3;
/// 1 − cosine of a gradient of the tiny Llama and its reference.
const COSINE: f64 = 1e-3;
/// The same of a given model: noise grows with depth. Twice PyTorch's own with SmolLM2-135M
/// (`tests/golden/bf16_gradients.py`: 6.3e-3).
const COSINE_GIVEN: f64 = 1.26e-2;
const DROPOUT: f64 = 0.1;
/// The two records: where in the text they begin, tokens of the prompt, tokens of the target.
const RECORDS: [(usize, usize, usize); 2] = [(0, 71, 20), (91, 40, 7)];

/// Dropout's masks, and a pass of a tiny Llama; of `only` these ops, where it names any. `note` goes behind the names.
pub(super) fn tiny(device: &Device, only: &[String], note: &'static str) -> Vec<CheckResult> {
    let mut bench = Bench { note, ..Bench::new(device, only) };
    bench.attempt("dropout", |bench| masks(bench, device));
    bench.attempt("training, tiny Llama", |bench| {
        pass(bench, "tiny Llama", COSINE, tiny_llama()?, &tiny_text(138), device)
    });
    bench.rows
}

/// A Llama of three layers, bf16 on the CPU.
pub(super) fn tiny_llama() -> Result<Llama> {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 515, "hidden_size": 256, "intermediate_size": 392,
        "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
    });
    let config = LlamaConfig::parse(config.as_object().ok_or_else(|| Error::run("no shape"))?)?;
    Llama::random(config, DType::BF16, 5, &Device::Cpu)
}

/// Ids that it has.
pub(super) fn tiny_text(tokens: u32) -> Vec<u32> {
    (0..tokens).map(|i| i.wrapping_mul(2_654_435_761) % 515).collect()
}

/// Fails (exit 5), before it is loaded, where a given model's pass cannot be held on the host: its weights as bf16
/// and as f32, and what two records take.
pub(super) fn check_memory(source: &ModelSource) -> Result<()> {
    let config = source.config()?;
    let loading = Loading::of(source, &config, DType::BF16, &Device::Cpu);
    let footprint = Footprint::of(&config, DType::F32, false, Some(&lora()));
    let pass = RECORDS.iter().map(|(_, prompt, target)| prompt + target).sum::<usize>() as u64
        * footprint.row(footprint.layers);
    let logits = RECORDS.iter().map(|(_, _, target)| *target as u64).max().unwrap_or(0) * footprint.logits;
    let what = format!("{} as bf16 and as f32", source.path.display());
    loading.check(tensor_spec::bytes(&config, DType::F32, false) + pass + logits, &Device::Cpu, &what, &|_| None)
}

/// The same pass of a given model, whose weights are taken as bf16 holds them.
pub(super) fn model(source: &ModelSource, device: &Device) -> Result<Vec<CheckResult>> {
    let text = TextTokenizer::load(source.tokenizer_path())?.encode(TEXT)?;
    let llama = Llama::load(source, DType::BF16, &Device::Cpu)?;
    let mut bench = Bench::new(device, &[]);
    bench.attempt("training, given model", |bench| pass(bench, "given model", COSINE_GIVEN, llama, &text, device));
    Ok(bench.rows)
}

/// Ones behind dropout, in the type of the device's activations: kept and dropped where the CPU keeps and drops.
fn masks(bench: &mut Bench<'_>, device: &Device) -> Result<()> {
    let key = DropoutKey { p: DROPOUT as f32, rng: Rng::new(9, streams::LORA_DROPOUT), steps: vec![3, u64::MAX - 1] };
    let kept = |device: &Device| -> Result<Tensor> {
        let dtype = if device.is_cuda() { DType::BF16 } else { DType::F32 };
        let ones = Tensor::ones((45, 999), dtype, &Device::Cpu)?.to_device(device)?;
        let mask = dropout::forward(&ones, &key, &Offsets::from_lengths(&[33, 12]))?;
        Ok(mask.to_device(&Device::Cpu)?.gt(0.0)?.to_dtype(DType::F32)?)
    };
    let ours = kept(device)?;
    let reference = kept(&Device::Cpu)?;
    bench.check("dropout, whole model", "mask", &ours, &numbers(&reference)?, 0.0)
}

fn pass(
    bench: &mut Bench<'_>,
    op: &'static str,
    bound: f64,
    mut reference: Llama,
    text: &[u32],
    device: &Device,
) -> Result<()> {
    adapt(&mut reference)?;
    let ours = reference.held_as(DType::BF16, device)?;
    let reference = reference.held_as(DType::F32, &Device::Cpu)?;
    let (loss, gradients) = loss_and_gradients(&ours, text)?;
    let (again, gradients_again) = loss_and_gradients(&ours, text)?;
    let (expected, exact) = loss_and_gradients(&reference, text)?;
    bench.compare(op, "loss", &[], &[loss], &[expected], LOSS);
    let mut worst = [("adapters' gradients", 0.0f64, vec![]), ("head's gradients", 0.0, vec![])];
    let mut same = loss == again;
    for (name, gradient) in &exact {
        let found = gradients.get(name).ok_or_else(|| Error::run(format!("{name} has no gradient")))?;
        let values = numbers(found)?;
        same &= gradients_again.get(name).map(numbers).transpose()?.is_some_and(|again| again == values);
        let distance = 1.0 - cosine(&values, &numbers(gradient)?);
        tracing::debug!("{op}, {name}: 1 - cosine {distance:.1e}");
        let group = &mut worst[usize::from(name.starts_with("cls_head."))];
        // A distance that is not a number is the worst of all, and stays.
        if group.1 < distance || distance.is_nan() {
            (group.1, group.2) = (distance, found.dims().to_vec());
        }
    }
    for (pass, distance, dims) in worst {
        bench.push(op, pass, &dims, distance, bound);
    }
    bench.push(op, "again", &[], f64::from(u8::from(!same)), 0.0);
    Ok(())
}

fn lora() -> LoraConfig {
    LoraConfig {
        rank: 8,
        alpha: 16.0,
        dropout: DROPOUT,
        targets: PROJECTIONS.map(String::from).to_vec(),
        use_rslora: false,
    }
}

/// Adapters whose B is drawn too.
pub(super) fn adapt(llama: &mut Llama) -> Result<()> {
    llama.add_lora(&lora(), 6)?;
    for (name, tensor) in llama.adapter_tensors().iter().filter(|(name, _)| name.contains("lora_B")) {
        let drawn = random::normal(
            Rng::new(6, streams::LORA_INIT),
            hash_name(name),
            0.02,
            tensor.shape(),
            DType::F32,
            &Device::Cpu,
        )?;
        tensor.slice_set(&drawn, 0, 0)?;
    }
    Ok(())
}

/// The joint loss of two records and its gradients.
fn loss_and_gradients(llama: &Llama, text: &[u32]) -> Result<(f64, Gradients)> {
    let example = |(first, prompt, target): (usize, usize, usize)| {
        let mut ids = text.iter().copied().cycle().skip(first).take(prompt + target);
        Example {
            prompt: ids.by_ref().take(prompt).collect(),
            target: ids.collect(),
            class: first as u32 % 2,
            record: 0,
        }
    };
    let examples = RECORDS.map(example);
    let samples = [0, 1].map(|record| Sample { record, key: 11 + record as u64 });
    let head = ClsHead::new(llama.config.hidden_size, 64, 2, Activation::Gelu, DROPOUT, 7, llama.device())?;
    let model = Model::new(llama.clone(), head);
    let objective = Objective::Joint;
    let weights = LossWeights { objective, generation: 1.0, classification: 1.0, consistency: 0.0, prompt: 0.0 };
    let pass = StepSettings {
        weights,
        parameters: Parameters::Lora,
        label_smoothing: 0.0,
        class_balance: None,
        label_tokens: None,
        memory: ActivationCheckpointing::KeepLast(1),
        dropout: Some(8),
    };
    let counts = Counts::of(&examples);
    let mut gradients = Gradients::new();
    let sums = forward_backward(&model, &Batch::new(&examples, &samples), counts, &pass, &mut gradients)?;
    Ok((weights.losses(sums, counts).loss, gradients))
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_weights_give_the_gradients_of_f32() {
        let rows = tiny(&Device::Cpu, &[], "");
        let missed: Vec<&CheckResult> = rows.iter().filter(|row| !row.ok()).collect();
        assert!(missed.is_empty(), "{missed:?}");
        let passes: Vec<&str> = rows.iter().map(|row| row.pass.as_str()).collect();
        assert_eq!(passes, ["mask", "loss", "adapters' gradients", "head's gradients", "again"]);
    }

    #[test]
    fn the_angle_between_gradients() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert!((cosine(&[1.0, 2.0], &[2.0, 4.0]) - 1.0).abs() < 1e-15);
        assert!(cosine(&[0.0], &[1.0]).is_nan());
    }
}
