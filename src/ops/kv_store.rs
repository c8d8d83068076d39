//! Paged keys and values (as in vLLM's PagedAttention): new ones are stored into blocks of 64 tokens, and a sequence's
//! are gathered.
//!
//! A block is a tensor `(layers, 2, kv_heads, 64, width)`, f32 or bf16: the keys and values of 64 tokens in every
//! layer, each head's tokens contiguous. `width` is head_dim; on CUDA it is what the attention kernels take (64 or
//! 128), padded with zeros. A sequence has a list of blocks (its block table); full blocks may be shared between
//! sequences. The block tables and slot mappings of all sequences of a step are computed once, for all layers: a
//! [`PagedBatch`].

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{DType, Device, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::cast::round;
use super::cpu::par_for::ParFor;
use super::cpu::slice::{View, Weight, WeightMut, tensor, update};
use super::cpu::thread_team;
use crate::error::{Error, Result};

/// Tokens of a block.
pub const BLOCK: usize = 64;

/// One sequence of a batch, and its block table.
#[derive(Debug, Clone)]
pub struct PagedSequence<'a> {
    /// Its blocks, of which the last may have room.
    pub blocks: Vec<&'a Tensor>,
    /// Its tokens, those of this step included.
    pub len: usize,
    /// The step's tokens: the last `new` of `len`. Their blocks are this sequence's alone.
    pub new: usize,
}

/// What a block holds and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub layers: usize,
    pub kv_heads: usize,
    pub width: usize,
    pub dtype: DType,
}

impl Layout {
    fn of(block: &Tensor) -> Result<Self> {
        match *block.dims() {
            [layers, 2, kv_heads, BLOCK, width] if block.is_contiguous() && kv_heads > 0 => {
                Ok(Self { layers, kv_heads, width, dtype: block.dtype() })
            }
            _ => Err(Error::run(format!(
                "a block of keys and values is (layers, 2, kv_heads, {BLOCK}, width), not {:?}",
                block.dims()
            ))),
        }
    }

    /// Elements from one head to the next.
    pub fn head(&self) -> usize {
        BLOCK * self.width
    }

    /// Elements of a layer's keys, and of its values.
    pub fn half(&self) -> usize {
        self.kv_heads * self.head()
    }

    /// Elements before a layer's keys; its values follow them.
    pub fn layer(&self, layer: usize) -> usize {
        2 * layer * self.half()
    }
}

/// Slot mapping of consecutive new tokens that go to one block.
#[derive(Debug)]
struct SlotRun<'a> {
    block: &'a Tensor,
    /// Slot of the first one in the block.
    slot: usize,
    /// Index of the first one among the batch's new tokens.
    first: usize,
    count: usize,
}

/// The sequences of one prefill or decoding step, concatenated.
#[derive(Debug)]
pub struct PagedBatch<'a> {
    rows: Vec<PagedSequence<'a>>,
    layout: Layout,
    runs: Vec<SlotRun<'a>>,
    #[cfg(feature = "cuda")]
    tables: cuda::Tables,
}

impl<'a> PagedBatch<'a> {
    /// A step of these sequences.
    pub fn new(rows: Vec<PagedSequence<'a>>) -> Result<Self> {
        let first = rows
            .iter()
            .find_map(|row| row.blocks.first())
            .ok_or_else(|| Error::run("a step of sequences without blocks"))?;
        let layout = Layout::of(first)?;
        for row in &rows {
            if row.len == 0 || row.new > row.len || row.len > row.blocks.len() * BLOCK {
                return Err(Error::run(format!(
                    "{} tokens, {} of them new, in {} blocks",
                    row.len,
                    row.new,
                    row.blocks.len()
                )));
            }
            if let Some(other) = row.blocks.iter().find(|block| Layout::of(block).ok() != Some(layout)) {
                return Err(Error::run(format!("blocks of keys and values {:?} and {:?}", first.dims(), other.dims())));
            }
        }
        let mut runs = Vec::new();
        let mut first = 0;
        for row in &rows {
            let mut at = row.len - row.new;
            while at < row.len {
                let slot = at % BLOCK;
                let count = (BLOCK - at % BLOCK).min(row.len - at);
                runs.push(SlotRun { block: row.blocks[at / BLOCK], slot, first, count });
                (at, first) = (at + count, first + count);
            }
        }
        Ok(Self {
            rows,
            layout,
            runs,
            #[cfg(feature = "cuda")]
            tables: cuda::Tables::default(),
        })
    }

