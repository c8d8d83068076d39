//! Prefill and decode: the forward pass without dropout, over a KV cache.

use candle_core::Tensor;

use super::{Llama, kv_cache::SequenceCache, layer::DecoderLayer};
use crate::{
    error::{Error, Result},
    ops::{
        DECODE_THREADS, Indices, Offsets,
        decode_step::{DecodeGraphs, Inputs},
        embedding,
        kv_store::{self, PagedBatch, PagedSequence},
        linear::Kernel,
        with_spinning_workers,
    },
};

impl Llama {
    /// Reads prompts into their caches; gives each sequence's last hidden state after the final norm, `(n, hidden)`.
    ///
    /// A cache may already hold tokens (a shared prefix, or an earlier part of the prompt): the new ones follow them.
    pub fn prefill(&self, ids: &[u32], offsets: &Offsets, caches: &mut [SequenceCache]) -> Result<Tensor> {
        check_caches(offsets, caches)?;
        let starts: Vec<usize> = caches.iter().map(SequenceCache::len).collect();
        for (range, cache) in offsets.ranges().zip(caches.iter_mut()) {
            cache.reserve(range.len(), &self.kv_pool)?;
        }
        let step = PagedBatch::new(
            offsets.ranges().zip(caches.iter()).map(|(range, cache)| cache.paged(range.len())).collect(),
        )?;
        let behind_others = starts.iter().any(|&start| start > 0);
        let kv_offsets = behind(offsets, &starts);
        let last = self.last_rows(ids, offsets, &starts, |i, layer, [q, k, v], q_offsets| {
            kv_store::store(&step, i, k, v)?;
            if !behind_others {
                return layer.attend(q, k, v, q_offsets, offsets);
            }
            let (k, v) = kv_store::gather(&step, i, layer.heads.head_dim)?;
            layer.attend(q, &k, &v, q_offsets, &kv_offsets)
        })?;
        for (range, cache) in offsets.ranges().zip(caches.iter_mut()) {
            cache.grow(range.len());
        }
        Ok(last)
    }

    /// As [`Llama::prefill`], keeping nothing.
    pub fn prefill_hidden_only(&self, ids: &[u32], offsets: &Offsets) -> Result<Tensor> {
        self.last_rows(ids, offsets, &vec![0; offsets.count()], |_, layer, [q, k, v], q_offsets| {
            layer.attend(q, k, v, q_offsets, offsets)
        })
    }

    /// As [`Llama::prefill_hidden_only`], each sequence behind what its cache holds, which stays as it is.
    pub fn prefill_hidden_behind(&self, ids: &[u32], offsets: &Offsets, caches: &[SequenceCache]) -> Result<Tensor> {
        check_caches(offsets, caches)?;
        let held: Vec<PagedSequence<'_>> =
            caches.iter().filter(|cache| !cache.is_empty()).map(|cache| cache.paged(0)).collect();
        if held.is_empty() {
            return self.prefill_hidden_only(ids, offsets);
        }
        let step = PagedBatch::new(held)?;
        let starts: Vec<usize> = caches.iter().map(SequenceCache::len).collect();
        let kv_offsets = behind(offsets, &starts);
        self.last_rows(ids, offsets, &starts, |i, layer, [q, k, v], q_offsets| {
            let (held_k, held_v) = kv_store::gather(&step, i, layer.heads.head_dim)?;
            let k = interleave(&held_k, k, offsets, &starts)?;
            let v = interleave(&held_v, v, offsets, &starts)?;
            layer.attend(q, &k, &v, q_offsets, &kv_offsets)
        })
    }

    /// All layers, then the final norm of each sequence's last row; `attend` is given (layer index, layer, [q, k, v],
    /// q's offsets). Of the last layer nothing reads the other rows but as keys and values.
    fn last_rows(
        &self,
        ids: &[u32],
        offsets: &Offsets,
        starts: &[usize],
        mut attend: impl FnMut(usize, &DecoderLayer, [&Tensor; 3], &Offsets) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.check_batch(ids, offsets)?;
        let positions: Vec<u32> = offsets
            .ranges()
            .zip(starts)
            .flat_map(|(range, &start)| (start..start + range.len()).map(|p| p as u32))
            .collect();
        let ends: Vec<u32> = offsets.ranges().map(|range| range.end as u32 - 1).collect();
        let end_positions: Vec<u32> = ends.iter().map(|&end| positions[end as usize]).collect();
        let ends = Tensor::from_vec(ends, offsets.count(), &self.device)?;
        let one_each = Offsets::from_lengths(&vec![1; offsets.count()]);
        let mut x = embedding::forward(&self.embed_tokens, ids)?;
        with_spinning_workers(&self.device, usize::MAX, || {
            for (i, layer) in self.layers.iter().enumerate() {
                let (attended, rows) = if i + 1 < self.layers.len() {
                    let (q, k, v) = layer.infer_qkv(&x, &self.rope, Indices::from(&positions), Kernel::Forward)?;
                    (attend(i, layer, [&q, &k, &v], offsets)?, x)
                } else {
                    let [q, k, v] = layer.infer_qkv_of_rows(&x, &ends, &self.rope, [&end_positions, &positions])?;
                    (attend(i, layer, [&q, &k, &v], &one_each)?, x.index_select(&ends, 0)?)
                };
                x = layer.infer_rest(&rows, &attended, Kernel::Forward)?;
            }
            Ok(self.norm.forward(&x)?.0)
        })
    }

