//! The training pass over all layers: forward, and its backward from the last layer to the first.

use candle_core::Tensor;

use super::{
    ActivationCheckpointing, Gradients, Llama, accumulate,
    adapter::LoraDropout,
    layer::{DecoderLayer, SavedActivations},
    projection::LayerPass,
    read_rows::ReadRows,
};
use crate::{
    config::Parameters,
    error::{Error, Result},
    ops::{Offsets, embedding, linear},
    signals,
};

const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// How a training pass runs.
#[derive(Debug, Clone)]
pub struct TrainingContext {
    /// `None` switches dropout off.
    pub dropout: Option<LoraDropout>,
    /// What layers keep.
    pub memory: ActivationCheckpointing,
    /// What is trained.
    pub trains: Parameters,
    /// Position of each sequence from which on its final hidden states are read, to its end; `None`: from 0 on.
    pub read_from: Option<Vec<usize>>,
}

/// What one layer holds between forward and backward.
#[derive(Debug)]
enum SavedLayer {
    /// Everything backward reads.
    Keep(Box<SavedActivations>),
    /// The layer's input; the rest is computed again, to the same bits.
    Recompute(Tensor),
}

/// What [`Llama::backward`] needs of a forward pass.
#[derive(Debug)]
pub struct Saved {
    ids: Vec<u32>,
    offsets: Offsets,
    positions: Vec<u32>,
    context: TrainingContext,
    layers: Vec<SavedLayer>,
    /// The layers of the pass, where they are not the model's own.
    rounded: Option<Vec<DecoderLayer>>,
    read: Option<ReadRows>,
    /// The final norm's input and 1/rms, of the rows that are read.
    last: (Tensor, Tensor),
}

impl Saved {
    /// The input of each layer, then that of the final norm: HF's `hidden_states`, but for the last, which HF norms.
    pub fn hidden_states(&self) -> Vec<&Tensor> {
        let inputs = self.layers.iter().map(|layer| match layer {
            SavedLayer::Keep(kept) => kept.input(),
            SavedLayer::Recompute(x) => x,
        });
        inputs.chain([&self.last.0]).collect()
    }

    /// Bytes of the storage behind what each layer holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> Vec<u64> {
        let bytes = |tensors: Vec<&Tensor>| tensors.into_iter().map(storage_bytes).sum();
        let layers = self.layers.iter().map(|layer| match layer {
            SavedLayer::Keep(kept) => bytes(kept.tensors()),
            SavedLayer::Recompute(x) => storage_bytes(x),
        });
        layers.collect()
    }
}

/// All of a CPU tensor's storage, whatever part of it the tensor shows.
#[cfg(test)]
fn storage_bytes(tensor: &Tensor) -> u64 {
    let (storage, _) = tensor.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else { return 0 };
    let numbers = match storage {
        candle_core::CpuStorage::F32(numbers) => numbers.len(),
        candle_core::CpuStorage::BF16(numbers) => numbers.len(),
        _ => 0,
    };
    (numbers * tensor.dtype().size_in_bytes()) as u64
}

impl ActivationCheckpointing {
    /// Whether layer `i` of `layers` keeps its activations.
    fn keeps(self, i: usize, layers: usize) -> bool {
        match self {
            Self::Keep => true,
            Self::Recompute => false,
            Self::KeepLast(n) => i + n >= layers,
        }
    }
}