    pub(crate) fn rows(&self) -> &[PagedSequence<'a>] {
        &self.rows
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn device(&self) -> &'a Device {
        self.rows[0].blocks[0].device()
    }

    fn check_layer(&self, layer: usize) -> Result<()> {
        if layer < self.layout.layers {
            Ok(())
        } else {
            Err(Error::run(format!("layer {layer} of blocks of {} layers", self.layout.layers)))
        }
    }
}

/// Writes `k`, `v (tokens, kv_heads, head_dim)`, f32 or bf16, of the step's new tokens in layer `layer`, in the blocks'
/// type.
pub fn store(step: &PagedBatch<'_>, layer: usize, k: &Tensor, v: &Tensor) -> Result<()> {
    let (tokens, kv_heads, d) = k.dims3()?;
    let layout = step.layout;
    let expected = step.rows.iter().map(|row| row.new).sum::<usize>();
    if v.dims() != k.dims() || (tokens, kv_heads) != (expected, layout.kv_heads) || d > layout.width {
        return Err(Error::run(format!(
            "keys {:?} and values {:?} for {expected} tokens in {layout:?}",
            k.dims(),
            v.dims()
        )));
    }
    step.check_layer(layer)?;
    #[cfg(feature = "cuda")]
    if k.device().is_cuda() {
        return cuda::store(step, layer, k, v);
    }
    let k = k.contiguous()?;
    let v = v.contiguous()?;
    let k = View::of(&k)?;
    let v = View::of(&v)?;
    let k = k.weight()?;
    let v = v.weight()?;
    let write = |run: &SlotRun<'_>| {
        update(run.block, |mut to| {
            put(k, to.from(layout.layer(layer)), run, layout, d);
            put(v, to.from(layout.layer(layer) + layout.half()), run, layout, d);
            Ok(())
        })
    };
    if tokens < BLOCK {
        step.runs.iter().try_for_each(write)
    } else {
        thread_team::map(step.runs.len(), |i| write(&step.runs[i])).into_iter().collect()
    }
}

/// A run's rows of `from (tokens, kv_heads, d)` to `to (kv_heads, 64, width)`.
fn put(from: Weight<'_>, to: WeightMut<'_>, run: &SlotRun<'_>, layout: Layout, d: usize) {
    match (from, to) {
        (Weight::F32(from), WeightMut::F32(to)) => {
            put_rows(from, to, run, layout, d, |from, to| to.copy_from_slice(from))
        }
        (Weight::Bf16(from), WeightMut::Bf16(to)) => {
            put_rows(from, to, run, layout, d, |from, to| to.copy_from_slice(from))
        }
        (Weight::F32(from), WeightMut::Bf16(to)) => put_rows(from, to, run, layout, d, round),
        (Weight::Bf16(from), WeightMut::F32(to)) => {
            put_rows(from, to, run, layout, d, |from: &[bf16], to: &mut [f32]| {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
            })
        }
    }
}

fn put_rows<T, U>(from: &[T], to: &mut [U], run: &SlotRun<'_>, layout: Layout, d: usize, row: impl Fn(&[T], &mut [U])) {
    for head in 0..layout.kv_heads {
        for i in 0..run.count {
            let to = &mut to[head * layout.head() + (run.slot + i) * layout.width..][..d];
            row(&from[((run.first + i) * layout.kv_heads + head) * d..][..d], to);
        }
    }
}

/// All keys and values of the step's sequences in layer `layer`, `(Σ len, kv_heads, d)` each, in the blocks' type.
pub fn gather(step: &PagedBatch<'_>, layer: usize, d: usize) -> Result<(Tensor, Tensor)> {
    step.check_layer(layer)?;
    if d > step.layout.width {
        return Err(Error::run(format!("head_dim {d} of {:?}", step.layout)));
    }
    #[cfg(feature = "cuda")]
    if step.device().is_cuda() {
        return cuda::gather(step, layer, d);
    }
    let at = step.layout.layer(layer);
    Ok((side_by_side(step, at, d)?, side_by_side(step, at + step.layout.half(), d)?))
}

