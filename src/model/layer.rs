//! One decoder layer, forward and backward.
//!
//! ```text
//! n₁ = norm₁(x)    q, k, v = rope(W_q n₁), rope(W_k n₁), W_v n₁    a = attention(q, k, v)    m = x + W_o a
//! n₂ = norm₂(m)    y = m + W_down (silu(W_gate n₂) ⊙ W_up n₂)
//! ```
//!
//! Kept for backward: x, q, k, v, a, log-sum-exp, m, gate, up, each norm's 1/rms and each adapter's A x. The norms'
//! outputs and the MLP's product cost little to compute again and are. With a frozen base a projection costs one
//! product (dx), not two.

mod infer;

use candle_core::{DType, Tensor};

use super::{
    Gradients, accumulate,
    projection::{GradInput, LayerPass, Projection},
    read_rows::ReadRows,
};
use crate::{
    config::Parameters,
    error::Result,
    ops::{add, attention, cast::to_bf16, rms_norm, rope::Rope, swiglu},
};

/// An RMSNorm's weight and its HF name.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    pub name: String,
    pub weight: Tensor,
    pub eps: f64,
}

impl Norm {
    /// `(y, 1/rms)`.
    pub fn forward(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        rms_norm::forward(x, &self.weight, self.eps)
    }

    /// A residual connection and the norm of it: `(a + b, y, 1/rms)`.
    pub fn add_forward(&self, a: Tensor, b: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        rms_norm::add_forward(a, b, &self.weight, self.eps)
    }

    /// dx; adds the weight's gradient when the base is trained.
    pub fn backward(
        &self,
        x: &Tensor,
        rstd: &Tensor,
        dy: &Tensor,
        pass: &LayerPass,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        self.weight_gradient(x, rstd, dy, pass, gradients)?;
        rms_norm::backward(x, &self.weight, rstd, dy)
    }

    /// As [`Norm::backward`], plus `residual`: the gradient that goes past the norm.
    pub fn backward_add(
        &self,
        [x, rstd]: [&Tensor; 2],
        dy: &Tensor,
        residual: &Tensor,
        pass: &LayerPass,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        self.weight_gradient(x, rstd, dy, pass, gradients)?;
        rms_norm::backward_add(x, &self.weight, rstd, dy, residual)
    }

    /// A sequence at a time, so that the sum does not depend on how records are batched.
    fn weight_gradient(
        &self,
        x: &Tensor,
        rstd: &Tensor,
        dy: &Tensor,
        pass: &LayerPass,
        gradients: &mut Gradients,
    ) -> Result<()> {
        if pass.trains == Parameters::Full {
            for range in pass.offsets.ranges().filter(|range| !range.is_empty()) {
                let rows = |t: &Tensor| t.narrow(0, range.start, range.len());
                accumulate(gradients, &self.name, rms_norm::backward_weight(&rows(x)?, &rows(rstd)?, &rows(dy)?)?)?;
            }
        }
        Ok(())
    }
}

/// Shape of attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// `1/√head_dim`.
    pub fn scale(&self) -> f32 {
        (1.0 / (self.head_dim as f64).sqrt()) as f32
    }

    fn split(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        Ok(x.reshape((x.dim(0)?, heads, self.head_dim))?)
    }
}

fn merge(x: &Tensor) -> Result<Tensor> {
    let (tokens, heads, head_dim) = x.dims3()?;
    Ok(x.reshape((tokens, heads * head_dim))?)
}

/// One layer's weights.
#[derive(Debug, Clone)]
pub(super) struct DecoderLayer {
    pub heads: Heads,
    pub input_layernorm: Norm,
    pub q_proj: Projection,
    pub k_proj: Projection,
    pub v_proj: Projection,
    pub o_proj: Projection,
    pub post_attention_layernorm: Norm,
    pub gate_proj: Projection,
    pub up_proj: Projection,
    pub down_proj: Projection,
}

