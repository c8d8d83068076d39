//! SwiGLU's gate: `act = silu(gate) ⊙ up`, `silu(g) = g·σ(g)`. All shapes alike.

use candle_core::Tensor;
use rayon::prelude::*;

use super::slice::{View, tensor};
use crate::error::Result;

const BLOCK: usize = 4096;

/// `silu(gate) ⊙ up`.
pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let shape = gate.shape().clone();
    let (gate, up) = (gate.contiguous()?, up.contiguous()?);
    let (gate, up) = (View::of(&gate)?, View::of(&up)?);
    let (gate, up) = (gate.f32()?, up.f32()?);
    let mut act = vec![0.0; gate.len()];
    act.par_chunks_mut(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK)).for_each(|((act, gate), up)| {
        for ((act, g), u) in act.iter_mut().zip(gate).zip(up) {
            *act = g / (1.0 + (-g).exp()) * u;
        }
    });
    tensor(act, shape)
}

/// `(dgate, dup)`: `dup = dact ⊙ silu(gate)`, `dgate = dact ⊙ up ⊙ σ(g)(1 + g(1 − σ(g)))`.
pub fn backward(gate: &Tensor, up: &Tensor, dact: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = gate.shape().clone();
    let (gate, up, dact) = (gate.contiguous()?, up.contiguous()?, dact.contiguous()?);
    let (gate, up, dact) = (View::of(&gate)?, View::of(&up)?, View::of(&dact)?);
    let (gate, up, dact) = (gate.f32()?, up.f32()?, dact.f32()?);
    let (mut dgate, mut dup) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK)).enumerate().for_each(|(block, (dgate, dup))| {
        for (i, (dgate, dup)) in dgate.iter_mut().zip(dup).enumerate() {
            let (g, u, d) = (gate[block * BLOCK + i], up[block * BLOCK + i], dact[block * BLOCK + i]);
            let sigmoid = 1.0 / (1.0 + (-g).exp());
            *dup = d * (g * sigmoid);
            *dgate = d * u * (sigmoid * (1.0 + g * (1.0 - sigmoid)));
        }
    });
    Ok((tensor(dgate, shape.clone())?, tensor(dup, shape)?))
}
