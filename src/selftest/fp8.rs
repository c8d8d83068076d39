//! fp8's products against f64 ones of the matrices that the codes stand for, as a CPU makes them.

use candle_core::{DType, Device, Tensor};

use super::{BF16, Bench, F32, numbers};
use crate::{
    error::Result,
    ops::quantize::{Format, Quantized, fp8},
};

/// Tokens (no multiple of 16), inputs, outputs.
const SIZES: [usize; 3] = [21, 96, 64];

/// Not on a GPU that has none of these products: that is said.
pub(super) fn fp8(bench: &mut Bench<'_>) -> Result<()> {
    if let Err(error) = fp8::check(bench.device) {
        tracing::warn!("quantize, fp8: not run: {error}");
        return Ok(());
    }
    let [tokens, input, out] = SIZES;
    // On a GPU activations are bf16, and so is what is returned.
    let (dtype, bound) = if bench.device.is_cuda() { (DType::BF16, BF16) } else { (DType::F32, F32) };
    let (x, x64) = bench.random_as(50, &[tokens, input], dtype)?;
    let (dy, dy64) = bench.random_as(51, &[tokens, out], dtype)?;
    let (bias, bias64) = bench.random(52, &[out])?;
    let (_, weight) = bench.random(53, &[out, input])?;
    let weight = quantized(&weight, out, input)?;
    let (_, channels) = weight.parts()?;
    let there = weight.to_device(bench.device)?;
    let w64 = numbers(&weight.dequantize(DType::F32)?)?;

    let qx = numbers(&quantized(&x64, tokens, input)?.dequantize(DType::F32)?)?;
    let mut expected = vec![0.0; tokens * out];
    for (i, y) in expected.iter_mut().enumerate() {
        let token = i / out * input;
        let channel = i % out * input;
        *y = bias64[i % out] + (0..input).map(|k| qx[token + k] * w64[channel + k]).sum::<f64>();
    }
    bench.check("quantize, fp8", "forward", &fp8::forward(&x, &there, Some(&bias))?, &expected, bound)?;

    // W's scales go into dy before it is quantised, in f32, and out of W.
    let folded: Vec<f64> = dy64.iter().enumerate().map(|(i, dy)| f64::from(*dy as f32 * channels[i % out])).collect();
    let qdy = numbers(&quantized(&folded, tokens, out)?.dequantize(DType::F32)?)?;
    let mut expected = vec![0.0; tokens * input];
    for (i, dx) in expected.iter_mut().enumerate() {
        let token = i / input * out;
        let of = |j: usize| qdy[token + j] * w64[j * input + i % input] / f64::from(channels[j]);
        *dx = (0..out).map(of).sum();
    }
    bench.check("quantize, fp8", "backward input", &fp8::backward_input(&dy, &there)?, &expected, bound)
}

fn quantized(values: &[f64], rows: usize, columns: usize) -> Result<Quantized> {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Quantized::new(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?, Format::Fp8)
}
