//! What adapters make of their input, with dropout, against f64: in f32 on a CPU, in bf16 on a GPU.

use candle_core::{DType, Tensor};

use super::{BF16, Bench, F32, reference};
use crate::{
    error::Result,
    ops::{
        Offsets,
        dropout::DropoutKey,
        linear::array,
        lora::{
            Backward, LoraA, LoraB, Rows, add_b_gradients, add_forward_each, backward_each, backward_u_each,
            forward_each, fuses,
        },
    },
    rng::{Rng, streams},
};

const SCALING: f64 = 1.75;
/// Beside a tile's edges, more than one chunk, and nothing.
const LENGTHS: [usize; 5] = [15, 0, 257, 1, 33];

pub(super) fn lora(bench: &mut Bench<'_>) -> Result<()> {
    case::<1>(bench, "lora, rank 8", 8, 392, Some(0.1))?;
    case::<3>(bench, "lora, rank 8, three", 8, 256, Some(0.05))?;
    case::<2>(bench, "lora, rank 16, two", 16, 264, Some(0.3))?;
    case::<1>(bench, "lora, rank 64", 64, 136, Some(0.05))?;
    case::<3>(bench, "lora, rank 64, three", 64, 136, Some(0.05))?;
    case::<3>(bench, "lora, no dropout, three", 32, 96, None)?;
    // A rank and a width that no kernel takes.
    case::<2>(bench, "lora, rank 12, two", 12, 90, Some(0.1))?;
    outputs(bench, "lora, rank 8", 8, [136])?;
    outputs(bench, "lora, rank 16, two", 16, [264, 8])?;
    outputs(bench, "lora, rank 64, three", 64, [392, 72, 104])?;
    outputs(bench, "lora, rank 12, two", 12, [90, 20])
}

/// What B adds, and its gradients, of `u`s that are strips of one tensor.
fn outputs<const N: usize>(bench: &mut Bench<'_>, op: &'static str, rank: usize, widths: [usize; N]) -> Result<()> {
    let (dtype, bound) = if bench.device.is_cuda() { (DType::BF16, BF16) } else { (DType::F32, F32) };
    let offsets = Offsets::from_lengths(&[15, 0, 513, 1, 33]);
    let m = offsets.total();
    let (us, us64) = bench.random_as(74, &[m, N * rank], dtype)?;
    let each = |seed: u64, shape: &dyn Fn(usize) -> [usize; 2], dtype| -> Result<([Tensor; N], Vec<Vec<f64>>)> {
        let drawn = (0..N).map(|i| bench.random_as(seed + i as u64, &shape(widths[i]), dtype));
        let (tensors, values): (Vec<_>, Vec<_>) = drawn.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok((array(tensors.into_iter().map(Ok))?, values))
    };
    let (ys, ys64) = each(75, &|width| [m, width], dtype)?;
    let (dys, dys64) = each(78, &|width| [m, width], dtype)?;
    let (sums, sums64) = each(81, &|width| [width, rank], DType::F32)?;
    // Products round B to bf16 on a GPU; these are.
    let (bs, bs64) = each(84, &|width| [width, rank], DType::BF16)?;
    let bs: [Tensor; N] = array(bs.iter().map(|b| bench.cast(b, DType::F32)))?;
    let us: [Tensor; N] = array((0..N).map(|i| Ok(us.narrow(1, i * rank, rank)?)))?;
    let run = || -> Result<Vec<Tensor>> {
        let copies: [Tensor; N] = array(ys.iter().map(|y| Ok(y.copy()?)))?;
        let ys = add_forward_each(copies, std::array::from_fn(|i| Some((&us[i], &bs[i]))))?;
        let outputs: Vec<LoraB<'_>> = dys.iter().zip(&bs).map(|(dy, b)| LoraB { dy, b, scaling: SCALING }).collect();
        let dus = backward_u_each(&outputs)?;
        let pairs: Vec<(&Tensor, &Tensor)> = dys.iter().zip(&us).collect();
        let sums = sums.iter().map(|sum| Ok(Some(sum.copy()?))).collect::<Result<_>>()?;
        let dbs = add_b_gradients(sums, &pairs, &offsets)?;
        Ok(ys.into_iter().chain(dus).chain(dbs.into_iter().flatten()).collect())
    };
    let found = run()?;
    for (i, &width) in widths.iter().enumerate() {
        let u64: Vec<f64> = us64.chunks(N * rank).flat_map(|row| row[i * rank..][..rank].to_vec()).collect();
        let sum = |before: &[f64], new: Vec<f64>| before.iter().zip(new).map(|(a, b)| a + b).collect::<Vec<_>>();
        let y = sum(&ys64[i], reference::linear(&u64, &bs64[i], None, rank));
        bench.check(op, "forward B", &found[i], &y, bound)?;
        let du = reference::linear(&dys64[i], &reference::transpose(&bs64[i], rank), None, width);
        let du: Vec<f64> = du.iter().map(|du| SCALING * du).collect();
        bench.check(op, "backward u", &found[N + i], &du, bound)?;
        let dy = reference::transpose(&dys64[i], width);
        let u = reference::transpose(&u64, rank);
        let db = sum(&sums64[i], reference::linear(&dy, &u, None, m));
        bench.check(op, "backward B", &found[2 * N + i], &db, bound)?;
    }
    bench.again(op, &found.iter().collect::<Vec<_>>(), &run()?.iter().collect::<Vec<_>>())
}

