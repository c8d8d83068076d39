//! One run of the CNN: a learning rate, a seed, epoch after epoch.

use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::loss::cross_entropy;
use serde::{Deserialize, Serialize};

use super::{Document, Embeddings, network::Network};
use crate::{
    config::{self, Train},
    error::{Error, Result},
    foreign,
    labels::Class,
    metrics::{
        classification::Confusion,
        multiclass::{self, Row},
        ranking, softmax,
    },
    model::{self, Gradients, peft},
    rng::{Rng, streams},
    signals,
    storage::{AtomicDir, verify_manifest},
    train::{optimizer::Optimizer, schedule::CosineSchedule},
};

const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.json";

/// Which run a state belongs to, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct State {
    learning_rate: f64,
    seed: u64,
    epoch: usize,
}

/// What an epoch came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochResult {
    /// Peak learning rate of the run.
    pub learning_rate: f64,
    /// Its seed.
    pub seed: u64,
    /// Epochs done.
    pub epoch: usize,
    /// Mean training loss of the epoch.
    pub loss: f64,
    /// [`selection_score`] on dev, where dev was scored.
    pub score: Option<f64>,
}

/// A run in progress.
pub struct Trainer<'a> {
    embeddings: &'a Embeddings,
    train: &'a [Document],
    cnn: &'a config::Cnn,
    network: Network,
    optimizer: Optimizer,
    schedule: CosineSchedule,
    state: State,
}

impl<'a> Trainer<'a> {
    /// Begins a run, or goes on from the state in `folder` where it is this run's, at most `until` epochs old.
    pub fn start(
        embeddings: &'a Embeddings,
        classes: usize,
        train: &'a [Document],
        cnn: &'a config::Cnn,
        (learning_rate, seed): (f64, u64),
        folder: &Path,
        until: usize,
    ) -> Result<Self> {
        let total = cnn.epochs * train.len().div_ceil(cnn.batch_size);
        let schedule =
            CosineSchedule { peak: learning_rate, warmup: (cnn.warmup * total as f64).round() as usize, total };
        let held = read_state(folder)
            .filter(|state| state.learning_rate == learning_rate && state.seed == seed && state.epoch <= until);
        let (network, moments) = match held {
            None => (Network::new(embeddings.width()?, classes, cnn, seed)?, None),
            Some(_) => {
                let tensors = model::load_tensors(&folder.join(TENSORS), &Device::Cpu)
                    .map_err(|error| error.hint("delete that folder: its training begins anew"))?;
                let (moments, weights) = tensors.into_iter().partition(|(name, _)| name.starts_with("exp_avg"));
                (Network::from_tensors(weights)?, Some(moments))
            }
        };
        let settings = Train { weight_decay: cnn.weight_decay, max_grad_norm: 0.0, ..Train::default() };
        let mut optimizer = Optimizer::new(network.tensors().clone(), &settings)?;
        if let Some(moments) = moments {
            optimizer.restore(moments)?;
        }
        let state = held.unwrap_or(State { learning_rate, seed, epoch: 0 });
        Ok(Self { embeddings, train, cnn, network, optimizer, schedule, state })
    }

    /// Epochs done.
    pub fn epoch(&self) -> usize {
        self.state.epoch
    }

    /// The network as it is now.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// One pass over the train split in an order of its own; the mean loss.
    pub fn train_epoch(&mut self) -> Result<f64> {
        let steps = self.train.len().div_ceil(self.cnn.batch_size);
        let order = Rng::new(self.state.seed, streams::SHUFFLE).permutation(self.state.epoch as u64, self.train.len());
        let train = self.train;
        let mut sum = 0.0;
        for (i, batch) in order.chunks(self.cnn.batch_size).enumerate() {
            signals::check_interrupted()?;
            let step = self.state.epoch * steps + i + 1;
            let documents: Vec<&Document> = batch.iter().map(|&index| &train[index]).collect();
            sum += self.step(&documents, step)? * batch.len() as f64;
        }
        self.state.epoch += 1;
        Ok(sum / self.train.len() as f64)
    }

