//! Launches of `b_forward.cu`, `b_backward.cu` and `b_gradient.cu`: one for all adapters of an input, where cuBLAS is
//! called for each in turn, and for dB for each of their sequences.
#![allow(unsafe_code)]

use candle_core::{DType, Tensor};

use super::{Group, MOST, RANKS, THREADS, added, asked, groups, three};
use crate::error::{Error, Result};
use crate::ops::Offsets;
use crate::ops::cast::cast;
use crate::ops::cuda::{Launch, address_of_rows, device_of, uninit};
use crate::ops::lora::LoraB;

/// Channels and rows of a block of `b_forward.cu`.
const CHANNELS: usize = 256;
const ROWS: usize = 64;
/// Rows of a block of `b_backward.cu`.
const ROWS_BACKWARD: usize = 16;
/// Rows of a chunk of `b_gradient.cu`, and channels of its blocks.
const TOKENS: usize = 512;
const CHANNELS_GRADIENT: usize = 128;

/// Whether the kernels are asked for and take these outputs, or gradients of outputs, of one input.
fn takes_outputs(wide: &[&Tensor]) -> bool {
    let [first, ..] = wide else { return false };
    let fits = |y: &&Tensor| {
        y.dtype() == DType::BF16 && matches!(*y.dims(), [rows, width] if rows == first.dims()[0] && width % 8 == 0)
    };
    wide.len() <= MOST && asked(first) && wide.iter().all(fits)
}

/// Whether they take these `u`: strips of one matrix's columns, or of matrices alike.
fn takes_strips(us: &[&Tensor]) -> bool {
    let [first, ..] = us else { return false };
    matches!(*first.dims(), [_, rank] if RANKS.contains(&rank))
        && matches!(*first.stride(), [stride, 1] if stride % 2 == 0)
        && us.iter().all(|u| u.dtype() == DType::BF16 && u.dims() == first.dims() && u.stride() == first.stride())
}

fn check(fits: bool, what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if fits {
        return Ok(());
    }
    Err(Error::run(format!("lora: {what} of shapes {:?} and {:?} do not fit", a.dims(), b.dims())))
}

/// Widths of up to three matrices.
fn widths(mut launch: Launch, wide: &[Tensor]) -> Result<Launch> {
    for i in 0..MOST {
        launch = launch.u32(wide.get(i).map_or(0, |y| y.dims()[1]))?;
    }
    Ok(launch)
}

/// Up to three strips.
fn strips(mut launch: Launch, us: &[&Tensor]) -> Result<Launch> {
    for i in 0..MOST {
        launch = match us.get(i) {
            Some(u) => launch.rows(u)?,
            None => launch.u64(0),
        };
    }
    Ok(launch)
}

/// Blocks of so many channels each.
fn blocks(wide: &[Tensor], channels: usize) -> u32 {
    wide.iter().map(|y| y.dims()[1].div_ceil(channels) as u32).sum()
}

fn each_contiguous<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<Vec<Tensor>> {
    tensors.map(|tensor| Ok(cast(tensor, DType::BF16)?.contiguous()?)).collect()
}

/// Whether [`add_forward`] takes these.
pub(in crate::ops::lora) fn fuses_forward(each: &[[&Tensor; 3]]) -> bool {
    let [ys, us] = [0, 1].map(|i| each.iter().map(|operands| operands[i]).collect::<Vec<_>>());
    takes_outputs(&ys) && takes_strips(&us) && ys.iter().all(|y| y.is_contiguous())
}

/// `y += u Bᵀ` in place, of each `[y, u, B]`.
pub(in crate::ops::lora) fn add_forward(each: &[[&Tensor; 3]]) -> Result<()> {
    let (rows, rank) = each[0][1].dims2()?;
    for [y, u, b] in each {
        check(y.dims()[0] == rows, "outputs and u", y, u)?;
        check(b.dims() == [y.dims()[1], rank], "outputs and B", y, b)?;
    }
    let device = device_of(each[0][0])?;
    let ys: Vec<Tensor> = each.iter().map(|[y, ..]| (*y).clone()).collect();
    let us: Vec<&Tensor> = each.iter().map(|[_, u, _]| *u).collect();
    let bs = each_contiguous(each.iter().map(|[.., b]| *b))?;
    let kernel = Launch::new(&device, "lora/b_forward", &format!("lora_b_forward_r{rank}"))?;
    let kernel = three(strips(three(kernel, &ys)?, &us)?, &bs)?.u32(rows)?;
    let kernel = widths(kernel, &ys)?.u32(address_of_rows(us[0])?.1)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([blocks(&ys, CHANNELS), rows.div_ceil(ROWS) as u32, 1], THREADS, 0) }
}

