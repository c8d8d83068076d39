//! Attention in bf16 at the shapes and lengths where a GPU's tiles begin, end and are many, against this machine's CPU
//! in f32 (which has its own rows against f64). The sizes are beyond what a textbook formula does in a minute.

use candle_core::{DType, Device, Tensor};

use super::{Bench, numbers, reference::Heads};
use crate::{
    error::Result,
    ops::{
        Offsets, attention,
        cuda::{DECODE, Switch},
        kv_store::{BLOCK, PagedSequence, blocks_of},
    },
};

/// SmolLM2-135M's heads, and a quarter of Llama 3.1 8B's.
const NARROW: Heads = Heads { heads: 9, kv_heads: 3, d: 64 };
const WIDE: Heads = Heads { heads: 8, kv_heads: 2, d: 128 };

/// Name, heads, lengths.
type Case = (&'static str, Heads, &'static [usize]);
const SHORT: &[Case] = &[
    ("attention 64: 1", NARROW, &[1]),
    ("attention 64: 63", NARROW, &[63]),
    ("attention 64: 64", NARROW, &[64]),
    ("attention 64: 65", NARROW, &[65]),
    ("attention 64: 6 sequences", NARROW, &[65, 1, 200, 63, 128, 64]),
    ("attention 128: 1", WIDE, &[1]),
    ("attention 128: 63", WIDE, &[63]),
    ("attention 128: 64", WIDE, &[64]),
    ("attention 128: 65", WIDE, &[65]),
    ("attention 128: 6 sequences", WIDE, &[65, 1, 200, 63, 128, 64]),
];
const LONG: &[Case] = &[("attention 64: 7424", NARROW, &[7424]), ("attention 128: 7424", WIDE, &[7424])];

/// Probabilities and the output rounded to bf16; in backward the scores' gradients too. A plain computation in bf16
/// that rounds nothing else is 1.5e-3 and 3.4e-3 away.
const FORWARD: f64 = 3e-3;
const BACKWARD: f64 = 6e-3;
const LSE: f64 = 1e-5;

/// Every case of forward and backward on a GPU, but for the long ones.
pub(super) fn rows(bench: &mut Bench<'_>) -> Result<()> {
    for case in SHORT {
        training(bench, case, DType::BF16)?;
    }
    for (op, shape) in [("attention 64", NARROW), ("attention 128", WIDE)] {
        after_a_prefix(bench, op, shape)?;
    }
    Ok(())
}

/// The paper's longest sequences: minutes where the GPU is emulated.
pub(super) fn long(bench: &mut Bench<'_>) -> Result<()> {
    LONG.iter().try_for_each(|case| training(bench, case, DType::BF16))
}

/// Every case of decoding on a GPU.
pub(super) fn decoding_rows(bench: &mut Bench<'_>) -> Result<()> {
    for (op, shape) in [("attention 64", NARROW), ("attention 128", WIDE)] {
        decoding(bench, op, shape, DType::BF16)?;
        samples(bench, op, shape, DType::BF16)?;
    }
    Ok(())
}

impl Bench<'_> {
    /// Normal numbers rounded to `dtype`: on the device, and on the CPU in f32.
    fn operand(&self, seed: u64, dims: [usize; 3], dtype: DType) -> Result<(Tensor, Tensor)> {
        let (x, _) = self.random_as(seed, &dims, dtype)?;
        let wide = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok((x, wide))
    }

    /// Two tensors, and again the same two: not a bit may differ.
    pub(super) fn again(&mut self, op: &'static str, once: &[&Tensor], twice: &[&Tensor]) -> Result<()> {
        let all = |tensors: &[&Tensor]| -> Result<Vec<f64>> {
            Ok(tensors.iter().map(|x| numbers(x)).collect::<Result<Vec<_>>>()?.concat())
        };
        self.compare(op, "again", &[], &all(twice)?, &all(once)?, 0.0);
        Ok(())
    }
}

