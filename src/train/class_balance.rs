//! Rare classes: weights of the classification loss, and epochs that draw every class equally often.
//!
//! Both make a model pay more heed to a rare class, and left alone both would also make it call that class far too
//! likely: weighted cross-entropy is least where softmax ∝ w_k·P(k), a balanced sample's where softmax ∝
//! P(k)·(drawn share / natural share)_k. So the loss is taken of logits + ln of that factor (logit adjustment, Menon
//! et al., ICLR 2021; prior correction, King & Zeng 2001): it is least where softmax(logits) = P(k), and the
//! probability that the head gives stays one that needs no correction afterwards.
//!
//! ```text
//! L_cls = 1/n Σ_i w_yi · CE(logits_i + offsets, y_i)      n: the step's records, whatever their weights
//! ```

use candle_core::Tensor;

use crate::{
    config::{self, ClassWeights, EpochSample},
    error::{Error, Result},
    rng::{Rng, streams},
};

/// What `train.class_weights` and `train.sample` do to L_cls.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassBalance {
    /// w_k, by class.
    pub weights: Vec<f64>,
    /// What the loss adds to the logits, by class.
    pub offsets: Vec<f64>,
}

impl ClassBalance {
    /// Of records with these classes, `count` of them; `None` where every class counts as it comes.
    ///
    /// # Errors
    /// A class without a record (exit 3).
    pub fn new(settings: &config::Train, classes: &[u32], count: usize) -> Result<Option<Self>> {
        let weighted = settings.class_weights != ClassWeights::None;
        if !weighted && settings.sample == EpochSample::Natural {
            return Ok(None);
        }
        let records = sizes(&by_class(classes, count)?);
        let weights = match &settings.class_weights {
            ClassWeights::None => vec![1.0; count],
            ClassWeights::Balanced => {
                records.iter().map(|&of_class| classes.len() as f64 / (count * of_class) as f64).collect()
            }
            ClassWeights::Given(weights) => weights.clone(),
        };
        let drawn = match settings.sample {
            EpochSample::Natural => records.clone(),
            EpochSample::Balanced => (0..count).map(|class| share(classes.len(), count, class)).collect(),
        };
        let prior = drawn.iter().zip(&records).map(|(&drawn, &records)| drawn as f64 / records as f64);
        let offsets = weights.iter().zip(prior).map(|(weight, prior)| (weight * prior).ln()).collect();
        Ok(Some(Self { weights, offsets }))
    }

    /// `logits (1, K)` as the loss reads them; their gradient is that of the logits.
    pub(super) fn adjusted(&self, logits: &Tensor) -> Result<Tensor> {
        let offsets: Vec<f32> = self.offsets.iter().map(|&offset| offset as f32).collect();
        Ok((logits + Tensor::from_vec(offsets, logits.shape(), logits.device())?)?)
    }
}

/// An epoch of as many draws as there are records, each class in the same number of them.
///
/// A class's records follow each other in a shuffled order, and in another one once all were drawn, over the ends of
/// epochs: none is drawn twice before all were drawn once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancedSampler {
    /// Records of each class.
    by_class: Vec<Vec<usize>>,
    records: usize,
}

impl BalancedSampler {
    /// Of records with these classes, `count` of them.
    ///
    /// # Errors
    /// A class without a record (exit 3).
    pub fn new(classes: &[u32], count: usize) -> Result<Self> {
        Ok(Self { by_class: by_class(classes, count)?, records: classes.len() })
    }

    /// How many draws of an epoch are of `class`.
    pub fn draws(&self, class: usize) -> usize {
        share(self.records, self.by_class.len(), class)
    }

    /// How often an epoch draws a record of `class` at most: once of each order that its draws, which may begin within
    /// one, have a part of.
    pub fn most_often(&self, class: u32) -> usize {
        let class = class as usize;
        let draws = self.draws(class);
        draws.min(draws.saturating_sub(1).div_ceil(self.by_class[class].len()) + 1)
    }

