//! Sampling: on any device the ids are those that the CPU's rule gives for the same logits.

use candle_core::{DType, Device, Tensor};

use super::{Bench, normals};
use crate::{
    error::Result,
    ops::sample::{Draw, Rows, Sampling, choose},
};

pub(super) fn sample(bench: &mut Bench<'_>) -> Result<()> {
    // Neither is a multiple of a part; a nucleus fits in the kernel's list, and does not.
    for (vocab, dtype) in [(1003, DType::F32), (49_153, DType::F32), (128_256, DType::BF16)] {
        for (name, temperature, top_p) in [
            ("sample, greedy", 0.0, 1.0),
            ("sample", 1.3, 1.0),
            ("sample, top_p 0.5", 0.3, 0.5),
            ("sample, top_p 0.95", 2.0, 0.95),
        ] {
            check(bench, name, vocab, dtype, Sampling { temperature, top_p, seed: 7 })?;
        }
    }
    Ok(())
}

fn check(bench: &mut Bench<'_>, name: &'static str, vocab: usize, dtype: DType, sampling: Sampling) -> Result<()> {
    let rows = 24;
    // Of a few values each, so that there are ties; sharp enough for a nucleus. Halves are exact in bf16.
    let logits: Vec<f32> = normals(60, rows * vocab).iter().map(|x| (4.0 * x).round() * 0.5).collect();
    let on_host: Vec<&[f32]> = logits.chunks(vocab).collect();
    let on_device =
        Tensor::from_slice(&logits, (rows, vocab), &Device::Cpu)?.to_dtype(dtype)?.to_device(bench.device)?;
    let draws: Vec<Draw> = (0..rows as u64).map(|row| Draw { sampling, step: row * row, position: row }).collect();
    let id = |id: Option<u32>| id.map_or(f64::NAN, f64::from);
    let expected: Vec<f64> = on_host.iter().zip(&draws).map(|(row, draw)| id(choose(row, None, draw))).collect();
    let chosen = Rows::new(on_device, draws)?
        .all()
        .iter()
        .map(|row| Ok(f64::from(row.choose()?)))
        .collect::<Result<Vec<f64>>>()?;
    let wrong = chosen.iter().zip(&expected).filter(|(ours, cpu)| ours != cpu).count();
    bench.push(name, dtype.as_str(), &[rows, vocab], wrong as f64 / rows as f64, 0.0);
    Ok(())
}