/// The activations that backward needs. Of the last layer, only the rows whose hidden states a head reads
/// (`LayerPass::read`) go beyond k and v: x, `rstd1`, k and v hold every row, the others those rows alone, until
/// [`SavedActivations::scatter`] puts q, attention's output and its log-sum-exps back among the others.
#[derive(Debug)]
pub(super) struct SavedActivations {
    x: Tensor,
    rstd1: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Tensor,
    lse: Tensor,
    middle: Tensor,
    rstd2: Tensor,
    gate: Tensor,
    up: Tensor,
    low_rank: LowRank,
}

/// `u = scaling · A x (tokens, rank)` of each adapter. down_proj's is computed again in backward: its product is not
/// part of [`DecoderLayer::forward_saving`].
#[derive(Debug)]
struct LowRank {
    q: Option<Tensor>,
    k: Option<Tensor>,
    v: Option<Tensor>,
    o: Option<Tensor>,
    gate: Option<Tensor>,
    up: Option<Tensor>,
}

impl SavedActivations {
    /// The layer's input.
    pub fn input(&self) -> &Tensor {
        &self.x
    }

    /// q, attention's output and its log-sum-exps as tensors of every row, for attention's and q_proj's backward. A row
    /// that no head reads holds 0 there: the gradient that comes down to it is 0, so its value does not matter.
    fn scatter(self, read: &ReadRows) -> Result<Self> {
        let Self { q, attended, lse, mut low_rank, .. } = self;
        low_rank.q = low_rank.q.map(|u| read.scatter(&u)).transpose()?;
        low_rank.o = low_rank.o.map(|u| read.scatter(&u)).transpose()?;
        let q = read.scatter(&q)?;
        let attended = read.scatter(&attended)?;
        let lse = read.scatter(&lse.t()?)?.t()?;
        Ok(Self { q, attended, lse, low_rank, ..self })
    }

    /// Everything held.
    #[cfg(test)]
    pub fn tensors(&self) -> Vec<&Tensor> {
        let Self { x, rstd1, q, k, v, attended, lse, middle, rstd2, gate, up, low_rank } = self;
        let LowRank { q: u_q, k: u_k, v: u_v, o: u_o, gate: u_gate, up: u_up } = low_rank;
        let adapters = [u_q, u_k, u_v, u_o, u_gate, u_up].into_iter().flatten();
        [x, rstd1, q, k, v, attended, lse, middle, rstd2, gate, up].into_iter().chain(adapters).collect()
    }
}

impl DecoderLayer {
    /// The seven projections, in order.
    pub fn projections(&self) -> [&Projection; 7] {
        [&self.q_proj, &self.k_proj, &self.v_proj, &self.o_proj, &self.gate_proj, &self.up_proj, &self.down_proj]
    }

    /// As [`DecoderLayer::projections`], to change.
    pub fn projections_mut(&mut self) -> [&mut Projection; 7] {
        [
            &mut self.q_proj,
            &mut self.k_proj,
            &mut self.v_proj,
            &mut self.o_proj,
            &mut self.gate_proj,
            &mut self.up_proj,
            &mut self.down_proj,
        ]
    }

    /// The projections by their input: those of each, in order.
    pub fn by_input_mut(&mut self) -> [Vec<&mut Projection>; 4] {
        [
            vec![&mut self.q_proj, &mut self.k_proj, &mut self.v_proj],
            vec![&mut self.o_proj],
            vec![&mut self.gate_proj, &mut self.up_proj],
            vec![&mut self.down_proj],
        ]
    }

    /// Whether a pass trains anything of the MLP.
    pub fn mlp_trains(&self, trains: Parameters) -> bool {
        [&self.gate_proj, &self.up_proj, &self.down_proj].iter().any(|projection| projection.trains(trains))
    }

