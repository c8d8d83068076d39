//! Prefill and decode: the forward pass without dropout, over a KV cache.

use candle_core::{DType, Tensor};

use super::{Llama, kv_cache::SequenceCache, layer::DecoderLayer, projection::Kernel};
use crate::{
    error::{Error, Result},
    ops::{Offsets, attention, attention::KvSegment, cast::to_bf16, embedding, together},
};

impl Llama {
    /// Reads prompts into their caches; gives each sequence's last hidden state after the final norm, `(n, hidden)`.
    ///
    /// A cache may already hold tokens (a shared prefix, or an earlier part of the prompt): the new ones follow them.
    pub fn prefill(&self, ids: &[u32], offsets: &Offsets, caches: &mut [SequenceCache]) -> Result<Tensor> {
        if caches.len() != offsets.count() {
            return Err(Error::run(format!("prefill: {} caches for {} sequences", caches.len(), offsets.count())));
        }
        let starts: Vec<usize> = caches.iter().map(SequenceCache::len).collect();
        let last = self.last_rows(ids, offsets, &starts, |i, layer, q, k, v| {
            let (k, v) = (&self.kept(k)?, &self.kept(v)?);
            let (all_k, all_v, kv_offsets) = with_cached(i, k, v, offsets, caches)?;
            for (range, cache) in offsets.ranges().zip(caches.iter_mut()) {
                let rows = |t: &Tensor| t.narrow(0, range.start, range.len());
                cache.own.append(i, &rows(k)?, &rows(v)?)?;
            }
            layer.attend(q, &all_k, &all_v, offsets, &kv_offsets)
        })?;
        for (range, cache) in offsets.ranges().zip(caches.iter_mut()) {
            cache.own.len += range.len();
        }
        Ok(last)
    }

    /// As [`Llama::prefill`], keeping nothing.
    pub fn prefill_hidden_only(&self, ids: &[u32], offsets: &Offsets) -> Result<Tensor> {
        self.last_rows(ids, offsets, &vec![0; offsets.count()], |_, layer, q, k, v| layer.attend(q, k, v, offsets, offsets))
    }

    /// All layers, then the final norm of each sequence's last row; `attend` is given (layer index, layer, q, k, v).
    fn last_rows(
        &self,
        ids: &[u32],
        offsets: &Offsets,
        starts: &[usize],
        mut attend: impl FnMut(usize, &DecoderLayer, &Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.check_batch(ids, offsets)?;
        let positions: Vec<u32> =
            offsets.ranges().zip(starts).flat_map(|(range, &start)| (start..start + range.len()).map(|p| p as u32)).collect();
        let ends: Vec<u32> = offsets.ranges().map(|range| range.end as u32 - 1).collect();
        let ends = Tensor::from_vec(ends, offsets.count(), &self.device)?;
        let mut x = embedding::forward(&self.embed_tokens, ids)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let (q, k, v) = layer.infer_qkv(&x, &self.rope, &positions, Kernel::Forward)?;
            let mut attended = attend(i, layer, &q, &k, &v)?;
            if i + 1 == self.layers.len() {
                // Nothing reads the last layer's other rows.
                (x, attended) = (x.index_select(&ends, 0)?, attended.index_select(&ends, 0)?);
            }
            x = layer.infer_rest(&x, &attended, Kernel::Forward)?;
        }
        Ok(self.norm.forward(&x)?.0)
    }

    /// One token a sequence → hidden states after the final norm `(rows, hidden)`; the caches grow by it.
    pub fn decode(&self, ids: &[u32], caches: &mut [&mut SequenceCache]) -> Result<Tensor> {
        if ids.len() != caches.len() || ids.is_empty() {
            return Err(Error::run(format!("decode: {} tokens for {} caches", ids.len(), caches.len())));
        }
        together(|| self.decode_layers(ids, caches))
    }

    fn decode_layers(&self, ids: &[u32], caches: &mut [&mut SequenceCache]) -> Result<Tensor> {
        let positions: Vec<u32> = caches.iter().map(|cache| cache.len() as u32).collect();
        let mut x = embedding::forward(&self.embed_tokens, ids)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let (q, k, v) = layer.infer_qkv(&x, &self.rope, &positions, Kernel::Decode)?;
            let (k, v) = (self.kept(&k)?, self.kept(&v)?);
            for (row, cache) in caches.iter_mut().enumerate() {
                cache.own.append(i, &k.narrow(0, row, 1)?, &v.narrow(0, row, 1)?)?;
            }
            let rows: Vec<Vec<KvSegment<'_>>> = caches.iter().map(|cache| segments(cache, i)).collect();
            let attended = attention::decode(&q, &rows, layer.heads.scale())?;
            x = layer.infer_rest(&x, &attended, Kernel::Decode)?;
        }
        for cache in caches.iter_mut() {
            cache.own.len += 1;
        }
        Ok(self.norm.forward(&x)?.0)
    }

    /// New keys or values as the cache holds them.
    fn kept(&self, x: &Tensor) -> Result<Tensor> {
        if self.kv_dtype() == DType::BF16 { to_bf16(x) } else { Ok(x.clone()) }
    }

    /// LM head for decoding: streams its weight once for all rows.
    pub fn decode_logits(&self, hidden_rows: &Tensor) -> Result<Tensor> {
        Kernel::Decode.apply(hidden_rows, self.lm_head_weight(), None)
    }
}

/// A row's segments in layer `i`, its new token included (which `own.len` does not count yet).
fn segments(cache: &SequenceCache, i: usize) -> Vec<KvSegment<'_>> {
    let prefix = cache.prefix.as_deref().filter(|prefix| prefix.len > 0).map(|prefix| (prefix, prefix.len));
    let parts = prefix.into_iter().chain([(&cache.own, cache.own.len + 1)]);
    parts.map(|(part, len)| KvSegment { k: &part.layers[i].0, v: &part.layers[i].1, len }).collect()
}

/// Keys and values of layer `i` with each sequence's cached rows before its new ones.
fn with_cached(i: usize, k: &Tensor, v: &Tensor, offsets: &Offsets, caches: &[SequenceCache]) -> Result<(Tensor, Tensor, Offsets)> {
    if caches.iter().all(|cache| cache.len() == 0) {
        return Ok((k.clone(), v.clone(), offsets.clone()));
    }
    let (mut keys, mut values, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for (range, cache) in offsets.ranges().zip(caches) {
        for part in cache.parts() {
            if let Some((held_k, held_v)) = part.held(i)? {
                keys.push(held_k);
                values.push(held_v);
            }
        }
        keys.push(k.narrow(0, range.start, range.len())?);
        values.push(v.narrow(0, range.start, range.len())?);
        lengths.push(cache.len() + range.len());
    }
    Ok((Tensor::cat(&keys, 0)?, Tensor::cat(&values, 0)?, Offsets::from_lengths(&lengths)))
}
