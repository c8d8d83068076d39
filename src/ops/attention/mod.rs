//! Causal grouped-query attention: `out = softmax(scale·q·kᵀ)·v`, never materialising the scores.
//!
//! Shapes: `q, out (tq, heads, d)`, `k, v (tk, kv_heads, d)`; query head `h` reads kv head `h / (heads / kv_heads)`.
//! Sequences are concatenated. Each sequence's queries are aligned with the END of its keys: query `i` sees keys
//! `0..=kv_len − q_len + i`, so a prefill may follow a cached prefix.
//!
//! On a CPU what is returned is f32. Of bf16 `q, k, v`, the products take bf16 (probabilities and the output's gradient
//! rounded to it) and sum in f32, where the CPU is faster so (`has_fast_bf16_pairs`); others widen them first. On CUDA
//! the products take bf16 always, and what is returned (but for the log-sum-exp, f32) has the type of `q`.

mod arithmetic;
mod backward;
mod blocks;
#[cfg(feature = "cuda")]
mod cuda;
mod decode;
mod forward;
mod pv;
mod score;
#[cfg(any(test, feature = "cuda"))]
mod shared;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Tensor};

#[cfg(feature = "cuda")]
pub(crate) use self::{cuda::BlockTable, shared::CHUNK};
use super::Offsets;
use super::cast::rounded;
use super::cpu::simd::has_fast_bf16_pairs;
use super::cpu::slice::{View, Weight, tensor};
use super::cuda::ATTENTION_BACKWARD;
use super::kv_store::{self, PagedBatch, PagedSequence};
use super::linear::pack::{AsF32, Bf16x2};
use crate::error::{Error, Result};

/// Dimensions of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims {
    pub heads: usize,
    pub kv_heads: usize,
    pub d: usize,
}

/// `(out, lse)`: `lse (heads, tq)`, f32, is each row's log-sum-exp of scaled scores, which backward needs.
pub fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    q_offsets: &Offsets,
    kv_offsets: &Offsets,
    scale: f32,
) -> Result<(Tensor, Tensor)> {
    let dims = check(q, k, v, q_offsets, kv_offsets)?;
    #[cfg(feature = "cuda")]
    if q.device().is_cuda() {
        return cuda::forward([q, k, v], dims, [q_offsets, kv_offsets], scale);
    }
    let tq = q_offsets.total();
    let q = operand(q)?;
    let k = operand(k)?;
    let v = operand(v)?;
    let q = View::of(&q)?;
    let k = View::of(&k)?;
    let v = View::of(&v)?;
    let (out, lse) = match [q.weight()?, k.weight()?, v.weight()?] {
        [Weight::F32(q), Weight::F32(k), Weight::F32(v)] => {
            forward::forward::<AsF32<f32>>(q, k, v, dims, q_offsets, kv_offsets, scale)
        }
        [Weight::Bf16(q), Weight::Bf16(k), Weight::Bf16(v)] => {
            forward::forward::<Bf16x2>(q, k, v, dims, q_offsets, kv_offsets, scale)
        }
        _ => return Err(mixed()),
    };
    Ok((tensor(out, (tq, dims.heads, dims.d))?, tensor(lse, (dims.heads, tq))?))
}

/// Whether the device has both attention by wgmma and by mma.sync, as Hopper (9.0) has; `cuda.rs` says which is taken.
pub fn has_wgmma(device: &Device) -> Result<bool> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::has_wgmma(device);
    }
    let _ = device;
    Ok(false)
}

/// `(dq, dk, dv)`, for training: queries and keys share `offsets`; `out` and `lse` are what `forward` gave.
/// `dout` and the three have the type of `out`.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    dout: &Tensor,
    offsets: &Offsets,
    scale: f32,
) -> Result<(Tensor, Tensor, Tensor)> {
    let dims = check(q, k, v, offsets, offsets)?;
    #[cfg(feature = "cuda")]
    if q.device().is_cuda() {
        return cuda::backward([q, k, v, out, lse, dout], dims, offsets, scale);
    }
    let t = offsets.total();
    let q = operand(q)?;
    let k = operand(k)?;
    let v = operand(v)?;
    let out = out.contiguous()?;
    let lse = lse.contiguous()?;
    let dout = dout.contiguous()?;
    let views = [View::of(&q)?, View::of(&k)?, View::of(&v)?, View::of(&out)?, View::of(&lse)?, View::of(&dout)?];
    let [q, k, v, out, lse, dout] = &views;
    let out = out.f32()?;
    let lse = lse.f32()?;
    let exact_dout = dout.f32()?;
    let (dq, dk, dv) = match [q.weight()?, k.weight()?, v.weight()?] {
        [Weight::F32(q), Weight::F32(k), Weight::F32(v)] => {
            let saved = backward::Saved { q, k, v, dout: exact_dout, out, lse, exact_dout };
            backward::backward::<AsF32<f32>>(&saved, dims, offsets, scale)
        }
        [Weight::Bf16(q), Weight::Bf16(k), Weight::Bf16(v)] => {
            let saved = backward::Saved { q, k, v, dout: &rounded(exact_dout), out, lse, exact_dout };
            backward::backward::<Bf16x2>(&saved, dims, offsets, scale)
        }
        _ => return Err(mixed()),
    };
    Ok((
        tensor(dq, (t, dims.heads, dims.d))?,
        tensor(dk, (t, dims.kv_heads, dims.d))?,
        tensor(dv, (t, dims.kv_heads, dims.d))?,
    ))
}

