//! What a GPU computes in bf16: every op on bf16 operands against f64 of the same (rounded) operands.
//!
//! The least error a result in bf16 can have is that of rounding the exact one, which is what a plain computation (f32
//! inside, one rounding at the end, as PyTorch's kernels do) has too; ours may have twice that. Every result is
//! computed twice and must have the same bits.

use candle_core::{DType, Device, Tensor};

use super::{Bench, F32, numbers, reference, some_of};
use crate::{
    error::Result,
    ops::{
        Offsets,
        adamw::{self, AdamW, ParamState},
        add,
        cast::to_bf16,
        cross_entropy as ce,
        dropout::{self, DropoutKey},
        embedding as embed, linear as lin, rms_norm as norm,
        rope::{Rope, RopeParameters, RopeScaling},
        swiglu as glu,
    },
    rng::{Rng, streams},
};

/// Bound of sums in f32 of exact products of bf16, and of small differences of f32.
const SUMS: f64 = 1e-5;

impl Bench<'_> {
    /// bf16 values on the device, and the same in f64.
    fn halves(&self, seed: u64, dims: &[usize]) -> Result<(Tensor, Vec<f64>)> {
        self.random_as(seed, dims, DType::BF16)
    }

    /// The tensors of two runs, which must have the same bits.
    fn twice<const N: usize>(
        &mut self,
        op: &'static str,
        run: impl Fn() -> Result<[Tensor; N]>,
    ) -> Result<[Tensor; N]> {
        let first = run()?;
        let second = run()?;
        self.again(op, &first.each_ref(), &second.each_ref())?;
        Ok(first)
    }

    /// Elements `at` of a bf16 tensor: at most twice the error of their references' rounding.
    fn check_rounded_at(
        &mut self,
        op: &'static str,
        pass: &'static str,
        ours: &Tensor,
        at: &[usize],
        reference: &[f64],
    ) -> Result<()> {
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let rounding = reference.iter().map(|&x| x - f64::from(half::bf16::from_f64(x)));
        let bound = 2.0 * norm(&mut rounding.into_iter()) / norm(&mut reference.iter().copied()) + F32;
        self.check_at(op, pass, ours, at, reference, bound)
    }

    /// All elements of a bf16 tensor.
    fn check_rounded(&mut self, op: &'static str, pass: &'static str, ours: &Tensor, reference: &[f64]) -> Result<()> {
        let at: Vec<usize> = (0..reference.len()).collect();
        self.check_rounded_at(op, pass, ours, &at, reference)
    }
}

/// Every op whose kernel has a bf16 variant.
pub(super) fn all(bench: &mut Bench<'_>) {
    bench.attempt("rms_norm, bf16", rms_norm);
    bench.attempt("rope, bf16", rope);
    bench.attempt("swiglu, bf16", swiglu);
    bench.attempt("cross_entropy, bf16", cross_entropy);
    bench.attempt("linear, bf16", linear);
    bench.attempt("add, bf16", elements);
    bench.attempt("dropout, bf16", dropout);
    bench.attempt("adamw", adamw);
}

fn rms_norm(bench: &mut Bench<'_>) -> Result<()> {
    const OP: &str = "rms_norm, bf16";
    for (rows, hidden) in [(1, 1), (3, 63), (65, 576), (5, 4096)] {
        let eps = 1e-5;
        let dims = [rows, hidden];
        let (x, x64) = bench.halves(41, &dims)?;
        let (r, r64) = bench.halves(42, &dims)?;
        let (dy, dy64) = bench.halves(43, &dims)?;
        let (w, w64) = bench.random(44, &[hidden])?;
        let [y, rstd] = bench.twice(OP, || norm::forward(&x, &w, eps).map(|(y, rstd)| [y, rstd]))?;
        bench.check_rounded(OP, "forward", &y, &reference::rms_norm(&x64, &w64, eps))?;
        let [sum, y] = bench.twice(OP, || norm::add_forward(x.copy()?, &r, &w, eps).map(|(sum, y, _)| [sum, y]))?;
        let sum64: Vec<f64> = x64.iter().zip(&r64).map(|(a, b)| a + b).collect();
        bench.check_rounded(OP, "add", &sum, &sum64)?;
        bench.check_rounded(OP, "add, forward", &y, &reference::rms_norm(&numbers(&sum)?, &w64, eps))?;
        // Of one channel the gradient is the small difference of large terms.
        if hidden > 1 {
            let at = some_of(x64.len(), 30);
            let dx64 = reference::gradient(&x64, &at, &dy64, |x| reference::rms_norm(x, &w64, eps));
            let [dx] = bench.twice(OP, || Ok([norm::backward(&x, &w, &rstd, &dy)?]))?;
            bench.check_rounded_at(OP, "backward x", &dx, &at, &dx64)?;
            let [dx] = bench.twice(OP, || Ok([norm::backward_add(&x, &w, &rstd, &dy, &r)?]))?;
            let with: Vec<f64> = dx64.iter().zip(&at).map(|(dx, &i)| dx + r64[i]).collect();
            bench.check_rounded_at(OP, "backward x, add", &dx, &at, &with)?;
        }
    }
    Ok(())
}

