//! Quantised bases beside bitsandbytes on a CPU: `quantize.json`, made by `quantize.py`.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use clsgen::{
    config::Quantize,
    model::{Llama, Precision, source},
    ops::{
        Offsets,
        quantize::{Format, Quantized},
    },
};
use half::bf16;
use serde::Deserialize;

use crate::{
    common::{golden, golden_path},
    fixture::*,
};

#[derive(Deserialize)]
struct Reference {
    matrices: Vec<Matrix>,
    ids: Vec<u32>,
    logits: BTreeMap<String, Logits>,
}

#[derive(Deserialize)]
struct Matrix {
    shape: (usize, usize),
    dtype: String,
    /// Bits.
    weight: Vec<u32>,
    nf4: Option<Parts>,
    int8: Option<Parts>,
}

#[derive(Deserialize)]
struct Parts {
    codes: Vec<u8>,
    scales: Vec<u32>,
    f32: Vec<u32>,
    bf16: Vec<u32>,
}

#[derive(Deserialize)]
struct Logits {
    shape: (usize, usize),
    f32: Vec<u32>,
}

fn bf16_bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<bf16>().unwrap().iter().map(|x| u32::from(x.to_bits())).collect()
}

#[test]
fn codes_scales_and_dequantised_bits_are_those_of_bitsandbytes() {
    let reference: Reference = golden("quantize.json");
    let mut compared = 0;
    for matrix in &reference.matrices {
        let wide = matrix.weight.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>();
        let half = matrix.weight.iter().map(|&bits| bf16::from_bits(bits as u16)).collect::<Vec<_>>();
        let weight = match matrix.dtype.as_str() {
            "float32" => Tensor::from_vec(wide, matrix.shape, &CPU).unwrap(),
            _ => Tensor::from_vec(half, matrix.shape, &CPU).unwrap(),
        };
        for (format, parts) in [(Format::Nf4, &matrix.nf4), (Format::Int8, &matrix.int8)] {
            let Some(parts) = parts else { continue };
            let quantized = Quantized::new(&weight, format).unwrap();
            let (codes, scales) = quantized.parts().unwrap();
            let what = format!("{format:?}, {:?} {}", matrix.shape, matrix.dtype);
            assert_eq!(codes, parts.codes, "{what}");
            assert_eq!(scales.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), parts.scales, "{what}");
            assert_eq!(bits(&quantized.dequantize(DType::F32).unwrap()), parts.f32, "{what}");
            assert_eq!(bf16_bits(&quantized.dequantize(DType::BF16).unwrap()), parts.bf16, "{what}");
            compared += codes.len();
        }
    }
    assert!(compared > 3000, "{compared}");
}

#[test]
fn logits_on_quantised_projections_are_those_of_transformers() {
    let reference: Reference = golden("quantize.json");
    let source = source::resolve(golden_path("train/base").to_str().unwrap(), &[], false).unwrap();
    let logits = |precision: Precision| {
        let llama = Llama::load(&source, precision, &CPU).unwrap();
        let offsets = Offsets::from_lengths(&[reference.ids.len()]);
        values(&llama.logits(&llama.prefill_hidden_only(&reference.ids, &offsets).unwrap()).unwrap())
    };
    let whole = logits(DType::F32.into());
    for (name, quantize) in [("nf4", Quantize::Nf4), ("int8", Quantize::Int8)] {
        let Logits { shape: (rows, vocab), f32 } = &reference.logits[name];
        let expected: Vec<f32> = f32[(rows - 1) * vocab..].iter().map(|&bits| f32::from_bits(bits)).collect();
        let ours = logits(Precision::new(DType::F32, quantize));
        let apart =
            |one: &[f32], other: &[f32]| one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        let error = apart(&ours, &expected);
        crate::common::say(&format!(
            "{name}: logits within {error:.1e} of transformers' on bitsandbytes' weights, {:.1e} from those in f32",
            apart(&ours, &whole)
        ));
        assert!(error < 2e-5, "{name}: {error:e}");
        assert!(apart(&ours, &whole) > 1e-3, "{name}: nothing was quantised");
    }
}
