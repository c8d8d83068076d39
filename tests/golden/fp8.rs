//! FP8 beside PyTorch on a CPU: `fp8.json` and `fp8.safetensors`, made by `fp8.py`.

use std::path::Path;

use candle_core::{DType, Tensor};
use clsgen::{
    config::{Lora, Parameters, Quantize},
    model::{ActivationCheckpointing, Gradients, LoraConfig, Model, ModelSource, Precision, TrainingContext, source},
    ops::quantize::{Format, Quantized, e4m3, fp8},
    prompt::TextTokenizer,
    rng::Rng,
};
use half::bf16;
use serde::Deserialize;

use crate::{
    common::{self, golden, golden_path, say},
    fixture::*,
    gradients::joint,
};

/// Like a record.
const NOTE: &str = "The patient is a 67-year-old man with a history of diabetes and hypertension who was admitted with \
    chest pain. An electrocardiogram showed ST elevation, and he was taken to the catheterization laboratory. The \
    procedure was successful, and he was discharged home on aspirin and a beta blocker after three days.";

#[derive(Deserialize)]
struct Reference {
    /// Runs of bf16 numbers with one code: the bits of the first, and the code.
    bf16: Vec<(u16, u8)>,
    f32: Vec<(u32, u8)>,
    values: Vec<u32>,
    products: Vec<Product>,
}

/// Bits, but for the codes.
#[derive(Deserialize)]
struct Product {
    tokens: usize,
    #[serde(rename = "in")]
    input: usize,
    out: usize,
    x: Vec<u32>,
    weight: Vec<u32>,
    bias: Vec<u32>,
    dy: Vec<u32>,
    codes: Vec<u8>,
    scales: Vec<u32>,
    y: Vec<u32>,
    biased: Vec<u32>,
    dx: Vec<u32>,
}

fn reference() -> Reference {
    golden("fp8.json")
}

fn matrix(bits: &[u32], shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::from_vec(bits.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>(), shape.into(), &CPU).unwrap()
}

#[test]
fn codes_and_numbers_are_those_of_torch() {
    let reference = reference();
    let mut runs = reference.bf16.iter().peekable();
    let mut code = 0;
    for bits in 0..=u16::MAX {
        code = runs.next_if(|run| run.0 == bits).map_or(code, |run| run.1);
        assert_eq!(e4m3::encode(bf16::from_bits(bits).to_f32()), code, "bf16 {bits:#x}");
    }
    assert!(runs.next().is_none());
    for &(bits, code) in &reference.f32 {
        assert_eq!(e4m3::encode(f32::from_bits(bits)), code, "{}", f32::from_bits(bits));
    }
    for (code, &bits) in reference.values.iter().enumerate() {
        let ours = e4m3::decode(code as u8);
        let theirs = f32::from_bits(bits);
        assert!(ours.to_bits() == bits || ours.is_nan() && theirs.is_nan(), "code {code}: {ours} and {theirs}");
    }
    assert_eq!((reference.values.len(), reference.f32.len() > 1500), (256, true));
}

#[test]
fn a_projection_and_the_gradient_of_its_input_are_those_of_torch() {
    for product in reference().products {
        let Product { tokens, input, out, .. } = product;
        let weight = Quantized::new(&matrix(&product.weight, (out, input)), Format::Fp8).unwrap();
        let (codes, scales) = weight.parts().unwrap();
        assert_eq!(codes, product.codes);
        assert_eq!(scales.iter().map(|scale| scale.to_bits()).collect::<Vec<_>>(), product.scales);
        let x = matrix(&product.x, (tokens, input));
        let dy = matrix(&product.dy, (tokens, out));
        let bias = matrix(&product.bias, out);
        let what = format!("{tokens} x {input} x {out}");
        let y = fp8::forward(&x, &weight, None).unwrap();
        assert_close(&what, &y, &matrix(&product.y, (tokens, out)), 1e-6);
        let biased = fp8::forward(&x, &weight, Some(&bias)).unwrap();
        assert_close(&what, &biased, &matrix(&product.biased, (tokens, out)), 1e-6);
        let dx = fp8::backward_input(&dy, &weight).unwrap();
        assert_close(&what, &dx, &matrix(&product.dx, (tokens, input)), 1e-6);
        let sum = fp8::add_backward_input(x.copy().unwrap(), &dy, &weight).unwrap();
        assert_close(&what, &sum, &(&x + &dx).unwrap(), 1e-6);
    }
}

/// The cosine of the angle between the adapters' gradients, all in one row.
fn cosine(one: &Gradients, other: &Gradients) -> f64 {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    let flat = |gradients: &Gradients| -> Vec<f64> {
        let adapters = gradients.iter().filter(|(name, _)| name.contains("lora_"));
        adapters.flat_map(|(_, gradient)| values(gradient).into_iter().map(f64::from)).collect()
    };
    let one = flat(one);
    let other = flat(other);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&one, &other) / (dot(&one, &one) * dot(&other, &other)).sqrt()
}

/// Losses and gradients of a pass.
fn pass(model: &Model, batch: &[Sequence]) -> ((f64, f64), Gradients) {
    let mut gradients = Gradients::new();
    let losses = joint(model, batch, batch, &KEEP, &mut gradients);
    (losses, gradients)
}