fn rope(bench: &mut Bench<'_>) -> Result<()> {
    const OP: &str = "rope, bf16";
    let positions = [0u32, 1, 63, 64, 65, 200];
    for (heads, d) in [(1, 2), (9, 64), (8, 128), (3, 10)] {
        let rope = Rope::new(RopeParameters { theta: 10_000.0, scaling: RopeScaling::None }, d)?;
        let (x, x64) = bench.halves(45, &[positions.len(), heads, d])?;
        let frequencies: Vec<f64> = rope.inv_freq().iter().map(|&f| f64::from(f)).collect();
        let back: Vec<f64> = frequencies.iter().map(|f| -f).collect();
        let [y, dx] = bench.twice(OP, || Ok([rope.forward(&x, &positions)?, rope.backward(&x, &positions)?]))?;
        bench.check_rounded(OP, "forward", &y, &reference::rope(&x64, &positions, heads, &frequencies))?;
        bench.check_rounded(OP, "backward", &dx, &reference::rope(&x64, &positions, heads, &back))?;
        let (k, k64) = bench.halves(46, &[positions.len(), heads + 2, d])?;
        let [q, k] = bench.twice(OP, || rope.forward_both(&x, &k, &positions))?;
        bench.check_rounded(OP, "both, q", &q, &reference::rope(&x64, &positions, heads, &frequencies))?;
        bench.check_rounded(OP, "both, k", &k, &reference::rope(&k64, &positions, heads + 2, &frequencies))?;
    }
    Ok(())
}

fn swiglu(bench: &mut Bench<'_>) -> Result<()> {
    const OP: &str = "swiglu, bf16";
    for dims in [[1, 1], [3, 65], [7, 14_336]] {
        let (gate, gate64) = bench.halves(46, &dims)?;
        let (up, up64) = bench.halves(47, &dims)?;
        let (dy, dy64) = bench.halves(48, &dims)?;
        let [act] = bench.twice(OP, || Ok([glu::forward(&gate, &up)?]))?;
        bench.check_rounded(OP, "forward", &act, &reference::swiglu(&gate64, &up64))?;
        let [dgate, dup] = bench.twice(OP, || glu::backward(&gate, &up, &dy).map(|(dgate, dup)| [dgate, dup]))?;
        let slopes = |g: f64| {
            let s = 1.0 / (1.0 + (-g).exp());
            (s * (1.0 + g * (1.0 - s)), g * s)
        };
        let dgate64: Vec<f64> = (0..dy64.len()).map(|i| dy64[i] * up64[i] * slopes(gate64[i]).0).collect();
        let dup64: Vec<f64> = (0..dy64.len()).map(|i| dy64[i] * slopes(gate64[i]).1).collect();
        bench.check_rounded(OP, "backward gate", &dgate, &dgate64)?;
        bench.check_rounded(OP, "backward up", &dup, &dup64)?;
    }
    Ok(())
}

