//! SwiGLU's gate: `act = silu(gate) ⊙ up`, `silu(g) = g·σ(g)`. All shapes alike.
#![allow(unsafe_code)]

#[cfg(feature = "cuda")]
mod cuda;

use std::mem::MaybeUninit;

use candle_core::Tensor;
use rayon::prelude::*;

use super::cpu::par_for::ParFor;
use super::cpu::simd::{exp, vectorised};
use super::cpu::slice::{View, init_with, tensor};
use crate::error::{Error, Result};

const BLOCK: usize = 4096;

/// `silu(gate) ⊙ up`.
pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let shape = same_shape(&[gate, up])?;
    #[cfg(feature = "cuda")]
    if gate.device().is_cuda() {
        return cuda::forward(gate, up);
    }
    let gate = gate.contiguous()?;
    let up = up.contiguous()?;
    let gate = View::of(&gate)?;
    let up = View::of(&up)?;
    let gate = gate.f32()?;
    let up = up.f32()?;
    let write = |[act]: [&mut [MaybeUninit<f32>]; 1]| {
        let inputs = gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK));
        act.par_chunks_mut(BLOCK).zip(inputs).par_for_each(|(act, (gate, up))| gated(gate, up, act));
    };
    // SAFETY: `gated` writes as many as it reads.
    let [act] = unsafe { init_with([gate.len()], write) };
    tensor(act, shape)
}

/// `(dgate, dup)`: `dup = dact ⊙ silu(gate)`, `dgate = dact ⊙ up ⊙ σ(g)(1 + g(1 − σ(g)))`.
pub fn backward(gate: &Tensor, up: &Tensor, dact: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = same_shape(&[gate, up, dact])?;
    #[cfg(feature = "cuda")]
    if gate.device().is_cuda() {
        return cuda::backward(gate, up, dact);
    }
    let gate = gate.contiguous()?;
    let up = up.contiguous()?;
    let dact = dact.contiguous()?;
    let gate = View::of(&gate)?;
    let up = View::of(&up)?;
    let dact = View::of(&dact)?;
    let gate = gate.f32()?;
    let up = up.f32()?;
    let dact = dact.f32()?;
    let write = |[dgate, dup]: [&mut [MaybeUninit<f32>]; 2]| {
        let inputs = gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK)).zip(dact.par_chunks(BLOCK));
        let outputs = dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK));
        inputs
            .zip(outputs)
            .par_for_each(|(((gate, up), dact), (dgate, dup))| differentiate(gate, up, dact, dgate, dup));
    };
    // SAFETY: `differentiate` writes as many as it reads.
    let [dgate, dup] = unsafe { init_with([gate.len(), gate.len()], write) };
    Ok((tensor(dgate, shape.clone())?, tensor(dup, shape)?))
}

fn same_shape(tensors: &[&Tensor]) -> Result<candle_core::Shape> {
    match tensors.iter().find(|t| t.dims() != tensors[0].dims()) {
        Some(other) => Err(Error::run(format!("swiglu: shapes {:?} and {:?} differ", tensors[0].dims(), other.dims()))),
        None => Ok(tensors[0].shape().clone()),
    }
}

vectorised! {
    fn gated(gate: &[f32], up: &[f32], act: &mut [MaybeUninit<f32>]) {
        for ((act, g), u) in act.iter_mut().zip(gate).zip(up) {
            act.write(g / (1.0 + exp(-g)) * u);
        }
    }

    fn differentiate(
        gate: &[f32],
        up: &[f32],
        dact: &[f32],
        dgate: &mut [MaybeUninit<f32>],
        dup: &mut [MaybeUninit<f32>],
    ) {
        let inputs = gate.iter().zip(up).zip(dact);
        for (((g, u), d), (dgate, dup)) in inputs.zip(dgate.iter_mut().zip(dup)) {
            let sigmoid = 1.0 / (1.0 + exp(-g));
            dup.write(d * (g * sigmoid));
            dgate.write(d * u * (sigmoid * (1.0 + g * (1.0 - sigmoid))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::tests::same_on_every_isa;
    use crate::ops::tests::{assert_close, on_threads, random_tensor, values};

    #[test]
    fn forward_and_backward_equal_an_f64_reference() {
        for n in [1, 63, 64, 65, 9001] {
            let gate = (random_tensor(1, &[n]) * 8.0).unwrap();
            let up = random_tensor(2, &[n]);
            let dact = random_tensor(3, &[n]);
            let silu = |g: f64| g / (1.0 + (-g).exp());
            let wide = |x: &Tensor| -> Vec<f64> { values(x).into_iter().map(f64::from).collect() };
            let g = wide(&gate);
            let u = wide(&up);
            let d = wide(&dact);
            let act_ref: Vec<f64> = (0..n).map(|i| silu(g[i]) * u[i]).collect();
            let dup_ref: Vec<f64> = (0..n).map(|i| d[i] * silu(g[i])).collect();
            let slope = |g: f64| (silu(g + 1e-5) - silu(g - 1e-5)) / 2e-5;
            let dgate_ref: Vec<f64> = (0..n).map(|i| d[i] * u[i] * slope(g[i])).collect();
            let run = || {
                let (dgate, dup) = backward(&gate, &up, &dact).unwrap();
                [forward(&gate, &up).unwrap(), dgate, dup].map(|t| values(&t))
            };
            let [act, dgate, dup] = same_on_every_isa(run);
            assert_close(&act, &act_ref, 1e-6, "act");
            assert_close(&dgate, &dgate_ref, 2e-6, "dgate");
            assert_close(&dup, &dup_ref, 1e-6, "dup");
            assert_eq!(on_threads(2, run), [act, dgate, dup]);
        }
    }

    #[test]
    fn extreme_gates_stay_finite_and_shapes_are_checked() {
        let gate = Tensor::from_vec(vec![-1e4f32, -100.0, 0.0, 100.0, 1e4], 5, &candle_core::Device::Cpu).unwrap();
        let ones = gate.ones_like().unwrap();
        assert_eq!(values(&forward(&gate, &ones).unwrap()), [0.0, 0.0, 0.0, 100.0, 1e4]);
        assert_eq!(values(&backward(&gate, &ones, &ones).unwrap().0), [0.0, 0.0, 0.5, 1.0, 1.0]);
        assert!(forward(&gate, &random_tensor(1, &[4])).is_err());
    }
}
