//! A decoding step of a whole model, one token a row: run op by op, or on a GPU as a graph that was captured of an
//! earlier step (`CLSGEN_GRAPH=on`; off else, since it has not yet run on a card).
//!
//! Of a step only its [`Inputs`] change: ids, positions, and where keys and values lie. A graph holds the launches of
//! one step with every address in them, so that a whole step costs the host one launch; it reads its inputs at places
//! that stay, which are written before. Its results have the bits of a step that runs op by op: the same kernels on the
//! same numbers.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Tensor;

use super::Indices;
use super::attention::Decoding;
use super::cuda::GRAPH;
use super::kv_store::PagedBatch;
use crate::error::Result;

/// What a step reads beside the model's weights.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The token of each row.
    pub ids: Indices<'a>,
    /// Its position.
    pub positions: Indices<'a>,
    /// The rows' block tables.
    pub batch: &'a PagedBatch<'a>,
    /// Attention over them.
    pub decoding: &'a Decoding<'a>,
}

/// The graphs of one model whose weights stay where they are: dropped before these change.
#[derive(Debug)]
pub struct DecodeGraphs {
    #[cfg(feature = "cuda")]
    held: cuda::GraphCache,
}

impl DecodeGraphs {
    /// None yet; steps on a GPU will be captured if `wanted`.
    pub fn new(wanted: bool) -> Self {
        let _ = wanted;
        Self {
            #[cfg(feature = "cuda")]
            held: cuda::GraphCache::new(wanted),
        }
    }

    /// As `CLSGEN_GRAPH` says.
    pub fn as_asked() -> Self {
        Self::new(GRAPH.takes_first())
    }

    /// Steps that were launched as a graph.
    pub fn launches(&self) -> usize {
        #[cfg(feature = "cuda")]
        return self.held.launches;
        #[cfg(not(feature = "cuda"))]
        0
    }

    /// What `work` makes of a step of `ids (rows)` at `positions (rows)`, with `heads` query heads. `work` must launch
    /// the same for every step of as many rows. What it returns is overwritten by the next step.
    pub fn run(
        &mut self,
        [ids, positions]: [&[u32]; 2],
        batch: &PagedBatch<'_>,
        heads: usize,
        work: impl Fn(Inputs<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(done) = self.held.run([ids, positions], batch, heads, &work)? {
            return Ok(done);
        }
        #[cfg(feature = "cuda")]
        let _guard = self.held.will_run(batch)?;
        let decoding = Decoding::new(batch, heads)?;
        let done = work(Inputs { ids: ids.into(), positions: positions.into(), batch, decoding: &decoding })?;
        #[cfg(feature = "cuda")]
        self.held.ran(batch, &done);
        Ok(done)
    }
}