fn cross_entropy(bench: &mut Bench<'_>) -> Result<()> {
    const OP: &str = "cross_entropy, bf16";
    for (rows, vocab) in [(1, 2), (65, 63), (3, 49_152), (3, 128_256)] {
        let (logits, logits64) = bench.halves(49, &[rows, vocab])?;
        let targets: Vec<u32> =
            (0..rows).map(|row| if row == 0 { vocab - 1 } else { row * 31 % vocab } as u32).collect();
        let scales: Vec<f32> = (0..rows).map(|row| 0.25 + row as f32 / 64.0).collect();
        let losses64 = reference::cross_entropy(&logits64, &targets);
        let (losses, lse) = ce::forward(&logits, &targets)?;
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        // A loss may be a small difference of larger numbers.
        bench.compare(OP, "forward", &[rows, vocab], &wide(&losses), &losses64, SUMS);
        let gradient: Vec<f64> = (0..rows * vocab)
            .map(|i| {
                let row = i / vocab;
                let target = targets[i / vocab] as usize;
                let lse = losses64[row] + logits64[row * vocab + target];
                f64::from(scales[row]) * ((logits64[i] - lse).exp() - f64::from(u8::from(i % vocab == target)))
            })
            .collect();
        let [dlogits] = bench.twice(OP, || Ok([ce::backward(logits.copy()?, &targets, &lse, &scales)?]))?;
        bench.check_rounded(OP, "backward", &dlogits, &gradient)?;
        let (losses, dlogits) = ce::forward_backward(logits.copy()?, &targets, &scales)?;
        bench.compare(OP, "at once, loss", &[rows, vocab], &wide(&losses), &losses64, SUMS);
        bench.check_rounded(OP, "at once, dlogits", &dlogits, &gradient)?;
    }
    Ok(())
}

fn linear(bench: &mut Bench<'_>) -> Result<()> {
    const OP: &str = "linear, bf16";
    for (m, n_in, n_out) in [(1, 64, 1), (63, 65, 7), (65, 2048, 256), (129, 8, 576), (33, 576, 8)] {
        let (x, x64) = bench.halves(50, &[m, n_in])?;
        let (w, w64) = bench.halves(51, &[n_out, n_in])?;
        let (dy, dy64) = bench.halves(52, &[m, n_out])?;
        let (b, b64) = bench.random(53, &[n_out])?;
        // Adapters are f32; what is multiplied is their bf16.
        let adapter = bench.cast(&w, DType::F32)?;
        let (down, down64) = bench.halves(54, &[n_out, n_out.div_ceil(2)])?;
        let y64 = reference::linear(&x64, &w64, None, n_in);
        let dx64 = reference::linear(&dy64, &reference::transpose(&w64, n_in), None, n_out);
        let [y, y_adapter, y_decode] = bench.twice(OP, || {
            Ok([lin::forward(&x, &w, None)?, lin::forward(&x, &adapter, None)?, lin::decode(&x, &w, None)?])
        })?;
        bench.check_rounded(OP, "forward", &y, &y64)?;
        bench.check_rounded(OP, "forward, adapter", &y_adapter, &y64)?;
        bench.check_rounded(OP, "decode", &y_decode, &y64)?;
        // The bias is added to what was rounded already.
        let biased: Vec<f64> = numbers(&y)?.iter().enumerate().map(|(i, y)| y + b64[i % n_out]).collect();
        bench.check_rounded(OP, "bias", &lin::forward(&x, &w, Some(&b))?, &biased)?;
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
        let [dx, y_added, dx_added] = bench.twice(OP, || {
            let dx = lin::backward_input(&dy, &w)?;
            Ok([dx, lin::add_forward(dy.copy()?, &x, &adapter)?, lin::add_backward_input(x.copy()?, &dy, &adapter)?])
        })?;
        bench.check_rounded(OP, "backward x", &dx, &dx64)?;
        // Two adapters of one input share a product, and what the second makes is read out of it.
        let scale = 0.625;
        let rank = n_out.div_ceil(2);
        let parts = [adapter.narrow(0, 0, rank)?, adapter.narrow(0, n_out - rank, rank)?];
        let strip = |first: usize| {
            y64.chunks(n_out).flat_map(|row| &row[first..first + rank]).map(|y| scale * y).collect::<Vec<f64>>()
        };
        let [u, u_last] = bench.twice(OP, || lin::scaled_forward_each(&x, parts.each_ref(), scale))?;
        bench.check_rounded(OP, "scaled, first", &u, &strip(0))?;
        bench.check_rounded(OP, "scaled, second", &u_last, &strip(n_out - rank))?;
        let [back, onto] = bench.twice(OP, || {
            Ok([lin::scaled_backward_input(&dy, &adapter, scale)?, lin::decode_add(dy.copy()?, &u_last, &down)?])
        })?;
        bench.check_rounded(
            OP,
            "scaled, backward x",
            &back,
            &dx64.iter().map(|dx| scale * dx).collect::<Vec<f64>>(),
        )?;
        let product = reference::linear(&numbers(&u_last)?, &down64, None, rank);
        bench.check_rounded(OP, "decode, add", &onto, &sum(&dy64, &product))?;
        bench.check_rounded(OP, "add, forward", &y_added, &sum(&dy64, &y64))?;
        bench.check_rounded(OP, "add, backward x", &dx_added, &sum(&x64, &dx64))?;
        let dw64 = reference::linear(&reference::transpose(&dy64, n_out), &reference::transpose(&x64, n_in), None, m);
        let [dw] = bench.twice(OP, || Ok([lin::backward_weight(&dy, &x)?]))?;
        bench.check(OP, "backward w", &dw, &dw64, SUMS)?;
    }
    Ok(())
}