/// Adapters of one input.
struct Operands<const N: usize> {
    x: Tensor,
    a: [Tensor; N],
    /// As a pass on CUDA has them.
    stacked_a: Option<Tensor>,
    du: [Tensor; N],
    /// What dx and each dA are added to.
    dx: Tensor,
    da: [Tensor; N],
    keys: Option<[DropoutKey; N]>,
    offsets: Offsets,
}

impl<const N: usize> Operands<N> {
    fn lora_as(&self) -> [LoraA<'_>; N] {
        std::array::from_fn(|i| {
            let dropout = self.keys.as_ref().map(|keys| keys[i].clone());
            let stacked_a = self.stacked_a.as_ref().filter(|_| i == 0);
            LoraA { a: &self.a[i], stacked_a, scaling: SCALING, dropout }
        })
    }

    fn rows(&self) -> Rows<'_> {
        Rows { offsets: &self.offsets, first: None }
    }

    /// Sequence `i` and nothing else, whose gradients are added to `da`.
    fn alone(&self, i: usize, da: [Tensor; N]) -> Result<Self> {
        let range = self.offsets.range(i);
        let part = |x: &Tensor| -> Result<Tensor> { Ok(x.narrow(0, range.start, range.len())?) };
        let key = |key: &DropoutKey| DropoutKey { steps: vec![key.steps[i]], ..key.clone() };
        Ok(Self {
            x: part(&self.x)?,
            a: self.a.clone(),
            stacked_a: self.stacked_a.clone(),
            du: array(self.du.iter().map(part))?,
            dx: part(&self.dx)?,
            da,
            keys: self.keys.as_ref().map(|keys| keys.each_ref().map(key)),
            offsets: Offsets::from_lengths(&[range.len()]),
        })
    }

    /// Each u, dx, each dA.
    fn run(&self) -> Result<Vec<Tensor>> {
        let lora_as = self.lora_as();
        let us = forward_each(&self.x, lora_as.each_ref().map(Some), self.rows())?;
        let us: [Tensor; N] = array(us.into_iter().flatten().map(Ok))?;
        let mut each: Vec<Backward<'_>> = lora_as
            .into_iter()
            .enumerate()
            .map(|(i, lora_a)| {
                // The first u is computed again.
                let u = (i > 0).then(|| us[i].clone());
                Backward { lora_a, du: self.du[i].clone(), u, da: Some(self.da[i].clone()) }
            })
            .collect();
        let dx = backward_each(&self.x, &mut each, Some(self.dx.copy()?), self.rows())?;
        Ok(us.into_iter().chain(dx).chain(each.into_iter().flat_map(|each| each.da)).collect())
    }
}

