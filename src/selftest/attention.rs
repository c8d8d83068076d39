//! Ops that know positions: RoPE and attention.

use candle_core::DType;

use super::{
    BF16, Bench, F32, attention_bf16,
    reference::{self, Heads},
    some_of,
};
use crate::{
    error::Result,
    ops::{
        Offsets, attention as att,
        rope::{Rope, RopeParameters, RopeScaling},
    },
};

const SHAPE: Heads = Heads { heads: 4, kv_heads: 2, d: 16 };

pub(super) fn rope(bench: &mut Bench<'_>) -> Result<()> {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64,
    };
    let cases =
        [("rope", RopeScaling::None), ("rope, linear", RopeScaling::Linear { factor: 4.0 }), ("rope, llama3", llama3)];
    let positions: Vec<u32> = (0..23).chain(0..9).chain([200, 201]).collect();
    for (op, scaling) in cases {
        let rope = Rope::new(RopeParameters { theta: 10_000.0, scaling }, SHAPE.d)?;
        let frequencies: Vec<f64> = (0..SHAPE.d / 2).map(|i| frequency(i, scaling)).collect();
        let dims = [positions.len(), SHAPE.heads, SHAPE.d];
        let (x, x64) = bench.random(11, &dims)?;
        let (dy, dy64) = bench.random(12, &dims)?;
        let turned = |x: &[f64]| reference::rope(x, &positions, SHAPE.heads, &frequencies);
        // Angles are f32 by HF's definition: at position 200 that alone is 1e-5 of a turn.
        bench.check(op, "forward", &rope.forward(&x, &positions)?, &turned(&x64), 1e-5)?;
        let back: Vec<f64> = frequencies.iter().map(|f| -f).collect();
        let expected = reference::rope(&dy64, &positions, SHAPE.heads, &back);
        bench.check(op, "backward", &rope.backward(&dy, &positions)?, &expected, 1e-5)?;
    }
    Ok(())
}

/// HF's inverse frequency of channel `i`.
fn frequency(i: usize, scaling: RopeScaling) -> f64 {
    let plain = 10_000f64.powf(-(2.0 * i as f64) / SHAPE.d as f64);
    match scaling {
        RopeScaling::None => plain,
        RopeScaling::Linear { factor } => plain / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let context = original_max_position_embeddings as f64;
            let wavelength = std::f64::consts::TAU / plain;
            if wavelength < context / high_freq_factor {
                plain
            } else if wavelength > context / low_freq_factor {
                plain / factor
            } else {
                let smooth = (context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * plain / factor + smooth * plain
            }
        }
    }
}

/// The reference over concatenated sequences.
fn sequences(q: &[f64], k: &[f64], v: &[f64], q_offsets: &Offsets, kv_offsets: &Offsets, scale: f64) -> Vec<f64> {
    let row = SHAPE.heads * SHAPE.d;
    let kv_row = SHAPE.kv_heads * SHAPE.d;
    let each = q_offsets.ranges().zip(kv_offsets.ranges());
    each.flat_map(|(a, b)| {
        let keys = b.start * kv_row..b.end * kv_row;
        reference::attention(&q[a.start * row..a.end * row], &k[keys.clone()], &v[keys], SHAPE, scale)
    })
    .collect()
}

/// f32 operands, and bf16 ones: probabilities and the output's gradient are rounded to bf16 too. A GPU has bf16 alone,
/// and cases of its own.
pub(super) fn attention(bench: &mut Bench<'_>) -> Result<()> {
    if bench.device.is_cuda() {
        return attention_bf16::rows(bench);
    }
    passes(bench, "attention", DType::F32, F32)?;
    passes(bench, "attention, bf16", DType::BF16, BF16)?;
    after_a_prefix(bench)
}