/// Whether [`backward_u`] takes these.
pub(in crate::ops::lora) fn fuses_backward_u(outputs: &[LoraB<'_>]) -> bool {
    let dys: Vec<&Tensor> = outputs.iter().map(|output| output.dy).collect();
    let rank = |output: &LoraB<'_>| output.b.dims().last().copied().unwrap_or(0);
    let alike = |output: &LoraB<'_>| rank(output) == rank(&outputs[0]) && output.scaling == outputs[0].scaling;
    takes_outputs(&dys) && RANKS.contains(&rank(&outputs[0])) && outputs.iter().all(alike)
}

/// `scaling · dy B` of each.
pub(in crate::ops::lora) fn backward_u(outputs: &[LoraB<'_>]) -> Result<Vec<Tensor>> {
    let LoraB { dy, b, scaling } = outputs[0];
    let rows = dy.dim(0)?;
    let rank = b.dim(1)?;
    for LoraB { dy, b, .. } in outputs {
        check(b.dims() == [dy.dims()[1], rank], "gradients and B", dy, b)?;
    }
    let device = device_of(dy)?;
    let dys = each_contiguous(outputs.iter().map(|output| output.dy))?;
    let bs = each_contiguous(outputs.iter().map(|output| output.b))?;
    let dus = dys.iter().map(|_| uninit(&device, (rows, rank), DType::BF16)).collect::<Result<Vec<_>>>()?;
    let kernel = Launch::new(&device, "lora/b_backward", &format!("lora_b_backward_r{rank}"))?;
    let kernel = three(three(three(kernel, &dys)?, &bs)?, &dus)?.u32(rows)?;
    let kernel = widths(kernel, &dys)?.f32(scaling as f32);
    let grid = [rows.div_ceil(ROWS_BACKWARD) as u32, outputs.len() as u32, 1];
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run(grid, THREADS, 64 * rank) }?;
    Ok(dus)
}

/// Whether [`b_gradients`] takes these `(dy, u)`.
pub(in crate::ops::lora) fn fuses_b_gradients(each: &[(&Tensor, &Tensor)]) -> bool {
    let (dys, us): (Vec<&Tensor>, Vec<&Tensor>) = each.iter().copied().unzip();
    takes_outputs(&dys) && takes_strips(&us)
}

/// Each `sum + dyᵀ u`.
pub(in crate::ops::lora) fn b_gradients(
    mut sums: Vec<Option<Tensor>>,
    each: &[(&Tensor, &Tensor)],
    offsets: &Offsets,
) -> Result<Vec<Option<Tensor>>> {
    let (first, us): (Vec<&Tensor>, Vec<&Tensor>) = each.iter().copied().unzip();
    let (rows, rank) = us[0].dims2()?;
    check(first[0].dims()[0] == rows && offsets.total() == rows, "gradients and u", first[0], us[0])?;
    let device = device_of(first[0])?;
    let dys = each_contiguous(first.into_iter())?;
    let shapes: Vec<[usize; 2]> = dys.iter().map(|dy| [dy.dims()[1], rank]).collect();
    let all: usize = shapes.iter().map(|[width, _]| width).sum();
    // No more than a quarter of what dy takes.
    for group in groups(offsets, TOKENS, rows / (8 * rank)) {
        let group = Group::new(&device, offsets, group, TOKENS)?;
        let partial = uninit(&device, (group.total, all * rank), DType::F32)?;
        let kernel = Launch::new(&device, "lora/b_gradient", &format!("lora_b_gradient_r{rank}"))?;
        let kernel = strips(three(kernel, &dys)?, &us)?.tensor(&partial)?;
        let kernel = kernel.tensor(&group.starts)?.tensor(&group.chunks)?;
        let kernel = widths(kernel, &dys)?.u32(address_of_rows(us[0])?.1)?;
        let grid = group.grid(blocks(&dys, CHANNELS_GRADIENT));
        // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
        unsafe { kernel.run(grid, THREADS, 0) }?;
        sums = added(&sums, &shapes, &partial, &group)?;
    }
    Ok(sums)
}