fn held(quantize: Quantize) -> Precision {
    Precision::new(DType::F32, quantize)
}

/// To the bit it cannot be: where two sums in f32 differ in their last bit, a number may be rounded to another code.
#[test]
fn losses_and_gradients_on_a_model_are_those_of_torch() {
    let expected = candle_core::safetensors::load(golden_path("fp8.safetensors"), &CPU).unwrap();
    for case in CASES {
        let batch = batch(case);
        let (whole_losses, whole) = pass(&tuned(case), &batch);
        let (losses, ours) = pass(&tuned_on(case, held(Quantize::Fp8)), &batch);
        let theirs = values(&expected[&format!("{case}.loss")]);
        let prefix = format!("{case}.grad.");
        let names = expected.iter().filter_map(|(name, grad)| Some((name.strip_prefix(&prefix)?.to_owned(), grad)));
        let torch: Gradients = names.map(|(name, gradient)| (name, gradient.clone())).collect();
        let same = cosine(&torch, &ours);
        let apart = cosine(&whole, &ours);
        say(&format!(
            "fp8, {case}: adapters' gradients' cosine {same:.6} to PyTorch's, {apart:.4} to an unquantised base's; \
             losses {losses:.4?} and {whole_losses:.4?}"
        ));
        assert!(same > 0.999, "{case}: {same}");
        assert!(apart < 0.999, "{case}: nothing was quantised");
        assert!((losses.0 - f64::from(theirs[1])).abs() < 1e-3 * losses.0, "{case}: {losses:?} {theirs:?}");
        assert!((losses.1 - f64::from(theirs[2])).abs() < 1e-3 * losses.1, "{case}: {losses:?} {theirs:?}");
        for memory in [ActivationCheckpointing::Recompute, ActivationCheckpointing::KeepLast(1)] {
            let mut again = Gradients::new();
            let context = TrainingContext { memory, ..KEEP };
            joint(&tuned_on(case, held(Quantize::Fp8)), &batch, &batch, &context, &mut again);
            for (name, gradient) in &ours {
                assert_eq!(bits(gradient), bits(&again[name]), "{case} {memory:?} {name}");
            }
        }
    }
}

/// How far FP8's rounding turns the gradient of a real model, with adapters that are not at their start (where half of
/// it is 0); the other formats' is told beside it.
#[test]
fn adapters_gradients_on_smollm2_are_turned_by_little() {
    let Some(folder) = common::smollm2() else { return };
    let source = source::resolve(folder.to_str().unwrap(), &[], false).unwrap();
    let tokenizer = TextTokenizer::load(source.tokenizer_path()).unwrap();
    let ids = tokenizer.encode(NOTE).unwrap();
    let half = ids.len() / 2;
    let batch = [Sequence { prompt: ids[..half].to_vec(), target: ids[half..].to_vec(), class: 1 }];
    let of = |source: &ModelSource, quantize| {
        let mut model = Model::base(source, held(quantize), &CPU).unwrap();
        model.llama.add_lora(&LoraConfig::from(&Lora::default()), 1).unwrap();
        let trained = model.trainable(Parameters::Lora).unwrap();
        for (name, tensor) in trained.iter().filter(|(name, _)| name.contains("lora_B")) {
            let rng = Rng::new(7, name.len() as u32);
            let numbers: Vec<f32> = (0..tensor.elem_count()).map(|i| 0.01 * rng.normal(0, i as u64)).collect();
            tensor.slice_set(&Tensor::from_vec(numbers, tensor.dims(), &CPU).unwrap(), 0, 0).unwrap();
        }
        pass(&model, &batch)
    };
    let (losses, whole) = of(&source, Quantize::None);
    // Of FP8's rounding the part that is W's own, whatever activations and gradients are held in.
    let dir = tempfile::tempdir().unwrap();
    let (_, of_rounded) = of(&with_projections_rounded(&folder, dir.path()), Quantize::None);
    say(&format!("Fp8, W alone, SmolLM2: adapters' gradients' cosine {:.4}", cosine(&whole, &of_rounded)));
    for quantize in [Quantize::Fp8, Quantize::Int8, Quantize::Nf4] {
        let (ours, gradients) = of(&source, quantize);
        let cosine = cosine(&whole, &gradients);
        say(&format!(
            "{quantize:?}, SmolLM2: losses {ours:.4?} and {losses:.4?}, adapters' gradients' cosine {cosine:.4}"
        ));
        if quantize == Quantize::Fp8 {
            assert!((ours.0 / losses.0 - 1.0).abs() < 0.05, "{ours:?} and {losses:?}");
            assert!((0.9..0.9999).contains(&cosine), "{cosine}");
        }
    }
}

/// The model of `folder` in `dir`, its projections those that FP8's codes stand for.
fn with_projections_rounded(folder: &Path, dir: &Path) -> ModelSource {
    let mut tensors = candle_core::safetensors::load(folder.join("model.safetensors"), &CPU).unwrap();
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.ends_with("_proj.weight")) {
        *tensor = Quantized::new(tensor, Format::Fp8).unwrap().dequantize(DType::F32).unwrap();
    }
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(folder.join(file), dir.join(file)).unwrap();
    }
    source::resolve(dir.to_str().unwrap(), &[], false).unwrap()
}