/// Forward and backward, as in training.
fn training(bench: &mut Bench<'_>, &(op, shape, lengths): &Case, dtype: DType) -> Result<()> {
    let Heads { heads, kv_heads, d } = shape;
    let offsets = Offsets::from_lengths(lengths);
    let scale = 1.0 / (d as f32).sqrt();
    let t = offsets.total();
    let (q, q32) = bench.operand(13, [t, heads, d], dtype)?;
    let (k, k32) = bench.operand(14, [t, kv_heads, d], dtype)?;
    let (v, v32) = bench.operand(15, [t, kv_heads, d], dtype)?;
    let (dout, dout32) = bench.operand(16, [t, heads, d], dtype)?;
    let forward = || attention::forward(&q, &k, &v, &offsets, &offsets, scale);
    let (out32, lse32) = attention::forward(&q32, &k32, &v32, &offsets, &offsets, scale)?;
    let (out, lse) = forward()?;
    bench.check(op, "forward", &out, &numbers(&out32)?, FORWARD)?;
    bench.check(op, "log-sum-exp", &lse, &numbers(&lse32)?, LSE)?;

    let dout = if q.device().is_cpu() { dout32.clone() } else { dout };
    let backward = || attention::backward(&q, &k, &v, &out, &lse, &dout, &offsets, scale);
    let (dq32, dk32, dv32) = attention::backward(&q32, &k32, &v32, &out32, &lse32, &dout32, &offsets, scale)?;
    let (dq, dk, dv) = backward()?;
    // Of a single token, the scores' gradient is 0: there is nothing to be relative to.
    if lengths.iter().any(|&length| length > 1) {
        bench.check(op, "backward q", &dq, &numbers(&dq32)?, BACKWARD)?;
        bench.check(op, "backward k", &dk, &numbers(&dk32)?, BACKWARD)?;
    }
    bench.check(op, "backward v", &dv, &numbers(&dv32)?, BACKWARD)?;

    let (out2, lse2) = forward()?;
    let (dq2, dk2, dv2) = backward()?;
    bench.again(op, &[&out, &lse, &dq, &dk, &dv], &[&out2, &lse2, &dq2, &dk2, &dv2])
}

/// Fewer queries than keys; and the prompt read in two parts has the bits of the prompt read at once.
fn after_a_prefix(bench: &mut Bench<'_>, op: &'static str, shape: Heads) -> Result<()> {
    let Heads { heads, kv_heads, d } = shape;
    let keys = Offsets::from_lengths(&[203, 64, 1, 70]);
    let queries = Offsets::from_lengths(&[130, 1, 1, 64]);
    let scale = 1.0 / (d as f32).sqrt();
    let (q, q32) = bench.operand(17, [queries.total(), heads, d], DType::BF16)?;
    let (k, k32) = bench.operand(18, [keys.total(), kv_heads, d], DType::BF16)?;
    let (v, v32) = bench.operand(19, [keys.total(), kv_heads, d], DType::BF16)?;
    let (out, _) = attention::forward(&q, &k, &v, &queries, &keys, scale)?;
    let (out32, _) = attention::forward(&q32, &k32, &v32, &queries, &keys, scale)?;
    bench.check(op, "after a prefix", &out, &numbers(&out32)?, FORWARD)?;

    let whole = Offsets::from_lengths(&[70]);
    let tail = Offsets::from_lengths(&[33]);
    let k = k.narrow(0, 0, 70)?;
    let v = v.narrow(0, 0, 70)?;
    let q = q.narrow(0, 0, 70)?;
    let (at_once, _) = attention::forward(&q, &k, &v, &whole, &whole, scale)?;
    let (part, _) = attention::forward(&q.narrow(0, 37, 33)?, &k, &v, &tail, &whole, scale)?;
    bench.again(op, &[&at_once.narrow(0, 37, 33)?], &[&part])
}

/// Rows that share a prefix's full blocks and have a tail of their own; and alone, with blocks of their own.
fn decoding(bench: &mut Bench<'_>, op: &'static str, shape: Heads, dtype: DType) -> Result<()> {
    let Heads { heads, kv_heads, d } = shape;
    let scale = 1.0 / (d as f32).sqrt();
    let (prefix_k, prefix_k32) = bench.operand(20, [700, kv_heads, d], dtype)?;
    let (prefix_v, prefix_v32) = bench.operand(21, [700, kv_heads, d], dtype)?;
    let (own_k, own_k32) = bench.operand(22, [80, kv_heads, d], dtype)?;
    let (own_v, own_v32) = bench.operand(23, [80, kv_heads, d], dtype)?;
    let lengths = [(700, 5), (700, 80), (0, 1), (0, 64), (63, 2), (256, 1), (511, 0)];
    let (q, q32) = bench.operand(24, [lengths.len(), heads, d], dtype)?;
    let shared = blocks_of(&prefix_k, &prefix_v)?;
    let none = [];
    let rows = lengths
        .iter()
        .map(|&n| blocks(n, [&prefix_k, &own_k], [&prefix_v, &own_v], &shared))
        .collect::<Result<Vec<_>>>()?;
    let rows32 = lengths
        .iter()
        .map(|&n| blocks(n, [&prefix_k32, &own_k32], [&prefix_v32, &own_v32], &none))
        .collect::<Result<Vec<_>>>()?;
    let out = attention::decode(&q, table(&rows), scale)?;
    bench.check(op, "decode", &out, &numbers(&attention::decode(&q32, table(&rows32), scale)?)?, FORWARD)?;
    for (i, &n) in lengths.iter().enumerate() {
        let own = [blocks(n, [&prefix_k, &own_k], [&prefix_v, &own_v], &none)?];
        let alone = attention::decode(&q.narrow(0, i, 1)?, table(&own), scale)?;
        bench.again(op, &[&out.narrow(0, i, 1)?], &[&alone])?;
    }
    Ok(())
}