impl Llama {
    /// Training forward: ids of concatenated sequences → hidden states after the final norm `(tokens, hidden)`, in
    /// which rows that are not read may be 0.
    pub fn forward(&self, ids: &[u32], offsets: &Offsets, context: &TrainingContext) -> Result<(Tensor, Saved)> {
        self.check_batch(ids, offsets)?;
        if let Some(dropout) = context.dropout.as_ref().filter(|dropout| dropout.record_keys.len() != offsets.count()) {
            return Err(Error::run(format!(
                "dropout: {} keys for {} sequences",
                dropout.record_keys.len(),
                offsets.count()
            )));
        }
        let positions = offsets.positions();
        let pass = LayerPass::new(offsets, &positions, context.dropout.as_ref(), context.trains);
        let read = self.rows_read(offsets, context)?;
        let mut x = embedding::forward(&self.embed_tokens, ids)?;
        let rounded = self.rounded_layers()?;
        let mut layers = Vec::with_capacity(self.layers.len());
        for (i, layer) in rounded.as_ref().unwrap_or(&self.layers).iter().enumerate() {
            signals::check_interrupted()?;
            let pass = if i + 1 == self.layers.len() { pass.of_last(read.as_ref()) } else { pass };
            let kept = layer.forward_saving(&x, &self.rope, &pass)?;
            let y = layer.output(&kept, &pass)?;
            layers.push(if context.memory.keeps(i, self.layers.len()) {
                SavedLayer::Keep(Box::new(kept))
            } else {
                SavedLayer::Recompute(x)
            });
            x = y;
        }
        let (hidden_states, rstd) = self.norm.forward(&x)?;
        let hidden_states = match &read {
            Some(read) => read.scatter(&hidden_states)?,
            None => hidden_states,
        };
        let ids = ids.to_vec();
        let offsets = offsets.clone();
        let context = context.clone();
        Ok((hidden_states, Saved { ids, offsets, positions, context, layers, rounded, read, last: (x, rstd) }))
    }

    /// Adds to `gradients` those of everything `context.trains` names, from `d_hidden (tokens, hidden)`.
    ///
    /// With a frozen base nothing below the first layer is trained, so its dx is never computed. Where the embedding is
    /// the LM head too, [`Llama::tie_gradients`] ends the sum.
    pub fn backward(&self, saved: Saved, d_hidden: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let Saved { ids, offsets, positions, context, layers, rounded, read, last: (x, rstd) } = saved;
        let pass = LayerPass::new(&offsets, &positions, context.dropout.as_ref(), context.trains);
        let trains_embedding = context.trains == Parameters::Full;
        let d_hidden = read.as_ref().map_or_else(|| Ok(d_hidden.clone()), |read| read.gather(d_hidden))?;
        let last = pass.of_last(read.as_ref());
        let mut dx = Some(self.norm.backward(&x, &rstd, &d_hidden, &last.of_read(), gradients)?);
        let of_pass = rounded.as_ref().unwrap_or(&self.layers);
        for (i, (layer, saved)) in of_pass.iter().zip(layers).enumerate().rev() {
            signals::check_interrupted()?;
            let Some(dy) = dx else { break };
            let pass = if i + 1 == self.layers.len() { last } else { pass };
            let kept = match saved {
                SavedLayer::Keep(kept) => *kept,
                SavedLayer::Recompute(x) => layer.forward_saving(&x, &self.rope, &pass)?,
            };
            dx = layer.backward(kept, &dy, &self.rope, &pass, i > 0 || trains_embedding, gradients)?;
        }
        if let (Some(dx), true) = (dx, trains_embedding) {
            for range in offsets.ranges() {
                let rows = dx.narrow(0, range.start, range.len())?;
                let gradient = embedding::backward(self.config.vocab_size, &ids[range], &rows)?;
                accumulate(gradients, EMBEDDING, gradient)?;
            }
        }
        Ok(())
    }

    /// Adds the LM head's gradient to the embedding's where they are one tensor: once, behind the last micro-batch of a
    /// step. A micro-batch has all its records' LM head before the first one's embedding, so one sum of both would
    /// depend on how records are batched.
    pub fn tie_gradients(&self, gradients: &mut Gradients) -> Result<()> {
        let tied = if self.lm_head.is_none() { gradients.remove(LM_HEAD) } else { None };
        tied.map_or(Ok(()), |of_head| accumulate(gradients, EMBEDDING, of_head))
    }

    /// The rows that are read, where the last layer leaves the others out: on a CPU, under a frozen MLP. A sum over
    /// rows (a trained weight's gradient) would have other parts than over all of them.
    fn rows_read(&self, offsets: &Offsets, context: &TrainingContext) -> Result<Option<ReadRows>> {
        let frozen = self.layers.last().is_some_and(|layer| !layer.mlp_trains(context.trains));
        let first = context.read_from.as_ref().filter(|_| frozen && self.device.is_cpu());
        first.map(|first| ReadRows::new(offsets, first)).transpose()
    }

