//! Keys and values of the tokens a sequence has seen; several sequences may share a prefix.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};

/// Rows a cache grows by, at least.
const GROWTH: usize = 64;

/// Keys and values of `len` tokens in every layer.
#[derive(Debug, Default)]
pub struct KvCache {
    /// Per layer: keys and values, `(capacity, kv_heads, head_dim)`; empty until the first token.
    pub layers: Vec<(Tensor, Tensor)>,
    /// Tokens held.
    pub len: usize,
}

impl KvCache {
    /// Writes rows behind the `len` held ones, in layer `layer`; `len` itself moves once all layers have them.
    pub(super) fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<()> {
        let needed = self.len + k.dim(0)?;
        let held = self.layers.len();
        if let Some((held_k, held_v)) = self.layers.get_mut(layer) {
            if held_k.dim(0)? < needed {
                let capacity = needed.max(self.len + (self.len / 4).max(GROWTH));
                (*held_k, *held_v) = (grown(Some(held_k), self.len, capacity, k)?, grown(Some(held_v), self.len, capacity, v)?);
            }
        } else if layer == held {
            let capacity = needed.max(GROWTH);
            self.layers.push((grown(None, 0, capacity, k)?, grown(None, 0, capacity, v)?));
        } else {
            return Err(Error::run(format!("KV cache: layer {layer} before layer {held}")));
        }
        let (held_k, held_v) = &self.layers[layer];
        held_k.slice_set(&k.contiguous()?, 0, self.len)?;
        held_v.slice_set(&v.contiguous()?, 0, self.len)?;
        Ok(())
    }

    /// The held keys and values of a layer, `(len, kv_heads, head_dim)` each; `None` when empty.
    pub(super) fn held(&self, layer: usize) -> Result<Option<(Tensor, Tensor)>> {
        match self.layers.get(layer) {
            Some((k, v)) if self.len > 0 => Ok(Some((k.narrow(0, 0, self.len)?, v.narrow(0, 0, self.len)?))),
            _ => Ok(None),
        }
    }
}

/// A tensor of `capacity` rows shaped as those of `rows`, its first `len` rows copied from `held`.
fn grown(held: Option<&Tensor>, len: usize, capacity: usize, rows: &Tensor) -> Result<Tensor> {
    let (_, kv_heads, head_dim) = rows.dims3()?;
    let tensor = Tensor::zeros((capacity, kv_heads, head_dim), rows.dtype(), rows.device())?;
    if let (Some(held), true) = (held, len > 0) {
        tensor.slice_set(&held.narrow(0, 0, len)?, 0, 0)?;
    }
    Ok(tensor)
}

/// One sequence: an optional shared prefix, then its own tokens.
#[derive(Debug, Default)]
pub struct SequenceCache {
    /// Shared with other sequences, never changed.
    pub prefix: Option<Arc<KvCache>>,
    /// This sequence's own tail.
    pub own: KvCache,
}

impl SequenceCache {
    /// An empty sequence behind `prefix`.
    pub fn with_prefix(prefix: Arc<KvCache>) -> Self {
        Self { prefix: Some(prefix), own: KvCache::default() }
    }

    /// Tokens seen: the position of the next one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.prefix.as_ref().map_or(0, |prefix| prefix.len) + self.own.len
    }

    /// The non-empty parts, prefix first.
    pub(super) fn parts(&self) -> impl Iterator<Item = &KvCache> {
        self.prefix.as_deref().into_iter().chain([&self.own]).filter(|cache| cache.len > 0)
    }

    /// This sequence's tokens as a prefix for others. One that itself has a prefix is copied into one piece.
    pub fn into_prefix(self) -> Result<Arc<KvCache>> {
        let Some(prefix) = &self.prefix else { return Ok(Arc::new(self.own)) };
        if self.own.len == 0 {
            return Ok(prefix.clone());
        }
        let mut whole = KvCache::default();
        for part in [prefix.as_ref(), &self.own] {
            for layer in 0..part.layers.len() {
                if let Some((k, v)) = part.held(layer)? {
                    whole.append(layer, &k, &v)?;
                }
            }
            whole.len += part.len;
        }
        Ok(Arc::new(whole))
    }
}
