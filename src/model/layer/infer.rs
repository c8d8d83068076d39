//! A layer without dropout, nothing kept for backward: prefill and decode.

use candle_core::Tensor;

use super::{DecoderLayer, Heads, merge};
use crate::{
    error::Result,
    model::projection::Projection,
    ops::{Indices, Offsets, add, attention, linear::Kernel, rope::Rope, swiglu},
};

impl DecoderLayer {
    /// q, k (both turned) and v of new rows, without dropout.
    pub fn infer_qkv(
        &self,
        x: &Tensor,
        rope: &Rope,
        positions: Indices<'_>,
        kernel: Kernel,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let Heads { heads, kv_heads, .. } = self.heads;
        let (normed, _) = self.input_layernorm.forward(x)?;
        let [q, k, v] = Projection::infer_each([&self.q_proj, &self.k_proj, &self.v_proj], &normed, kernel)?;
        let [q, k] = rope.forward_both(&self.heads.split(&q, heads)?, &self.heads.split(&k, kv_heads)?, positions)?;
        Ok((q, k, self.heads.split(&v, kv_heads)?))
    }

    /// As [`DecoderLayer::infer_qkv`] of a prefill, but q of these `rows` alone: `[q, k, v]`. Positions are those of
    /// q's rows, then of all.
    pub fn infer_qkv_of_rows(
        &self,
        x: &Tensor,
        rows: &Tensor,
        rope: &Rope,
        [positions, all_positions]: [&[u32]; 2],
    ) -> Result<[Tensor; 3]> {
        let Heads { heads, kv_heads, .. } = self.heads;
        let (normed, _) = self.input_layernorm.forward(x)?;
        let q = self.q_proj.infer(&normed.index_select(rows, 0)?, Kernel::Forward)?;
        let [k, v] = Projection::infer_each([&self.k_proj, &self.v_proj], &normed, Kernel::Forward)?;
        let q = rope.forward(&self.heads.split(&q, heads)?, positions)?;
        let k = rope.forward(&self.heads.split(&k, kv_heads)?, all_positions)?;
        Ok([q, k, self.heads.split(&v, kv_heads)?])
    }

    /// From attention's output to the layer's, without dropout.
    pub fn infer_rest(&self, x: &Tensor, attended: &Tensor, kernel: Kernel) -> Result<Tensor> {
        let (middle, normed, _) =
            self.post_attention_layernorm.add_forward(self.o_proj.infer(&merge(attended)?, kernel)?, x)?;
        let [gate, up] = Projection::infer_each([&self.gate_proj, &self.up_proj], &normed, kernel)?;
        add(self.down_proj.infer(&swiglu::forward(&gate, &up)?, kernel)?, &middle)
    }

    /// Attention of new rows over `k`, `v`, of which each sequence's last rows are its new ones.
    pub fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        q_offsets: &Offsets,
        kv_offsets: &Offsets,
    ) -> Result<Tensor> {
        let [q, k, v] = self.as_weights([q, k, v])?;
        Ok(attention::forward(&q, &k, &v, q_offsets, kv_offsets, self.heads.scale())?.0)
    }
}