    /// A document at a time: a graph holds its winning windows, tens of megabytes.
    fn step(&mut self, documents: &[&Document], step: usize) -> Result<f64> {
        let masks = self.network.masks(documents.len(), self.cnn.dropout, self.state.seed, step)?;
        let mut gradients = Gradients::new();
        let mut sum = 0.0;
        for (row, document) in documents.iter().enumerate() {
            let [features, hidden] = &masks;
            let masks = [features.narrow(0, row, 1)?, hidden.narrow(0, row, 1)?];
            let logits = self.network.forward(self.embeddings, document, Some(&masks))?;
            let loss = cross_entropy(&logits, &Tensor::new(&[document.label.index() as u32], &Device::Cpu)?)?;
            sum += f64::from(loss.to_scalar::<f32>()?);
            for (name, gradient) in self.network.gradients(&(loss / documents.len() as f64)?)? {
                model::accumulate(&mut gradients, &name, gradient)?;
            }
        }
        self.optimizer.step(&gradients, step, self.schedule.learning_rate(step))?;
        Ok(sum / documents.len() as f64)
    }

    /// Writes the state that [`Trainer::start`] goes on from, whole or not at all.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let dir = AtomicDir::create(folder)?;
        let mut tensors = self.optimizer.state();
        tensors.extend(self.network.tensors().clone());
        peft::write_tensors(&dir, TENSORS, &tensors)?;
        let state = serde_json::to_vec(&self.state).map_err(|e| Error::run(format!("cannot write {STATE}: {e}")))?;
        dir.write_file(STATE, &state)?;
        dir.commit(true)
    }
}

/// The state in a folder, where it is there and whole.
fn read_state(folder: &Path) -> Option<State> {
    let bytes = foreign::read(&folder.join(STATE), foreign::LOG).ok()?;
    verify_manifest(folder).ok().filter(|whole| *whole)?;
    serde_json::from_slice(&bytes).ok()
}

/// The probabilities of every class, a document a row. A document's do not depend on what else is read.
pub fn predict(network: &Network, embeddings: &Embeddings, documents: &[Document]) -> Result<Vec<Vec<f64>>> {
    let row = |document| {
        let logits: Vec<f32> = network.forward(embeddings, document, None)?.flatten_all()?.to_vec1()?;
        Ok(softmax(&logits.into_iter().map(f64::from).collect::<Vec<_>>()))
    };
    documents.iter().map(row).collect()
}

/// The rarest class of `labels`, of `classes`: of two equals class 1, the positive one; of more the lowest.
pub fn rarest(classes: usize, labels: impl Iterator<Item = Class>) -> Class {
    let mut counts = vec![0usize; classes];
    labels.filter_map(|label| Some(label.index()).filter(|&k| k < classes)).for_each(|k| counts[k] += 1);
    match counts[..] {
        [zero, one] if one <= zero => Class::ONE,
        _ => Class::of_largest(counts.iter().map(|&count| -(count as f64))),
    }
}

/// Mean of AUROC and the F1 of the rarest class (paper A.2.2), which is that of the train split; of more than two
/// classes AUROC is their macro mean. Two classes are called at 0.5, more by the arg max. A part that is undefined on
/// these records counts as 0.
pub fn selection_score(probabilities: &[Vec<f64>], labels: &[Class], rarest: Class) -> f64 {
    let classes = probabilities.first().map_or(0, Vec::len);
    let call = |row: &Vec<f64>| match row[..] {
        [_, one] => Class::of_probability(one),
        _ => Class::of_largest(row.iter().copied()),
    };
    let auroc = if classes == 2 {
        let ones: Vec<f64> = probabilities.iter().map(|row| row[1]).collect();
        let labels: Vec<bool> = labels.iter().map(|&label| label == Class::ONE).collect();
        ranking::auroc(&ones, &labels).ok()
    } else {
        let rows = probabilities.iter().zip(labels).map(|(probabilities, &label)| Row {
            probabilities,
            label: label.into(),
            verbalized: None,
            group: None,
        });
        multiclass::Sample::new(classes, rows).ok().and_then(|sample| multiclass::macro_auroc(&sample).ok())
    };
    let rows = probabilities.iter().zip(labels).map(|(row, &label)| (label == rarest, call(row) == rarest, 1));
    (auroc.unwrap_or(0.0) + Confusion::count(rows).f1().unwrap_or(0.0)) / 2.0
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