fn passes(bench: &mut Bench<'_>, op: &'static str, dtype: DType, bound: f64) -> Result<()> {
    let Heads { heads, kv_heads, d } = SHAPE;
    let scale = 1.0 / (d as f32).sqrt();
    let scale64 = f64::from(scale);
    // Longer than a block of rows, a single token, and one in between.
    let offsets = Offsets::from_lengths(&[75, 1, 20]);
    let t = offsets.total();
    let operand = |bench: &Bench<'_>, seed, heads| bench.random_as(seed, &[t, heads, d], dtype);
    let (q, q64) = operand(bench, 13, heads)?;
    let (k, k64) = operand(bench, 14, kv_heads)?;
    let (v, v64) = operand(bench, 15, kv_heads)?;
    let (dout, dout64) = bench.random(16, &[t, heads, d])?;
    let (out, lse) = att::forward(&q, &k, &v, &offsets, &offsets, scale)?;
    bench.check(op, "forward", &out, &sequences(&q64, &k64, &v64, &offsets, &offsets, scale64), bound)?;
    let (dq, dk, dv) = att::backward(&q, &k, &v, &out, &lse, &dout, &offsets, scale)?;
    let at = some_of(q64.len(), 40);
    let expected = reference::gradient(&q64, &at, &dout64, |q| sequences(q, &k64, &v64, &offsets, &offsets, scale64));
    bench.check_at(op, "backward q", &dq, &at, &expected, bound)?;
    let at = some_of(k64.len(), 40);
    let expected = reference::gradient(&k64, &at, &dout64, |k| sequences(&q64, k, &v64, &offsets, &offsets, scale64));
    bench.check_at(op, "backward k", &dk, &at, &expected, bound)?;
    let expected = reference::gradient(&v64, &at, &dout64, |v| sequences(&q64, &k64, v, &offsets, &offsets, scale64));
    bench.check_at(op, "backward v", &dv, &at, &expected, bound)
}

/// A prefill that follows a cached prefix: fewer queries than keys.
fn after_a_prefix(bench: &mut Bench<'_>) -> Result<()> {
    let Heads { heads, kv_heads, d } = SHAPE;
    let scale = 1.0 / (d as f32).sqrt();
    let offsets = Offsets::from_lengths(&[75, 1, 20]);
    let queries = Offsets::from_lengths(&[9, 1, 20]);
    let (k, k64) = bench.random(14, &[offsets.total(), kv_heads, d])?;
    let (v, v64) = bench.random(15, &[offsets.total(), kv_heads, d])?;
    let (q, q64) = bench.random(17, &[queries.total(), heads, d])?;
    let (out, _) = att::forward(&q, &k, &v, &queries, &offsets, scale)?;
    let expected = sequences(&q64, &k64, &v64, &queries, &offsets, f64::from(scale));
    bench.check("attention, after a prefix", "forward", &out, &expected, F32)
}

pub(super) fn decode(bench: &mut Bench<'_>) -> Result<()> {
    if bench.device.is_cuda() {
        return attention_bf16::decoding_rows(bench);
    }
    let Heads { heads, kv_heads, d } = SHAPE;
    let scale = 1.0 / (d as f32).sqrt();
    let (q, q64) = bench.random(18, &[2, heads, d])?;
    let (prefix_k, prefix_k64) = bench.random(19, &[70, kv_heads, d])?;
    let (prefix_v, prefix_v64) = bench.random(20, &[70, kv_heads, d])?;
    let (own_k, own_k64) = bench.random(21, &[16, kv_heads, d])?;
    let (own_v, own_v64) = bench.random(22, &[16, kv_heads, d])?;
    // What two rows have read, each behind a part of the same prompt.
    let rows = [(70, 5), (33, 11)];
    let held = rows.map(|row| attention_bf16::blocks(row, [&prefix_k, &own_k], [&prefix_v, &own_v], &[]));
    let held = held.into_iter().collect::<Result<Vec<_>>>()?;
    let out = att::decode(&q, attention_bf16::table(&held), scale)?;
    let kv_row = kv_heads * d;
    let expected: Vec<f64> = rows
        .iter()
        .enumerate()
        .flat_map(|(i, &(shared, own))| {
            let join = |a: &[f64], b: &[f64]| [&a[..shared * kv_row], &b[..own * kv_row]].concat();
            let query = &q64[i * heads * d..(i + 1) * heads * d];
            reference::attention(
                query,
                &join(&prefix_k64, &own_k64),
                &join(&prefix_v64, &own_v64),
                SHAPE,
                f64::from(scale),
            )
        })
        .collect();
    bench.check("attention", "decode", &out, &expected, F32)
}
