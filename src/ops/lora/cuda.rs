//! Launches of `forward.cu` and `backward.cu`, and of B's kernels, which say how they work. Not yet run on a card, so
//! not the default: `CLSGEN_LORA=fused` asks for them, `CLSGEN_LORA=products` for dropped copies and cuBLAS.
#![allow(unsafe_code)]

mod b;

use std::ops::Range;

pub(super) use b::{add_forward, b_gradients, backward_u, fuses_b_gradients, fuses_backward_u, fuses_forward};
use candle_core::cuda_backend::CudaDevice;
use candle_core::{DType, Tensor};

use super::{Backward, LoraA, Rows};
use crate::error::{Error, Result};
use crate::ops::Offsets;
use crate::ops::cast::cast;
use crate::ops::cuda::{LORA, Launch, blocks, device_of, uninit, upload, upload_u64};
use crate::ops::dropout::DropoutKey;
use crate::ops::linear::stacked;

/// Ranks that there are kernels for, each for 1 to [`MOST`] adapters.
const RANKS: [usize; 4] = [8, 16, 32, 64];
const MOST: usize = 3;
/// Rows of a block of the forward pass.
const ROWS: usize = 16;
/// Rows of a chunk of `backward.cu`.
const TOKENS: usize = 256;
/// Channels of a block of `backward.cu`.
const CHANNELS: usize = 128;
const THREADS: u32 = 256;

/// Whether the kernels are asked for and take these adapters: of one rank that there are kernels for, one rate, one
/// scaling; activations in bf16, whole sequences.
pub(super) fn fuses(x: &Tensor, lora_as: &[&LoraA<'_>], rows: Rows<'_>) -> bool {
    let [first, others @ ..] = lora_as else { return false };
    let rank = |lora_a: &LoraA<'_>| lora_a.a.dims().first().copied().unwrap_or(0);
    let alike = |other: &&LoraA<'_>| {
        let dropout = |lora_a| key(lora_a).map(|key| (key.p.to_bits(), key.rng));
        rank(other) == rank(first) && other.scaling == first.scaling && dropout(other) == dropout(first)
    };
    asked(x)
        && x.dims().last().is_some_and(|width| width % 8 == 0)
        && lora_as.len() <= MOST
        && RANKS.contains(&rank(first))
        && lora_as.iter().all(|lora_a| lora_a.a.dims() == [rank(first), x.dims()[1]])
        && others.iter().all(alike)
        && rows.first.is_none_or(|first| first.iter().all(|&first| first == 0))
}

/// Whether the kernels are asked for, of rows in bf16.
fn asked(rows: &Tensor) -> bool {
    rows.device().is_cuda() && LORA.takes_first() && rows.dtype() == DType::BF16
}

/// What decides an adapter's mask, where it has one.
fn key<'a>(lora_a: &'a LoraA<'_>) -> Option<&'a DropoutKey> {
    lora_a.dropout.as_ref().filter(|key| key.p > 0.0)
}

/// What launches have in common.
struct Adapters<'a> {
    lora_as: Vec<&'a LoraA<'a>>,
    rank: usize,
    /// bf16, one below the other.
    a: Tensor,
}

impl<'a> Adapters<'a> {
    fn new(x: &Tensor, lora_as: Vec<&'a LoraA<'a>>, offsets: &Offsets) -> Result<Self> {
        let rank = lora_as[0].a.dim(0)?;
        let fits = |key: &DropoutKey| key.steps.len() == offsets.count();
        if offsets.total() != x.dim(0)? || !lora_as.iter().all(|lora_a| key(lora_a).is_none_or(fits)) {
            return Err(Error::run(format!(
                "lora: {} rows of {} sequences do not fit {:?}",
                offsets.total(),
                offsets.count(),
                x.dims()
            )));
        }
        let a = match (super::stacked(&lora_as), lora_as.as_slice()) {
            (Some(all), _) => cast(all, DType::BF16)?,
            (None, [alone]) => cast(alone.a, DType::BF16)?.contiguous()?,
            (None, each) => stacked(&each.iter().map(|lora_a| lora_a.a).collect::<Vec<_>>(), DType::BF16)?,
        };
        Ok(Self { lora_as, rank, a })
    }

    fn count(&self) -> usize {
        self.lora_as.len()
    }

    /// The kernel of a pass for them.
    fn launch(&self, file: &'static str, pass: &str) -> Result<Launch> {
        let device = device_of(&self.a)?;
        Launch::new(&device, file, &format!("lora_{pass}_r{}_x{}", self.rank, self.count()))
    }