    /// One token a sequence → hidden states after the final norm `(rows, hidden)`; the caches grow by it.
    pub fn decode(&self, ids: &[u32], caches: &mut [&mut SequenceCache]) -> Result<Tensor> {
        self.decode_step(ids, caches, &mut DecodeGraphs::new(false), Ok)
    }

    /// As [`Llama::decode`], behind it the LM head: logits `(rows, vocab)`, perhaps by a graph of an earlier step, and
    /// then overwritten by the next.
    pub fn decode_to_logits(
        &self,
        ids: &[u32],
        caches: &mut [&mut SequenceCache],
        graphs: &mut DecodeGraphs,
    ) -> Result<Tensor> {
        self.decode_step(ids, caches, graphs, |hidden| self.decode_logits(&hidden))
    }

    fn decode_step(
        &self,
        ids: &[u32],
        caches: &mut [&mut SequenceCache],
        graphs: &mut DecodeGraphs,
        rest: impl Fn(Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if ids.len() != caches.len() || ids.is_empty() {
            return Err(Error::run(format!("decode: {} tokens for {} caches", ids.len(), caches.len())));
        }
        embedding::check(self.config.vocab_size, ids)?;
        let positions: Vec<u32> = caches.iter().map(|cache| cache.len() as u32).collect();
        caches.iter_mut().try_for_each(|cache| cache.reserve(1, &self.kv_pool))?;
        let batch = PagedBatch::new(caches.iter().map(|cache| cache.paged(1)).collect())?;
        let done = with_spinning_workers(&self.device, DECODE_THREADS, || {
            graphs.run([ids, &positions], &batch, self.config.num_attention_heads, |inputs| {
                rest(self.decode_layers(inputs)?)
            })
        })?;
        drop(batch);
        caches.iter_mut().for_each(|cache| cache.grow(1));
        Ok(done)
    }

    fn decode_layers(&self, inputs: Inputs<'_>) -> Result<Tensor> {
        let mut x = embedding::forward(&self.embed_tokens, inputs.ids)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let (q, k, v) = layer.infer_qkv(&x, &self.rope, inputs.positions, Kernel::Decode)?;
            kv_store::store(inputs.batch, i, &k, &v)?;
            let attended = inputs.decoding.attend(&q, i, layer.heads.scale())?;
            x = layer.infer_rest(&x, &attended, Kernel::Decode)?;
        }
        Ok(self.norm.forward(&x)?.0)
    }

    /// LM head for decoding: streams its weight once for all rows.
    pub fn decode_logits(&self, hidden_rows: &Tensor) -> Result<Tensor> {
        Kernel::Decode.apply(hidden_rows, self.lm_head_weight(), None)
    }
}

fn check_caches(offsets: &Offsets, caches: &[SequenceCache]) -> Result<()> {
    if caches.len() == offsets.count() {
        Ok(())
    } else {
        Err(Error::run(format!("prefill: {} caches for {} sequences", caches.len(), offsets.count())))
    }
}

/// Where each sequence's keys lie, those that it starts behind included.
fn behind(offsets: &Offsets, starts: &[usize]) -> Offsets {
    Offsets::from_lengths(&offsets.ranges().zip(starts).map(|(range, start)| start + range.len()).collect::<Vec<_>>())
}

/// Each sequence's part of `held (Σ starts, kv_heads, d)`, then its part of `new (tokens, kv_heads, d)`, in the type
/// of `new`.
fn interleave(held: &Tensor, new: &Tensor, offsets: &Offsets, starts: &[usize]) -> Result<Tensor> {
    let held = held.to_dtype(new.dtype())?;
    let mut pieces = Vec::new();
    let mut at = 0;
    for (range, &start) in offsets.ranges().zip(starts) {
        if start > 0 {
            pieces.push(held.narrow(0, at, start)?);
        }
        pieces.push(new.narrow(0, range.start, range.len())?);
        at += start;
    }
    Ok(Tensor::cat(&pieces, 0)?)
}