/// What lies from element `at` of each block on: `(Σ len, kv_heads, d)`.
fn side_by_side(step: &PagedBatch<'_>, at: usize, d: usize) -> Result<Tensor> {
    let pieces = step.rows.iter().flat_map(|row| {
        let count = |i: usize| BLOCK.min(row.len.saturating_sub(i * BLOCK));
        row.blocks.iter().enumerate().map(move |(i, block)| (*block, count(i))).filter(|(_, count)| *count > 0)
    });
    let pieces: Vec<(&Tensor, usize)> = pieces.collect();
    let shape = (pieces.iter().map(|(_, count)| count).sum::<usize>(), step.layout.kv_heads, d);
    let views = pieces.iter().map(|(block, count)| Ok((View::of(block)?, *count))).collect::<Result<Vec<_>>>()?;
    let weights =
        views.iter().map(|(view, count)| Ok((view.weight()?.from(at), *count))).collect::<Result<Vec<_>>>()?;
    if step.layout.dtype == DType::BF16 {
        let of = |weight| if let Weight::Bf16(values) = weight { Some(values) } else { None };
        Ok(Tensor::from_vec(rows_of(&weights, of, step.layout, d), shape, &Device::Cpu)?)
    } else {
        tensor(
            rows_of(
                &weights,
                |weight| if let Weight::F32(values) = weight { Some(values) } else { None },
                step.layout,
                d,
            ),
            shape,
        )
    }
}