/// Samples of one prompt, more than the shared kernel takes together, of several lengths; and by the other kernel.
fn samples(bench: &mut Bench<'_>, op: &'static str, shape: Heads, dtype: DType) -> Result<()> {
    let Heads { heads, kv_heads, d } = shape;
    let scale = 1.0 / (d as f32).sqrt();
    let [(k, k32), (v, v32)] =
        [bench.operand(25, [600, kv_heads, d], dtype)?, bench.operand(26, [600, kv_heads, d], dtype)?];
    let [(own_k, own_k32), (own_v, own_v32)] =
        [bench.operand(27, [330, kv_heads, d], dtype)?, bench.operand(28, [330, kv_heads, d], dtype)?];
    // 8 blocks, two chunks, and a half that each row has for itself; the last has one chunk more.
    let lengths: Vec<_> = (0..19).map(|i| (600, 1 + 3 * i)).chain([(512, 1), (600, 330)]).collect();
    let (q, q32) = bench.operand(29, [lengths.len(), heads, d], dtype)?;
    let held = |prefix: [&Tensor; 2], own: [&Tensor; 2]| -> Result<Vec<OwnedSequence>> {
        let shared = blocks_of(prefix[0], prefix[1])?;
        lengths.iter().map(|&n| blocks(n, [prefix[0], own[0]], [prefix[1], own[1]], &shared)).collect()
    };
    let rows = held([&k, &v], [&own_k, &own_v])?;
    let out = attention::decode(&q, table(&rows), scale)?;
    let expected = attention::decode(&q32, table(&held([&k32, &v32], [&own_k32, &own_v32])?), scale)?;
    bench.check(op, "decode, samples", &out, &numbers(&expected)?, FORWARD)?;
    let other = Switch::turned(&[&DECODE], || attention::decode(&q, table(&rows), scale))?;
    bench.again(op, &[&out], &[&other])
}

/// A sequence's blocks and its length.
pub(super) type OwnedSequence = (Vec<Tensor>, usize);

/// `prefix` tokens of the first of `k` and `v`, then `own` of the second; what `shared` holds of the prefix is taken
/// from there.
pub(super) fn blocks(
    (prefix, own): (usize, usize),
    k: [&Tensor; 2],
    v: [&Tensor; 2],
    shared: &[Tensor],
) -> Result<OwnedSequence> {
    let full = shared.len().min(prefix / BLOCK);
    let tail = |x: [&Tensor; 2]| -> Result<Tensor> {
        let parts =
            [(x[0], full * BLOCK, prefix - full * BLOCK), (x[1], 0, own)].into_iter().filter(|(_, _, n)| *n > 0);
        Ok(Tensor::cat(&parts.map(|(x, first, n)| Ok(x.narrow(0, first, n)?)).collect::<Result<Vec<_>>>()?, 0)?)
    };
    Ok((shared[..full].iter().cloned().chain(blocks_of(&tail(k)?, &tail(v)?)?).collect(), prefix + own))
}

pub(super) fn table(rows: &[OwnedSequence]) -> Vec<PagedSequence<'_>> {
    rows.iter().map(|(blocks, len)| PagedSequence { blocks: blocks.iter().collect(), len: *len, new: 0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same cases, on the CPU's own bf16: the table is right before a GPU sees it.
    #[test]
    fn the_cases_hold_on_the_cpu() {
        let mut bench = Bench::new(&Device::Cpu, &[]);
        for case in SHORT {
            training(&mut bench, case, DType::BF16).unwrap();
        }
        after_a_prefix(&mut bench, "attention 64", NARROW).unwrap();
        decoding(&mut bench, "attention 64", NARROW, DType::F32).unwrap();
        samples(&mut bench, "attention 64", NARROW, DType::F32).unwrap();
        let missed: Vec<_> = bench.rows.iter().filter(|row| !row.ok()).collect();
        assert!(missed.is_empty(), "{missed:?}");
    }
}