    /// The records of `epoch`, counted from 1, class after class.
    pub fn epoch(&self, seed: u64, epoch: usize) -> Vec<usize> {
        let rng = Rng::new(seed, streams::CLASS_ORDER);
        let mut drawn = Vec::with_capacity(self.records);
        for (class, records) in self.by_class.iter().enumerate() {
            let n = self.draws(class);
            let first = (epoch - 1) * n;
            let mut order = Vec::new();
            for place in first..first + n {
                if order.is_empty() || place % records.len() == 0 {
                    let pass = (place / records.len()) as u64;
                    order = rng.permutation(((class as u64) << PASS_BITS) | pass, records.len());
                }
                drawn.push(records[order[place % records.len()]]);
            }
        }
        drawn
    }
}

/// Bits of a pass over a class's records, in the number of its permutation.
const PASS_BITS: u32 = 48;

/// How many of `records` draws fall to `class`: equal parts, what is left over to the first classes.
fn share(records: usize, count: usize, class: usize) -> usize {
    records / count + usize::from(class < records % count)
}

fn by_class(classes: &[u32], count: usize) -> Result<Vec<Vec<usize>>> {
    let mut by_class = vec![Vec::new(); count];
    for (record, &class) in classes.iter().enumerate() {
        by_class[class as usize].push(record);
    }
    match by_class.iter().position(Vec::is_empty) {
        None => Ok(by_class),
        Some(class) => Err(Error::data(format!("no record that is trained on has class {class}"))
            .hint("train.class_weights and train.sample need records of every class; look at what construct dropped")),
    }
}

