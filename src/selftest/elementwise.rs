//! Ops on elements: SwiGLU, activations, dropout, AdamW.

use candle_core::{DType, Device, Tensor};

use super::{BF16, Bench, F32, numbers, reference, some_of};
use crate::{
    error::Result,
    ops::{
        Offsets,
        activation::{self, Activation},
        adamw::{self, AdamW, ParamState},
        dropout::{self, DropoutKey},
        grad_norm,
        quantize::{Format, Quantized},
        random::normal,
        swiglu as glu,
    },
    rng::{Rng, streams},
};

pub(super) fn swiglu(bench: &mut Bench<'_>) -> Result<()> {
    let (gate, gate64) = bench.random(23, &[7, 53])?;
    let (up, up64) = bench.random(24, &[7, 53])?;
    let (dy, dy64) = bench.random(25, &[7, 53])?;
    bench.check("swiglu", "forward", &glu::forward(&gate, &up)?, &reference::swiglu(&gate64, &up64), F32)?;
    let (dgate, dup) = glu::backward(&gate, &up, &dy)?;
    let at = some_of(gate64.len(), 200);
    let expected = reference::gradient(&gate64, &at, &dy64, |gate| reference::swiglu(gate, &up64));
    bench.check_at("swiglu", "backward gate", &dgate, &at, &expected, F32)?;
    let expected = reference::gradient(&up64, &at, &dy64, |up| reference::swiglu(&gate64, up));
    bench.check_at("swiglu", "backward up", &dup, &at, &expected, F32)
}

pub(super) fn activation(bench: &mut Bench<'_>) -> Result<()> {
    type Formula = fn(f64) -> f64;
    let formulas: [(&str, Activation, Formula); 3] = [
        ("activation, gelu", Activation::Gelu, reference::gelu),
        ("activation, relu", Activation::Relu, |x| x.max(0.0)),
        ("activation, tanh", Activation::Tanh, f64::tanh),
    ];
    let (x, x64) = bench.random(26, &[5, 40])?;
    let (dy, dy64) = bench.random(27, &[5, 40])?;
    let at = some_of(x64.len(), x64.len());
    for (op, kind, f) in formulas {
        let all = |x: &[f64]| x.iter().map(|&x| f(x)).collect::<Vec<f64>>();
        bench.check(op, "forward", &activation::forward(kind, &x)?, &all(&x64), F32)?;
        let expected = reference::gradient(&x64, &at, &dy64, all);
        bench.check_at(op, "backward", &activation::backward(kind, &x, &dy)?, &at, &expected, F32)?;
    }
    Ok(())
}

pub(super) fn dropout(bench: &mut Bench<'_>) -> Result<()> {
    let width = 30;
    let lengths = [4, 9];
    let steps = vec![3u64, u64::MAX];
    let key = DropoutKey { p: 0.25, rng: Rng::new(5, streams::LORA_DROPOUT), steps: steps.clone() };
    let (x, x64) = bench.random(28, &[13, width])?;
    let mask = lengths.iter().zip(&steps).flat_map(|(&rows, &step)| {
        let kept = move |i| if key.rng.uniform(step, i) >= 0.25 { 1.0 / 0.75 } else { 0.0 };
        (0..(rows * width) as u64).map(kept)
    });
    let expected: Vec<f64> = mask.zip(&x64).map(|(mask, x)| mask * x).collect();
    bench.check("dropout", "forward", &dropout::forward(&x, &key, &Offsets::from_lengths(&lengths))?, &expected, F32)
}

pub(super) fn random(bench: &mut Bench<'_>) -> Result<()> {
    let rng = Rng::new(6, streams::MODEL_INIT);
    let n = 101;
    let expected: Vec<f64> = (0..n).map(|i| 0.02 * f64::from(rng.normal(9, i))).collect();
    let drawn = |dtype| normal(rng, 9, 0.02, n as usize, dtype, bench.device);
    let wide = drawn(DType::F32)?;
    let half = drawn(DType::BF16)?;
    bench.check("random", "f32", &wide, &expected, F32)?;
    bench.check("random", "bf16", &half, &expected, BF16)
}

pub(super) fn quantize(bench: &mut Bench<'_>) -> Result<()> {
    for (format, pass) in [(Format::Nf4, "nf4"), (Format::Int8, "int8")] {
        // Whole rows of eights, and rows that are not.
        for dims in [[6, 128], [5, 77]] {
            let (_, weight) = bench.random(40, &dims)?;
            let weight: Vec<f32> = weight.into_iter().map(|x| x as f32).collect();
            let here = Quantized::new(&Tensor::from_vec(weight, &dims[..], &Device::Cpu)?, format)?;
            let there = here.to_device(bench.device)?;
            for dtype in [DType::F32, DType::BF16] {
                let expected = numbers(&here.dequantize(dtype)?)?;
                // The same bits.
                bench.check("quantize", pass, &there.dequantize(dtype)?, &expected, 0.0)?;
            }
        }
    }
    Ok(())
}

pub(super) fn adamw(bench: &mut Bench<'_>) -> Result<()> {
    let n = 101;
    let (param, mut p) = bench.random(29, &[n])?;
    let m = param.zeros_like()?;
    let v = param.zeros_like()?;
    let mut m64 = vec![0.0; n];
    let mut v64 = vec![0.0; n];
    for step in 1..=5u64 {
        let s = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step };
        let (grad, g) = bench.random(30 + step, &[n])?;
        adamw::step(&[ParamState { param: &param, gradient: &grad, m: &m, v: &v }], 0.0, &s)?;
        let c1 = 1.0 - s.beta1.powi(step as i32);
        let c2 = 1.0 - s.beta2.powi(step as i32);
        for i in 0..n {
            m64[i] = s.beta1 * m64[i] + (1.0 - s.beta1) * g[i];
            v64[i] = s.beta2 * v64[i] + (1.0 - s.beta2) * g[i] * g[i];
            p[i] -= s.lr * s.weight_decay * p[i];
            p[i] -= s.lr * (m64[i] / c1) / ((v64[i] / c2).sqrt() + s.eps);
        }
    }
    bench.check("adamw, 5 steps", "parameter", &param, &p, F32)?;
    bench.check("adamw, 5 steps", "first moment", &m, &m64, F32)?;
    bench.check("adamw, 5 steps", "second moment", &v, &v64, F32)?;
    let norm = numbers(&param)?.into_iter().chain(numbers(&m)?).map(|x| x * x).sum::<f64>().sqrt();
    let ours = grad_norm([&param, &m])?;
    bench.compare("grad_norm", "forward", &[2, n], &[ours], &[norm], 1e-9);
    Ok(())
}