    /// Training forward up to, and without, down_proj: `x (tokens, hidden)` → what backward needs. Where `pass.read`
    /// names rows, q and all that follows attention is computed for these alone.
    pub fn forward_saving(&self, x: &Tensor, rope: &Rope, pass: &LayerPass) -> Result<SavedActivations> {
        let Heads { heads, kv_heads, .. } = self.heads;
        let (normed, rstd1) = self.input_layernorm.forward(x)?;
        let of_read = &pass.of_read();
        let [(q, u_q), (k, u_k), (v, u_v)] = match pass.read {
            None => Projection::forward_each([&self.q_proj, &self.k_proj, &self.v_proj], &normed, pass)?,
            Some(read) => {
                let q = self.q_proj.forward(&read.gather(&normed)?, of_read)?;
                let [k, v] = Projection::forward_each([&self.k_proj, &self.v_proj], &normed, pass)?;
                [q, k, v]
            }
        };
        drop(normed);
        let q = self.heads.split(&q, heads)?;
        let k = self.heads.split(&k, kv_heads)?;
        let v = self.heads.split(&v, kv_heads)?;
        let [q, k] = match pass.read {
            None => rope.forward_both(&q, &k, pass.positions)?,
            Some(_) => [rope.forward(&q, of_read.positions)?, rope.forward(&k, pass.positions)?],
        };
        let [q, k, v] = self.as_weights([&q, &k, &v])?;
        let (attended, lse) = attention::forward(&q, &k, &v, of_read.offsets, pass.offsets, self.heads.scale())?;
        let (projected, u_o) = self.o_proj.forward(&merge(&attended)?, of_read)?;
        let residual = pass.read.map_or_else(|| Ok(x.clone()), |read| read.gather(x))?;
        let (middle, normed, rstd2) = self.post_attention_layernorm.add_forward(projected, &residual)?;
        let [(gate, u_gate), (up, u_up)] =
            Projection::forward_each([&self.gate_proj, &self.up_proj], &normed, of_read)?;
        let low_rank = LowRank { q: u_q, k: u_k, v: u_v, o: u_o, gate: u_gate, up: u_up };
        Ok(SavedActivations { x: x.clone(), rstd1, q, k, v, attended, lse, middle, rstd2, gate, up, low_rank })
    }

    /// The layer's output of the rows that are read, from what [`DecoderLayer::forward_saving`] gave.
    pub fn output(&self, kept: &SavedActivations, pass: &LayerPass) -> Result<Tensor> {
        add(self.down_proj.forward(&swiglu::forward(&kept.gate, &kept.up)?, &pass.of_read())?.0, &kept.middle)
    }

    /// From `dy (rows read, hidden)`, adds the layer's gradients; gives dx `(tokens, hidden)` when `need_dx` (the first
    /// layer's is wanted only with the embedding trained).
    pub fn backward(
        &self,
        kept: SavedActivations,
        dy: &Tensor,
        rope: &Rope,
        pass: &LayerPass,
        need_dx: bool,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let trains = |projection: &Projection| projection.trains(pass.trains);
        let attention_trains = [&self.q_proj, &self.k_proj, &self.v_proj].into_iter().any(trains);
        let need_dmiddle = need_dx || attention_trains || trains(&self.o_proj);
        if !need_dmiddle && !self.mlp_trains(pass.trains) {
            return Ok(None);
        }
        let Some(dmiddle) = self.mlp_backward(&kept, dy, &pass.of_read(), need_dmiddle, gradients)? else {
            return Ok(None);
        };
        let (kept, dmiddle) = match pass.read {
            Some(read) => (kept.scatter(read)?, read.scatter(&dmiddle)?),
            None => (kept, dmiddle),
        };
        let attended = merge(&kept.attended)?;
        let need_dattended = need_dx || attention_trains;
        let Some(dattended) = self.o_proj.backward(
            Some(&attended),
            kept.low_rank.o.as_ref(),
            &dmiddle,
            pass,
            GradInput::write_if(need_dattended),
            gradients,
        )?
        else {
            return Ok(None);
        };
        let dattended = self.heads.split(&dattended, self.heads.heads)?;
        let Some(dnormed) = self.qkv_backward(&kept, &dattended, rope, pass, need_dx, gradients)? else {
            return Ok(None);
        };
        Ok(Some(self.input_layernorm.backward_add([&kept.x, &kept.rstd1], &dnormed, &dmiddle, pass, gradients)?))
    }

