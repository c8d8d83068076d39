//! Keys and values of the tokens a sequence has seen; several sequences may share a prefix.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;

/// Keys and values of `len` tokens in every layer.
#[derive(Debug, Default)]
pub struct KvCache {
    /// Per layer: keys and values, `(capacity, kv_heads, head_dim)`; empty until the first token.
    pub layers: Vec<(Tensor, Tensor)>,
    /// Tokens held.
    pub len: usize,
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

    /// This sequence's tokens as a prefix for others.
    pub fn into_prefix(self) -> Result<Arc<KvCache>> {
        todo!()
    }
}