fn sizes(by_class: &[Vec<usize>]) -> Vec<usize> {
    by_class.iter().map(Vec::len).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::Objective,
        model::{ActivationCheckpointing, TrainingContext},
        train::{
            examples::{Batch, Example},
            plan::{BatchPlan, Sample},
            step,
        },
    };

    fn settings(class_weights: ClassWeights, sample: EpochSample) -> config::Train {
        config::Train { class_weights, sample, ..config::Train::default() }
    }

    #[test]
    fn weights_and_offsets_are_those_of_the_counts() {
        let classes = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1];
        let of = |weights, sample| ClassBalance::new(&settings(weights, sample), &classes, 2).unwrap();
        assert_eq!(of(ClassWeights::None, EpochSample::Natural), None);
        // n / (K·n_k), as scikit-learn's `compute_class_weight("balanced")`.
        let weighted = of(ClassWeights::Balanced, EpochSample::Natural).unwrap();
        assert_eq!(weighted.weights, [10.0 / 14.0, 10.0 / 6.0]);
        assert_eq!(weighted.offsets, [(10.0f64 / 14.0).ln(), (10.0f64 / 6.0).ln()]);
        let given = of(ClassWeights::Given(vec![1.0, 4.0]), EpochSample::Natural).unwrap();
        assert_eq!((given.weights, given.offsets), (vec![1.0, 4.0], vec![0.0, 4f64.ln()]));
        // Half of the draws are of class 1, three tenths of the records: ln of (5/10) / (3/10).
        let sampled = of(ClassWeights::None, EpochSample::Balanced).unwrap();
        assert_eq!(sampled.weights, [1.0, 1.0]);
        assert_eq!(sampled.offsets, [(5.0f64 / 7.0).ln(), (5.0f64 / 3.0).ln()]);
        let missing = ClassBalance::new(&settings(ClassWeights::Balanced, EpochSample::Natural), &[0, 2], 3);
        assert_eq!(missing.unwrap_err().exit_code(), 3);
    }

    /// Every record reads the same, one in ten is positive: all there is to learn is that share.
    #[test]
    fn a_trained_probability_is_the_share_of_its_class_however_the_loss_is_balanced() {
        let examples: Vec<Example> = (0..20)
            .map(|i| Example { prompt: vec![1, 2, 3], target: vec![], class: u32::from(i % 10 == 0), record: i })
            .collect();
        let classes: Vec<u32> = examples.iter().map(|example| example.class).collect();
        let trained = |settings: &config::Train, corrected: bool| {
            let mut trainer = step::tests::trainer(Objective::Cls);
            let balanced = settings.sample == EpochSample::Balanced;
            let balanced = balanced.then(|| BalancedSampler::new(&classes, 2).unwrap());
            trainer.plan = BatchPlan { records: 20, batch_size: 20, epochs: 300, balanced, ..trainer.plan };
            trainer.schedule.total = 1000;
            trainer.pass.dropout = None;
            let mut balance = ClassBalance::new(settings, &classes, 2).unwrap();
            if let Some(balance) = balance.as_mut().filter(|_| !corrected) {
                balance.offsets = vec![0.0; 2];
            }
            trainer.pass.class_balance = balance.map(Arc::new);
            let mut order = Vec::new();
            for k in 1..=300 {
                order = trainer.plan.order(k);
                trainer.step(k, &examples, &order).unwrap();
            }
            let batch = Batch::new(&examples, &[Sample { record: order[0], key: 0 }]);
            let context = TrainingContext {
                dropout: None,
                memory: ActivationCheckpointing::Recompute,
                trains: config::Parameters::Lora,
                read_from: None,
            };
            let (hidden_states, _) = trainer.model.llama.forward(&batch.ids, &batch.offsets, &context).unwrap();
            let (logits, _) = trainer.model.head.forward(&hidden_states.narrow(0, 2, 1).unwrap(), None).unwrap();
            let logits = logits.to_vec2::<f32>().unwrap();
            1.0 / (1.0 + (logits[0][0] - logits[0][1]).exp())
        };
        let natural = settings(ClassWeights::None, EpochSample::Natural);
        let weighted = settings(ClassWeights::Balanced, EpochSample::Natural);
        let given = settings(ClassWeights::Given(vec![2.0, 5.0]), EpochSample::Natural);
        let sampled = settings(ClassWeights::None, EpochSample::Balanced);
        for settings in [&natural, &weighted, &given, &sampled] {
            let p = trained(settings, true);
            assert!((p - 0.1).abs() < 0.005, "{:?}, {:?}: {p}", settings.class_weights, settings.sample);
        }
        // What it would be without the correction.
        for settings in [&weighted, &sampled] {
            let p = trained(settings, false);
            assert!((p - 0.5).abs() < 0.02, "{:?}, {:?}: {p}", settings.class_weights, settings.sample);
        }
    }

    #[test]
    fn a_balanced_epoch_draws_each_class_alike_and_no_record_again_before_all_of_its_class() {
        let classes: Vec<u32> =
            (0..23).map(|record| if record % 6 == 0 { 2 } else { u32::from(record % 4 == 1) }).collect();
        let sampler = BalancedSampler::new(&classes, 3).unwrap();
        let mut drawn = vec![Vec::new(); 3];
        for epoch in 1..=9 {
            let records = sampler.epoch(5, epoch);
            assert_eq!(records, sampler.epoch(5, epoch));
            let counts = [0, 1, 2].map(|class| records.iter().filter(|&&record| classes[record] == class).count());
            assert_eq!(counts, [8, 8, 7]);
            records.iter().for_each(|&record| drawn[classes[record] as usize].push(record));
        }
        for (class, drawn) in drawn.iter().enumerate() {
            let records = classes.iter().filter(|&&of| of as usize == class).count();
            for pass in drawn.chunks_exact(records) {
                let mut pass = pass.to_vec();
                pass.sort_unstable();
                pass.dedup();
                assert_eq!(pass.len(), records, "class {class}");
            }
        }
        assert_ne!(sampler.epoch(5, 1), sampler.epoch(6, 1));
    }
}