    /// Adds what decides the masks of some of the sequences.
    fn masks(&self, launch: Launch, sequences: Range<usize>) -> Result<Launch> {
        let first = key(self.lora_as[0]);
        let p = first.map_or(0.0, |key| key.p);
        // At the rate 0 nothing is drawn.
        let steps = self.lora_as.iter().flat_map(|lora_a| match key(lora_a) {
            Some(key) => key.steps[sequences.clone()].to_vec(),
            None => vec![0; sequences.len()],
        });
        let steps = upload_u64(&device_of(&self.a)?, &steps.collect::<Vec<_>>())?;
        Ok(launch
            .tensor(&steps)?
            .u32(self.a.dim(1)?)?
            .u64(first.map_or(0, |key| key.rng.seed()))
            .u64(first.map_or(0, |key| u64::from(key.rng.stream())))
            .f32(p)
            .f32(1.0 / (1.0 - p)))
    }
}

/// `u` of each: strips of columns of one tensor.
pub(super) fn forward(x: &Tensor, lora_as: &[&LoraA<'_>], offsets: &Offsets) -> Result<Vec<Tensor>> {
    let adapters = Adapters::new(x, lora_as.to_vec(), offsets)?;
    let device = device_of(x)?;
    let columns = adapters.count() * adapters.rank;
    let u = uninit(&device, (x.dim(0)?, columns), DType::BF16)?;
    let kernel = adapters
        .launch("lora/forward", "forward")?
        .tensor(&x.contiguous()?)?
        .tensor(&adapters.a)?
        .tensor(&u)?
        .tensor(&upload(&device, &offsets.starts())?)?;
    let kernel = adapters.masks(kernel, 0..offsets.count())?.f32(lora_as[0].scaling as f32);
    let longest = offsets.ranges().map(|range| range.len()).max().unwrap_or(0);
    let grid = [longest.div_ceil(ROWS) as u32, offsets.count() as u32, 1];
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run(grid, THREADS, 64 * columns) }?;
    (0..adapters.count()).map(|i| Ok(u.narrow(1, i * adapters.rank, adapters.rank)?)).collect()
}

/// dx, written over; each adapter's `da` is replaced by its sum with the new one.
pub(super) fn backward(
    x: &Tensor,
    adapters: &mut [Backward<'_>],
    dx: Option<Tensor>,
    offsets: &Offsets,
) -> Result<Option<Tensor>> {
    let shared = Adapters::new(x, adapters.iter().map(|adapter| &adapter.lora_a).collect(), offsets)?;
    let rows = x.dim(0)?;
    let dx = dx.map(|dx| dx.contiguous()).transpose()?;
    let x = x.contiguous()?;
    let du = |adapter: &Backward<'_>| -> Result<Tensor> { Ok(cast(&adapter.du, DType::BF16)?.contiguous()?) };
    let dus = adapters.iter().map(du).collect::<Result<Vec<_>>>()?;
    if dx.as_ref().is_some_and(|dx| dx.dims() != x.dims() || dx.dtype() != DType::BF16)
        || dus.iter().any(|du| du.dims() != [rows, shared.rank])
    {
        return Err(Error::run(format!("lora: gradients that do not fit an input of shape {:?}", x.dims())));
    }
    let mut sums: Vec<Option<Tensor>> = adapters.iter().map(|adapter| adapter.da.clone()).collect();
    for group in groups(offsets, TOKENS, rows / (shared.count() * shared.rank)) {
        let group = Group::new(&device_of(&x)?, offsets, group, TOKENS)?;
        let partial = partial_sums(&shared, &x, dx.as_ref(), &dus, &group)?;
        sums = added(&sums, &vec![[shared.rank, x.dim(1)?]; shared.count()], &partial, &group)?;
    }
    for (adapter, sum) in adapters.iter_mut().zip(sums) {
        adapter.da = sum;
    }
    Ok(dx)
}

/// Sequences in turn, as many at a time as have no more than `most` chunks of `tokens`, one at least: sums of many
/// short ones would take more memory than what they are sums of. A sequence's own chunks stay together, so that groups
/// change no bit.
fn groups(offsets: &Offsets, tokens: usize, most: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<(Range<usize>, usize)> = Vec::new();
    for (i, range) in offsets.ranges().enumerate().filter(|(_, range)| !range.is_empty()) {
        let more = range.len().div_ceil(tokens);
        match groups.last_mut() {
            Some((group, count)) if *count + more <= most => (group.end, *count) = (i + 1, *count + more),
            _ => groups.push((i..i + 1, more)),
        }
    }
    groups.into_iter().map(|(group, _)| group).collect()
}

/// Some sequences, whose chunks are summed by one launch.
struct Group {
    sequences: Range<usize>,
    /// On the device: each one's first row, and the end of the last.
    starts: Tensor,
    /// On the device: each one's first chunk, and how many there are.
    chunks: Tensor,
    /// Chunks of all.
    total: usize,
    /// Chunks of the longest.
    longest: usize,
}

impl Group {
    /// In chunks of `tokens` rows.
    fn new(device: &CudaDevice, offsets: &Offsets, sequences: Range<usize>, tokens: usize) -> Result<Self> {
        let counts: Vec<usize> = sequences.clone().map(|i| offsets.range(i).len().div_ceil(tokens)).collect();
        let chunks = Offsets::from_lengths(&counts);
        Ok(Self {
            starts: upload(device, &offsets.starts()[sequences.start..=sequences.end])?,
            chunks: upload(device, &chunks.starts())?,
            total: chunks.total(),
            longest: counts.into_iter().max().unwrap_or(0),
            sequences,
        })
    }

    /// A block for each of these and its chunks.
    fn grid(&self, blocks: u32) -> [u32; 3] {
        [blocks, self.longest as u32, self.sequences.len() as u32]
    }
}

/// dx of some sequences, and their chunks' `(chunks, adapters · rank · in)`.
fn partial_sums(
    adapters: &Adapters<'_>,
    x: &Tensor,
    dx: Option<&Tensor>,
    dus: &[Tensor],
    group: &Group,
) -> Result<Tensor> {
    let device = device_of(x)?;
    let width = x.dim(1)?;
    let partial = uninit(&device, (group.total, adapters.count() * adapters.rank * width), DType::F32)?;
    let kernel = adapters.launch("lora/backward", "backward")?.tensor(x)?.optional(dx)?.tensor(&adapters.a)?;
    let kernel = three(kernel, dus)?.tensor(&partial)?.tensor(&group.starts)?.tensor(&group.chunks)?;
    let kernel = adapters.masks(kernel, group.sequences.clone())?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run(group.grid(width.div_ceil(CHANNELS) as u32), THREADS, 0) }?;
    Ok(partial)
}