    /// LM head on some rows: `(n, hidden)` → `(n, vocab)`.
    pub fn logits(&self, hidden_rows: &Tensor) -> Result<Tensor> {
        linear::forward(hidden_rows, self.lm_head_weight(), None)
    }

    /// Gradient of the rows; adds the LM head's own under `Parameters::Full`.
    ///
    /// Rows of one call are summed together: call it a record at a time for sums that do not depend on batching.
    pub fn logits_backward(
        &self,
        dlogits: &Tensor,
        hidden_rows: &Tensor,
        trains: Parameters,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if trains == Parameters::Full {
            accumulate(gradients, LM_HEAD, linear::backward_weight(dlogits, hidden_rows)?)?;
        }
        linear::backward_input(dlogits, self.lm_head_weight())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::{
        model::LoraConfig,
        model::config::tests::tiny,
        rng::{Rng, streams},
    };

    const LENGTHS: [usize; 2] = [7, 4];

    fn random(name: u64, shape: &[usize]) -> Tensor {
        let rng = Rng::new(1, streams::MODEL_INIT);
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| rng.normal(name, i as u64)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// A tiny model whose every tensor is large enough to matter.
    fn model(lora: bool) -> Llama {
        let mut llama = Llama::random(tiny(), DType::F32, 3, &Device::Cpu).unwrap();
        if lora {
            let targets = crate::model::adapter::PROJECTIONS.map(String::from).to_vec();
            llama.add_lora(&LoraConfig { rank: 2, alpha: 3.0, dropout: 0.2, targets, use_rslora: false }, 4).unwrap();
        }
        for (i, tensor) in llama.base_tensors().values().chain(llama.adapter_tensors().values()).enumerate() {
            let noise = (random(i as u64, tensor.dims()) * 0.3).unwrap();
            let value = if tensor.rank() == 1 { (noise + 1.0).unwrap() } else { noise };
            tensor.slice_set(&value, 0, 0).unwrap();
        }
        llama
    }

    /// A loss that weighs hidden states and logits at random, and its gradients.
    fn loss(llama: &Llama, trains: Parameters, gradients: &mut Gradients) -> f64 {
        let offsets = Offsets::from_lengths(&LENGTHS);
        let ids: Vec<u32> = (0..offsets.total() as u32).map(|i| (5 * i + 3) % 11).collect();
        let dropout = llama.lora.is_some().then(|| LoraDropout { seed: 8, record_keys: vec![1, 2] });
        let memory = ActivationCheckpointing::KeepLast(1);
        let context = TrainingContext { dropout, memory, trains, read_from: None };
        let (hidden, saved) = llama.forward(&ids, &offsets, &context).unwrap();
        let logits = llama.logits(&hidden).unwrap();
        let weights = random(1000, hidden.dims());
        let logit_weights = random(1001, logits.dims());
        let dot = |a: &Tensor, b: &Tensor| -> f64 {
            let a = a.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let b = b.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let value = dot(&hidden, &weights) + dot(&logits, &logit_weights);
        let d_hidden = (weights + llama.logits_backward(&logit_weights, &hidden, trains, gradients).unwrap()).unwrap();
        llama.backward(saved, &d_hidden, gradients).unwrap();
        value
    }

    /// Each tensor moved along its gradient g by ±h: the loss must change by 2h‖g‖².
    #[test]
    fn every_gradient_is_the_slope_of_the_loss() {
        for trains in [Parameters::Lora, Parameters::Full] {
            let llama = model(trains == Parameters::Lora);
            let mut gradients = Gradients::new();
            loss(&llama, trains, &mut gradients);
            let handles = llama.trainable(trains).unwrap();
            assert_eq!(handles.keys().collect::<Vec<_>>(), gradients.keys().collect::<Vec<_>>());
            for (name, gradient) in &gradients {
                let squared = f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
                assert!(squared > 0.0, "{name}");
                let handle = &handles[name];
                let h = 3e-3 / squared.sqrt();
                let start = (handle * 1.0).unwrap();
                let at = |by: f64| {
                    handle.slice_set(&(&start + (gradient * by).unwrap()).unwrap(), 0, 0).unwrap();
                    loss(&llama, trains, &mut Gradients::new())
                };
                let slope = (at(h) - at(-h)) / (2.0 * h);
                handle.slice_set(&start, 0, 0).unwrap();
                assert!(
                    (slope / squared - 1.0).abs() < 1e-2,
                    "{trains:?} {name}: slope {slope:e}, squared norm {squared:e}"
                );
            }
        }
    }

    /// The loss reads rows from `FIRST` on: telling the pass so changes no bit of them or of any gradient.
    #[test]
    fn rows_that_nobody_reads_change_no_bit() {
        const FIRST: [usize; 2] = [3, 2];
        let mut llama = Llama::random(tiny(), DType::F32, 3, &Device::Cpu).unwrap();
        llama.add_lora(&LoraConfig { dropout: 0.2, ..LoraConfig::from(&crate::config::Lora::default()) }, 4).unwrap();
        for (i, tensor) in llama.adapter_tensors().values().enumerate() {
            tensor.slice_set(&(random(i as u64, tensor.dims()) * 0.3).unwrap(), 0, 0).unwrap();
        }
        let offsets = Offsets::from_lengths(&LENGTHS);
        let ids: Vec<u32> = (0..offsets.total() as u32).map(|i| (5 * i + 3) % 11).collect();
        let rows = ReadRows::new(&offsets, &FIRST).unwrap();
        let pass = |memory: ActivationCheckpointing, read_from: Option<Vec<usize>>| {
            let dropout = Some(LoraDropout { seed: 8, record_keys: vec![1, 2] });
            let context = TrainingContext { dropout, memory, trains: Parameters::Lora, read_from };
            let (hidden, saved) = llama.forward(&ids, &offsets, &context).unwrap();
            let d_hidden = rows.scatter(&rows.gather(&random(1000, hidden.dims())).unwrap()).unwrap();
            let mut gradients = Gradients::new();
            llama.backward(saved, &d_hidden, &mut gradients).unwrap();
            let bits = |x: &Tensor| -> Vec<u32> {
                x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            (bits(&rows.gather(&hidden).unwrap()), gradients.iter().map(|(n, g)| (n.clone(), bits(g))).collect())
        };
        let all: (Vec<u32>, Vec<(String, Vec<u32>)>) = pass(ActivationCheckpointing::Keep, None);
        assert_eq!(all.1.len(), 2 * 4 * llama.config.num_hidden_layers);
        for memory in [ActivationCheckpointing::Keep, ActivationCheckpointing::Recompute] {
            assert_eq!(pass(memory, Some(FIRST.to_vec())), all, "{memory:?}");
        }
    }

    #[test]
    fn a_frozen_base_gets_no_gradient_and_does_not_move() {
        let llama = model(true);
        let mut gradients = Gradients::new();
        loss(&llama, Parameters::Lora, &mut gradients);
        assert!(gradients.keys().all(|name| name.contains("lora_")));
        assert_eq!(gradients.len(), 2 * 7 * llama.config.num_hidden_layers);
    }

    #[test]
    fn fresh_adapters_leave_the_function_as_it_was() {
        let mut llama = Llama::random(tiny(), DType::F32, 3, &Device::Cpu).unwrap();
        let offsets = Offsets::from_lengths(&[5]);
        let before = llama.prefill_hidden_only(&[1, 2, 3, 4, 5], &offsets).unwrap().to_vec2::<f32>().unwrap();
        llama.add_lora(&LoraConfig::from(&crate::config::Lora::default()), 1).unwrap();
        let after = llama.prefill_hidden_only(&[1, 2, 3, 4, 5], &offsets).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(before, after);
        for (name, tensor) in llama.adapter_tensors() {
            let bound = 1.0 / (tensor.dim(1).unwrap() as f32).sqrt();
            let largest = tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let as_drawn =
                if name.contains("lora_A") { largest > 0.8 * bound && largest <= bound } else { largest == 0.0 };
            assert!(as_drawn, "{name} {largest}");
        }
    }
}