fn elements(bench: &mut Bench<'_>) -> Result<()> {
    for n in [1, 63, 64, 1003] {
        let (a, a64) = bench.halves(54, &[n])?;
        let (b, b64) = bench.halves(55, &[n])?;
        let sum: Vec<f64> = a64.iter().zip(&b64).map(|(a, b)| a + b).collect();
        bench.check_rounded("add, bf16", "forward", &add(a.copy()?, &b)?, &sum)?;
        let (x, x64) = bench.random(56, &[n])?;
        let expected: Vec<f64> = x64.iter().map(|&x| f64::from(half::bf16::from_f64(x))).collect();
        bench.check("cast to bf16", "forward", &to_bf16(&x)?, &expected, 0.0)?;
    }
    let (table, table64) = bench.halves(57, &[31, 20])?;
    let ids = [3u32, 30, 0, 3, 3];
    let expected: Vec<f64> = ids.iter().flat_map(|&id| table64[id as usize * 20..][..20].to_vec()).collect();
    bench.check("embedding, bf16", "forward", &embed::forward(&table, &ids)?, &expected, 0.0)
}

/// The CPU's mask, and its numbers rounded.
fn dropout(bench: &mut Bench<'_>) -> Result<()> {
    for width in [1, 7, 64, 4096] {
        let offsets = Offsets::from_lengths(&[3, 0, 5]);
        let key = DropoutKey { p: 0.3, rng: Rng::new(5, streams::LORA_DROPOUT), steps: vec![11, 12, u64::MAX] };
        let (x, _) = bench.halves(58, &[8, width])?;
        let host = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let expected = numbers(&dropout::forward(&host, &key, &offsets)?.to_dtype(DType::BF16)?)?;
        bench.check("dropout, bf16", "the CPU's bits", &dropout::forward(&x, &key, &offsets)?, &expected, 0.0)?;
    }
    Ok(())
}

/// Several tensors at once, clipped: the CPU's bits. (The norm is a sum in another order, in f64; its factor is rounded
/// to f32.)
fn adamw(bench: &mut Bench<'_>) -> Result<()> {
    let settings = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step: 3 };
    let tensors = [1, 63, 1003, 8192, 20_000]
        .iter()
        .zip(0u64..)
        .map(|(&n, i)| {
            let random = |seed| Ok::<_, crate::error::Error>(bench.random(59 + 3 * i + seed, &[n])?.0);
            let squares = random(2)?.to_device(&Device::Cpu)?.sqr()?.to_device(bench.device)?;
            Ok([random(0)?, random(1)?, random(2)?, squares])
        })
        .collect::<Result<Vec<_>>>()?;
    let host = |t: &Tensor| Ok::<_, crate::error::Error>(t.to_device(&Device::Cpu)?.copy()?);
    let on_cpu =
        tensors.iter().map(|[a, b, c, d]| Ok([host(a)?, host(b)?, host(c)?, host(d)?])).collect::<Result<Vec<_>>>()?;
    let step = |tensors: &[[Tensor; 4]]| {
        let parts: Vec<ParamState<'_>> =
            tensors.iter().map(|[param, gradient, m, v]| ParamState { param, gradient, m, v }).collect();
        adamw::step(&parts, 1.0, &settings)
    };
    let norm = step(&tensors)?;
    let expected = step(&on_cpu)?;
    bench.compare("adamw, the CPU's bits", "norm", &[tensors.len()], &[norm], &[expected], 1e-12);
    for ([param, _, m, v], [param_cpu, _, m_cpu, v_cpu]) in tensors.iter().zip(&on_cpu) {
        for (pass, ours, cpu) in
            [("parameter", param, param_cpu), ("first moment", m, m_cpu), ("second moment", v, v_cpu)]
        {
            bench.check("adamw, the CPU's bits", pass, ours, &numbers(cpu)?, 0.0)?;
        }
    }
    Ok(())
}
