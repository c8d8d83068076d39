//! Steps captured and launched again, by number of rows and of chunks of keys.

use candle_core::{DType, Shape, Tensor};

use super::super::attention::{BlockTable, CHUNK, Decoding};
use super::super::cuda::{Graph, Places};
use super::super::kv_store::{BLOCK, PagedBatch};
use super::{Indices, Inputs};
use crate::error::{Error, Result};

/// Graphs held at once: rows leave a batch one by one, and each number of them has its own.
const MOST: usize = 16;
/// Chunks of keys that a graph's attention has blocks for are a multiple of this: 2,048 tokens. Those beyond a row's
/// keys end at once.
const CHUNKS: usize = 8;

/// What steps must share to be the same launches.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    rows: usize,
    chunks: usize,
}

impl Key {
    fn of(batch: &PagedBatch<'_>) -> Self {
        let longest = batch.rows().iter().map(|row| row.len).max().unwrap_or(0);
        Self { rows: batch.rows().len(), chunks: longest.div_ceil(CHUNK).next_multiple_of(CHUNKS) }
    }

    /// Words of the inputs: an id and a position a row; of 64 bits a slot, a row of the table, and the blocks.
    fn words(self) -> usize {
        2 * self.rows + 2 * (2 * self.rows + self.blocks())
    }

    fn blocks(self) -> usize {
        self.rows * self.chunks * CHUNK / BLOCK
    }
}

#[derive(Debug)]
enum Step {
    /// It ran op by op: what a capture must not do (load a kernel, choose an algorithm) is done. Its result's form.
    Seen(Shape, DType),
    Captured {
        graph: Graph,
        places: Places,
        result: Tensor,
    },
}

/// The graphs captured so far.
#[derive(Debug)]
pub(super) struct GraphCache {
    /// The one used last is the last.
    steps: Vec<(Key, Step)>,
    /// Steps are to be captured, and no capture has failed: what failed once fails again.
    on: bool,
    pub launches: usize,
}

impl GraphCache {
    pub fn new(on: bool) -> Self {
        Self { steps: Vec::new(), on, launches: 0 }
    }

    /// The step's result, if it is one that can be captured, or was.
    pub fn run(
        &mut self,
        [ids, positions]: [&[u32]; 2],
        batch: &PagedBatch<'_>,
        heads: usize,
        work: &impl Fn(Inputs<'_>) -> Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        if !self.wanted(batch) {
            return Ok(None);
        }
        let key = Key::of(batch);
        let Some(i) = self.steps.iter().position(|(held, _)| *held == key) else { return Ok(None) };
        let (_, step) = self.steps.remove(i);
        let step = match step {
            Step::Seen(shape, dtype) => match capture(key, [ids, positions], batch, heads, (&shape, dtype), work) {
                Ok(step) => step,
                Err(error) => return Ok(self.give_up(&error)),
            },
            captured @ Step::Captured { .. } => captured,
        };
        let mut result = None;
        if let Step::Captured { graph, places, result: held } = &step {
            places.write(&words(key, [ids, positions], batch)?)?;
            // Its first launch may find no room for what the graph holds; nothing of the step is done then.
            if let Err(error) = graph.launch() {
                return Ok(self.give_up(&error));
            }
            self.launches += 1;
            result = Some(held.clone());
        }
        self.steps.push((key, step));
        Ok(result)
    }

    /// No graphs from here on: the step runs op by op.
    fn give_up(&mut self, error: &Error) -> Option<Tensor> {
        tracing::warn!("decoding goes on without CUDA graphs: {error}");
        *self = Self::new(false);
        None
    }

    fn wanted(&self, batch: &PagedBatch<'_>) -> bool {
        // Rows that share keys are decoded by items, whose number changes.
        self.on && batch.device().is_cuda() && !BlockTable::is_shared()
    }

    /// A step will run op by op: what candle copies from the host for a strided tensor is kept while this is, for a
    /// capture, which cannot copy it.
    pub fn will_run(&self, batch: &PagedBatch<'_>) -> Result<Option<impl Drop + use<>>> {
        let device = self.wanted(batch).then(|| batch.device().as_cuda_device()).transpose()?;
        Ok(device.map(|device| device.enable_cuda_graph_htod_cache()))
    }

    /// A step that ran op by op: the next like it may be captured.
    pub fn ran(&mut self, batch: &PagedBatch<'_>, result: &Tensor) {
        let key = Key::of(batch);
        if !self.wanted(batch) || self.steps.iter().any(|(held, _)| *held == key) {
            return;
        }
        if self.steps.len() == MOST {
            self.steps.remove(0);
        }
        self.steps.push((key, Step::Seen(result.shape().clone(), result.dtype())));
    }
}

/// What the places hold, in the order that [`capture`] gives them out.
fn words(key: Key, [ids, positions]: [&[u32]; 2], batch: &PagedBatch<'_>) -> Result<Vec<u32>> {
    let table = BlockTable::words(batch)?;
    let mut words = [ids, positions].concat();
    for word in batch.slots_of_new()?.into_iter().chain(table.rows).chain(table.blocks) {
        words.extend([word as u32, (word >> 32) as u32]);
    }
    // Blocks that no row has are looked at by none.
    words.resize(key.words(), 0);
    Ok(words)
}

/// The launches of a step that reads its inputs at new places. Nothing is computed.
fn capture(
    key: Key,
    [ids, positions]: [&[u32]; 2],
    batch: &PagedBatch<'_>,
    heads: usize,
    (shape, dtype): (&Shape, DType),
    work: &impl Fn(Inputs<'_>) -> Result<Tensor>,
) -> Result<Step> {
    let places = Places::new(batch.device(), key.words())?;
    let result = Tensor::zeros(shape, dtype, batch.device())?;
    // The kernel of a copy into a tensor: no step runs it op by op, and within the capture it could not be loaded.
    result.slice_set(&result.zeros_like()?, 0, 0)?;
    let mut taken = 0;
    let mut place = |words: usize| {
        taken += words;
        places.part(taken - words, words)
    };
    let place_of_ids = place(key.rows)?;
    let place_of_positions = place(key.rows)?;
    // The step itself may yet run op by op: this capture's places are not its own.
    let placed = batch.with_slots_of_new(place(2 * key.rows)?);
    let table = BlockTable::placed(place(2 * key.rows)?, place(2 * key.blocks())?, key.rows, key.chunks * CHUNK);
    let decoding = Decoding::placed(&placed, heads, table);
    let inputs = Inputs {
        ids: Indices::placed(ids, &place_of_ids),
        positions: Indices::placed(positions, &place_of_positions),
        batch: &placed,
        decoding: &decoding,
    };
    // Within the capture all is freed that was made in it, but for what is not the graph's.
    let graph = Graph::capture(batch.device(), || Ok(result.slice_set(&work(inputs)?, 0, 0)?))?;
    Ok(Step::Captured { graph, places, result })
}