fn case<const N: usize>(
    bench: &mut Bench<'_>,
    op: &'static str,
    rank: usize,
    width: usize,
    p: Option<f32>,
) -> Result<()> {
    let (dtype, bound) = if bench.device.is_cuda() { (DType::BF16, BF16) } else { (DType::F32, F32) };
    let offsets = Offsets::from_lengths(&LENGTHS);
    let m = offsets.total();
    let (x, x64) = bench.random_as(60, &[m, width], dtype)?;
    let (dx, mut dx64) = bench.random_as(61, &[m, width], dtype)?;
    let each = |seed: u64, dims: [usize; 2], dtype| -> Result<([Tensor; N], Vec<Vec<f64>>)> {
        let drawn = (0..N as u64).map(|i| bench.random_as(seed + i, &dims, dtype)).collect::<Result<Vec<_>>>()?;
        let (tensors, values): (Vec<_>, Vec<_>) = drawn.into_iter().unzip();
        Ok((array(tensors.into_iter().map(Ok))?, values))
    };
    // Products round A to bf16 on a GPU; these are.
    let (a, a64) = each(62, [rank, width], DType::BF16)?;
    let stacked_a = if N == 2 { Some(Tensor::cat(&a, 0)?) } else { None };
    let a = array(a.iter().map(|a| bench.cast(a, DType::F32)))?;
    let (du, du64) = each(66, [m, rank], dtype)?;
    let (da, da64) = each(70, [rank, width], DType::F32)?;
    let rng = Rng::new(5, streams::LORA_DROPOUT);
    let steps = |adapter: u64| (0..LENGTHS.len() as u64).map(|i| u64::MAX - 7 * i - adapter).collect::<Vec<_>>();
    let keys = p.map(|p| std::array::from_fn(|i| DropoutKey { p, rng, steps: steps(i as u64) }));
    let operands = Operands { x, a, stacked_a, du, dx, da, keys, offsets };

    let found = operands.run()?;
    for i in 0..N {
        let mask = mask(operands.keys.as_ref().map(|keys| &keys[i]), &operands.offsets, width);
        let dropped: Vec<f64> = mask.iter().zip(&x64).map(|(mask, x)| mask * x).collect();
        let u64: Vec<f64> = reference::linear(&dropped, &a64[i], None, width).iter().map(|u| SCALING * u).collect();
        bench.check(op, "forward", &found[i], &u64, bound)?;
        let back = reference::linear(&du64[i], &reference::transpose(&a64[i], width), None, rank);
        dx64.iter_mut().zip(mask.iter().zip(&back)).for_each(|(dx, (mask, back))| *dx += mask * back);
        let of_x = reference::transpose(&dropped, width);
        let new = reference::linear(&reference::transpose(&du64[i], rank), &of_x, None, m);
        let sum: Vec<f64> = da64[i].iter().zip(&new).map(|(a, b)| a + b).collect();
        bench.check(op, "backward A", &found[N + 1 + i], &sum, bound)?;
    }
    bench.check(op, "backward x", &found[N], &dx64, bound)?;

    let again = operands.run()?;
    bench.again(op, &found.iter().collect::<Vec<_>>(), &again.iter().collect::<Vec<_>>())?;
    let lora_as = operands.lora_as();
    // cuBLAS may take another kernel for fewer rows.
    if fuses(&operands.x, &lora_as.each_ref(), operands.rows()) {
        alone(bench, op, &operands, &found)?;
    }
    Ok(())
}

/// Each sequence alone gives the bits that it gives among others.
fn alone<const N: usize>(
    bench: &mut Bench<'_>,
    op: &'static str,
    operands: &Operands<N>,
    found: &[Tensor],
) -> Result<()> {
    let mut sums = operands.da.clone();
    for (i, range) in operands.offsets.ranges().enumerate().filter(|(_, range)| !range.is_empty()) {
        let alone = operands.alone(i, sums)?.run()?;
        for (all, alone) in found.iter().zip(&alone).take(N + 1) {
            bench.again(op, &[&all.narrow(0, range.start, range.len())?], &[alone])?;
        }
        sums = array(alone.into_iter().skip(N + 1).map(Ok))?;
    }
    bench.again(op, &found.iter().skip(N + 1).collect::<Vec<_>>(), &sums.each_ref())
}

/// What dropout multiplies each element by.
fn mask(key: Option<&DropoutKey>, offsets: &Offsets, width: usize) -> Vec<f64> {
    let Some(key) = key else { return vec![1.0; offsets.total() * width] };
    let scale = 1.0 / (1.0 - f64::from(key.p));
    let sequences = offsets.ranges().zip(&key.steps);
    let kept = |step: u64, i: usize| if key.rng.uniform(step, i as u64) >= key.p { scale } else { 0.0 };
    sequences.flat_map(|(range, &step)| (0..range.len() * width).map(move |i| kept(step, i))).collect()
}