    /// From the layer's output back to `middle`, the stream between attention and the MLP.
    fn mlp_backward(
        &self,
        kept: &SavedActivations,
        dy: &Tensor,
        pass: &LayerPass,
        need_dmiddle: bool,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let SavedActivations { gate, up, middle, rstd2, low_rank, .. } = kept;
        let [gate_up, down] = [
            self.gate_proj.trains(pass.trains) || self.up_proj.trains(pass.trains),
            self.down_proj.trains(pass.trains),
        ];
        let product = if down { Some(swiglu::forward(gate, up)?) } else { None };
        let Some(dproduct) = self.down_proj.backward(
            product.as_ref(),
            None,
            dy,
            pass,
            GradInput::write_if(need_dmiddle || gate_up),
            gradients,
        )?
        else {
            return Ok(None);
        };
        drop(product);
        let (dgate, dup) = swiglu::backward(gate, up, &dproduct)?;
        let normed = if gate_up { Some(self.post_attention_layernorm.forward(middle)?.0) } else { None };
        let dnormed = Projection::backward_each(
            [(&self.gate_proj, low_rank.gate.as_ref(), &dgate), (&self.up_proj, low_rank.up.as_ref(), &dup)],
            normed.as_ref(),
            pass,
            GradInput::write_if(need_dmiddle),
            gradients,
        )?;
        let Some(dnormed) = dnormed else { return Ok(None) };
        Ok(Some(self.post_attention_layernorm.backward_add([middle, rstd2], &dnormed, dy, pass, gradients)?))
    }

    /// From attention's output back to the first norm's output.
    fn qkv_backward(
        &self,
        kept: &SavedActivations,
        dattended: &Tensor,
        rope: &Rope,
        pass: &LayerPass,
        need_dnormed: bool,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let SavedActivations { q, k, v, attended, lse, low_rank, .. } = kept;
        let (dq, dk, dv) = attention::backward(q, k, v, attended, lse, dattended, pass.offsets, self.heads.scale())?;
        let [dq, dk] = rope.backward_both(&dq, &dk, pass.positions)?;
        let dq = merge(&dq)?;
        let dk = merge(&dk)?;
        let dv = merge(&dv)?;
        let trained = [&self.q_proj, &self.k_proj, &self.v_proj].into_iter().any(|p| p.trains(pass.trains));
        let normed = if trained { Some(self.input_layernorm.forward(&kept.x)?.0) } else { None };
        // dq is 0 on rows that no head reads, which q_proj may leave out; dk and dv are not, and are added to all.
        let each = [
            (&self.q_proj, low_rank.q.as_ref(), &dq),
            (&self.k_proj, low_rank.k.as_ref(), &dk),
            (&self.v_proj, low_rank.v.as_ref(), &dv),
        ];
        Projection::backward_each(each, normed.as_ref(), pass, GradInput::write_if(need_dnormed), gradients)
    }

    /// q, k and v as attention multiplies them: rounded to bf16 where the weights are bf16, as the operands of the
    /// projections' products are.
    fn as_weights(&self, operands: [&Tensor; 3]) -> Result<[Tensor; 3]> {
        let [q, k, v] = operands;
        match self.q_proj.weight.dtype() {
            DType::BF16 => Ok([to_bf16(q)?, to_bf16(k)?, to_bf16(v)?]),
            _ => Ok([q.clone(), k.clone(), v.clone()]),
        }
    }
}