/// Pointers to up to three tensors.
fn three(mut launch: Launch, tensors: &[Tensor]) -> Result<Launch> {
    for i in 0..MOST {
        launch = launch.optional(tensors.get(i))?;
    }
    Ok(launch)
}

/// Each adapter's sum of this shape and what `partial (chunks, numbers of all)` holds of a group.
fn added(
    sums: &[Option<Tensor>],
    shapes: &[[usize; 2]],
    partial: &Tensor,
    group: &Group,
) -> Result<Vec<Option<Tensor>>> {
    let sizes: Vec<usize> = shapes.iter().map(|[rows, columns]| rows * columns).collect();
    let n = partial.dim(1)?;
    let fits = |(sum, shape): (&Option<Tensor>, &[usize; 2])| {
        sum.as_ref().is_none_or(|sum| sum.dims() == shape && sum.dtype() == DType::F32)
    };
    if sizes.iter().sum::<usize>() != n || !sums.iter().zip(shapes).all(fits) {
        return Err(Error::run(format!("lora: sums of gradients that are not of shapes {shapes:?} and f32")));
    }
    let device = device_of(partial)?;
    let total = uninit(&device, n, DType::F32)?;
    let mut kernel = Launch::new(&device, "lora/backward", "lora_backward_sum")?.tensor(partial)?;
    for i in 0..MOST {
        let before = sums.get(i).and_then(Option::as_ref).map(Tensor::contiguous).transpose()?;
        kernel = kernel.optional(before.as_ref())?;
    }
    let size = |i: usize| sizes.get(i).map_or(0, |&size| size as u64);
    let kernel = kernel
        .tensor(&total)?
        .tensor(&group.chunks)?
        .u32(group.sequences.len())?
        .u64(n as u64)
        .u64(size(0))
        .u64(size(1));
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { kernel.run([blocks(2 * n, THREADS as usize), 1, 1], THREADS, 0) }?;
    let starts = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end - size)
    });
    let strips = starts
        .zip(shapes)
        .map(|(start, &[rows, columns])| Ok(Some(total.narrow(0, start, rows * columns)?.reshape((rows, columns))?)));
    strips.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_sequence_once_and_few_chunks() {
        let offsets = Offsets::from_lengths(&[0, 257, 1, 0, 256, 600, 5, 0]);
        let ends =
            |most| groups(&offsets, TOKENS, most).iter().map(|group| (group.start, group.end)).collect::<Vec<_>>();
        assert_eq!(ends(3), [(1, 3), (4, 5), (5, 6), (6, 7)]);
        assert_eq!(ends(0), [(1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]);
        assert_eq!(ends(100), [(1, 7)]);
        assert!(groups(&Offsets::from_lengths(&[0, 0]), TOKENS, 5).is_empty());
    }
}