fn rows_of<'a, T: Copy + Default + Send + Sync + 'a>(
    pieces: &[(Weight<'a>, usize)],
    of: impl Fn(Weight<'a>) -> Option<&'a [T]>,
    layout: Layout,
    d: usize,
) -> Vec<T> {
    let token = layout.kv_heads * d;
    let mut out = vec![T::default(); pieces.iter().map(|(_, count)| count * token).sum()];
    let mut tasks = Vec::new();
    let mut rest = &mut out[..];
    for (weight, count) in pieces {
        let (to, behind) = rest.split_at_mut(count * token);
        tasks.extend(of(*weight).map(|from| (from, to)));
        rest = behind;
    }
    tasks.into_par_iter().par_for_each(|(from, to)| {
        for (i, to) in to.chunks_exact_mut(token).enumerate() {
            for (head, to) in to.chunks_exact_mut(d).enumerate() {
                to.copy_from_slice(&from[head * layout.head() + i * layout.width..][..d]);
            }
        }
    });
    out
}

/// Channels of a block for heads of `head_dim` channels on `device`.
pub fn width(head_dim: usize, device: &Device) -> usize {
    // Of heads that are wider than any kernel, attention tells.
    if device.is_cuda() { kernel_width(head_dim).unwrap_or(head_dim) } else { head_dim }
}

/// Channels of the narrowest of attention's CUDA kernels that serves heads of `head_dim` channels.
pub(crate) fn kernel_width(head_dim: usize) -> Option<usize> {
    [64, 128].into_iter().find(|&width| head_dim <= width)
}

/// Type of a block on `device` for a model whose matrices are `weights`: that to which attention's operands are rounded
/// anyway.
pub fn dtype(weights: DType, device: &Device) -> DType {
    if device.is_cuda() { DType::BF16 } else { weights }
}

/// Blocks of one layer that hold `k`, `v (len, kv_heads, head_dim)` of one sequence: for tests and benches of what
/// reads them.
pub fn blocks_of(k: &Tensor, v: &Tensor) -> Result<Vec<Tensor>> {
    let (len, kv_heads, d) = k.dims3()?;
    let shape = (1, 2, kv_heads, BLOCK, width(d, k.device()));
    let dtype = dtype(k.dtype(), k.device());
    let blocks =
        (0..len.div_ceil(BLOCK)).map(|_| Ok(Tensor::zeros(shape, dtype, k.device())?)).collect::<Result<Vec<_>>>()?;
    store(&PagedBatch::new(vec![PagedSequence { blocks: blocks.iter().collect(), len, new: len }])?, 0, k, v)?;
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{on_threads, random_tensor, values};

    fn wide(x: &Tensor) -> Vec<f32> {
        values(&x.to_dtype(DType::F32).unwrap())
    }

    /// Three layers' blocks of two sequences, stored in steps of several lengths, and what was stored side by side.
    #[test]
    fn what_is_stored_is_gathered_again() {
        let layers = 3;
        let kv_heads = 2;
        let d = 10;
        for (from, held) in
            [(DType::F32, DType::F32), (DType::F32, DType::BF16), (DType::BF16, DType::BF16), (DType::BF16, DType::F32)]
        {
            // One more channel, which nothing writes to.
            let blocks: Vec<Vec<Tensor>> = (0..2)
                .map(|_| {
                    (0..4)
                        .map(|_| Tensor::zeros((layers, 2, kv_heads, BLOCK, d + 1), held, &Device::Cpu).unwrap())
                        .collect()
                })
                .collect();
            let mut expected = vec![[vec![vec![]; 2], vec![vec![]; 2]]; layers];
            let mut lens = [0, 0];
            let mut seed = 1;
            for new in [[3, 70], [1, 1], [1, 1], [100, 3], [0, 64], [1, 0]] {
                lens = [lens[0] + new[0], lens[1] + new[1]];
                let rows = (0..2)
                    .map(|i| PagedSequence { blocks: blocks[i].iter().collect(), len: lens[i], new: new[i] })
                    .collect();
                let step = PagedBatch::new(rows).unwrap();
                for (layer, expected) in expected.iter_mut().enumerate() {
                    let tokens = |seed| random_tensor(seed, &[new[0] + new[1], kv_heads, d]).to_dtype(from).unwrap();
                    let kv = [tokens(seed), tokens(seed + 1)];
                    seed += 2;
                    on_threads(2, || store(&step, layer, &kv[0], &kv[1]).unwrap());
                    let (k, v) = gather(&step, layer, d).unwrap();
                    for (half, (stored, gathered)) in kv.iter().zip([k, v]).enumerate() {
                        let stored = wide(&stored.to_dtype(held).unwrap());
                        let (first, second) = stored.split_at(new[0] * kv_heads * d);
                        expected[half][0].extend_from_slice(first);
                        expected[half][1].extend_from_slice(second);
                        assert_eq!(gathered.dtype(), held);
                        assert_eq!(
                            wide(&gathered),
                            expected[half].concat(),
                            "{from:?} as {held:?}, {lens:?}, layer {layer}"
                        );
                    }
                }
            }
            let behind = blocks[0][0].narrow(4, d, 1).unwrap();
            assert!(wide(&behind).iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let block = Tensor::zeros((1, 2, 2, BLOCK, 4), DType::F32, &Device::Cpu).unwrap();
        let row = |len, new| PagedSequence { blocks: vec![&block], len, new };
        for rows in [vec![], vec![row(65, 1)], vec![row(0, 0)], vec![row(1, 2)]] {
            assert!(PagedBatch::new(rows).is_err());
        }
        let other = Tensor::zeros((2, 2, 2, BLOCK, 4), DType::F32, &Device::Cpu).unwrap();
        assert!(PagedBatch::new(vec![row(1, 1), PagedSequence { blocks: vec![&other], len: 1, new: 1 }]).is_err());
        assert!(
            PagedBatch::new(vec![PagedSequence { blocks: vec![&random_tensor(1, &[2, 2, BLOCK, 4])], len: 1, new: 1 }])
                .is_err()
        );
        let step = PagedBatch::new(vec![row(2, 2)]).unwrap();
        let good = random_tensor(1, &[2, 2, 4]);
        assert!(store(&step, 0, &good, &good).is_ok());
        assert!(store(&step, 1, &good, &good).is_err() && gather(&step, 1, 4).is_err() && gather(&step, 0, 5).is_err());
        for dims in [[1, 2, 4], [2, 1, 4], [2, 2, 5]] {
            assert!(store(&step, 0, &random_tensor(1, &dims), &random_tensor(2, &dims)).is_err(), "{dims:?}");
        }
        assert!(store(&step, 0, &good, &random_tensor(1, &[1, 2, 4])).is_err());
    }
}