/// Side by side in memory, and of a type that this CPU multiplies.
fn operand(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    Ok(if x.dtype() == DType::BF16 && !has_fast_bf16_pairs() { x.to_dtype(DType::F32)? } else { x })
}

/// Bytes a token of the f32 sums of dq that CUDA's backward in one pass keeps beside its operands and results; 0 where
/// it goes twice. What is the same for both (a number a row, padding of narrow heads) is not counted.
pub fn backward_scratch(heads: usize, d: usize) -> u64 {
    if ATTENTION_BACKWARD.takes_first() { sums_of_dq(heads, d) } else { 0 }
}

fn sums_of_dq(heads: usize, d: usize) -> u64 {
    (heads * kv_store::kernel_width(d).unwrap_or(d) * size_of::<f32>()) as u64
}

fn mixed() -> Error {
    Error::run("attention: queries, keys and values must all be f32 or all be bf16")
}

/// Attention of one new token a row over all that the rows' blocks hold: made once a step, used in every layer.
#[derive(Debug)]
pub struct Decoding<'a> {
    step: &'a PagedBatch<'a>,
    /// Query heads.
    heads: usize,
    backend: DecodeBackend<'a>,
}

/// What is the same in every layer.
#[derive(Debug)]
enum DecodeBackend<'a> {
    Host(decode::KvSplitPlan<'a>),
    #[cfg(feature = "cuda")]
    Cuda(cuda::BlockTable),
}

impl<'a> Decoding<'a> {
    /// Of `heads` query heads over the sequences of this step.
    pub fn new(step: &'a PagedBatch<'a>, heads: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if step.device().is_cuda() {
            return Ok(Self { step, heads, backend: DecodeBackend::Cuda(cuda::BlockTable::new(step, heads)?) });
        }
        Ok(Self { step, heads, backend: DecodeBackend::Host(decode::KvSplitPlan::new(step.rows())) })
    }

    /// The same with a block table whose contents are written before each launch (CUDA graphs).
    #[cfg(feature = "cuda")]
    pub(crate) fn placed(step: &'a PagedBatch<'a>, heads: usize, table: BlockTable) -> Self {
        Self { step, heads, backend: DecodeBackend::Cuda(table) }
    }

    /// `q (rows, heads, d)` f32 (on CUDA bf16 too) → as much, f32 (on CUDA of the queries' type). On a CPU keys and
    /// values in bf16 are widened as they are read: products and sums are f32.
    pub fn attend(&self, q: &Tensor, layer: usize, scale: f32) -> Result<Tensor> {
        let (rows, heads, d) = q.dims3()?;
        let layout = self.step.layout();
        let dims = Dims { heads, kv_heads: layout.kv_heads, d };
        let fits = (rows, heads) == (self.step.rows().len(), self.heads)
            && heads % layout.kv_heads == 0
            && layer < layout.layers;
        if !fits || kv_store::width(d, self.step.device()) != layout.width {
            return Err(Error::run(format!(
                "attention: queries {:?} in layer {layer} of blocks of {layout:?}",
                q.dims()
            )));
        }
        match &self.backend {
            DecodeBackend::Host(plan) => {
                let views = plan.blocks.iter().map(|block| View::of(block)).collect::<Result<Vec<_>>>()?;
                let at = layout.layer(layer);
                let mut keys = Vec::with_capacity(views.len());
                for view in &views {
                    let block = view.weight()?;
                    keys.push([block.from(at), block.from(at + layout.half())]);
                }
                let q = q.contiguous()?;
                let q = View::of(&q)?;
                tensor(decode::decode(q.f32()?, &keys, plan, dims, scale), (rows, heads, d))
            }
            #[cfg(feature = "cuda")]
            DecodeBackend::Cuda(table) => cuda::decode(q, table, dims, layout, layer, scale),
        }
    }
}

/// [`Decoding`] of one layer, whose blocks hold no other.
pub fn decode(q: &Tensor, rows: Vec<PagedSequence<'_>>, scale: f32) -> Result<Tensor> {
    Decoding::new(&PagedBatch::new(rows)?, q.dim(1)?)?.attend(q, 0, scale)
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor, q_offsets: &Offsets, kv_offsets: &Offsets) -> Result<Dims> {
    let (tq, heads, d) = q.dims3()?;
    let (tk, kv_heads, d_k) = k.dims3()?;
    let fits = d == d_k
        && v.dims() == k.dims()
        && kv_heads > 0
        && heads % kv_heads == 0
        && (tq, tk) == (q_offsets.total(), kv_offsets.total())
        && q_offsets.count() == kv_offsets.count()
        && q_offsets.ranges().zip(kv_offsets.ranges()).all(|(q, kv)| q.len() <= kv.len());
    if !fits {
        return Err(Error::run(format!(
            "attention: queries {:?}, keys {:?}, values {:?} do not fit their offsets",
            q.dims(),
            k.dims(),
            v.dims()
        )));
    }
    Ok(Dims { heads, kv_heads, d })
}
