//! One optimizer step, readable top to bottom.

use std::time::Instant;

use super::{
    examples::{Batch, Example},
    loss::{Counts, LossSums, LossWeights, Losses, StepSettings},
    micro_batch::forward_backward,
    optimizer::Optimizer,
    plan::{BatchPlan, Sample},
    replicas,
    schedule::{LinearSchedule, WeightSchedule},
};
use crate::{
    error::{Error, Result},
    model::{Gradients, Model},
    ops::with_spinning_workers,
    parallel::Collective,
    storage,
};

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    /// The model; `optimizer` changes its tensors in place.
    pub model: Model,
    /// Moments and clipping.
    pub optimizer: Optimizer,
    /// Which records when.
    pub plan: BatchPlan,
    /// Learning rate.
    pub schedule: LinearSchedule,
    /// Weights of the losses, beginning with those of `pass`.
    pub weight_schedule: WeightSchedule,
    /// How a micro-batch of the first step is computed.
    pub pass: StepSettings,
    /// This process among the `plan.ranks` that train together.
    pub ranks: Collective,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Optimizer step, counted from 1.
    pub step: usize,
    /// Sums of cross-entropies.
    pub sums: LossSums,
    /// What they are over.
    pub counts: Counts,
    /// Means, weighted.
    pub losses: Losses,
    /// Learning rate used.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Wall time.
    pub seconds: f64,
    /// What the sum over ranks took of it, if there are several.
    pub allreduce_seconds: Option<f64>,
}

impl Trainer {
    /// The losses' weights in optimizer step `k`, counted from 1.
    pub fn weights(&self, k: usize) -> LossWeights {
        self.weight_schedule.at(k, self.pass.weights)
    }

    /// Optimizer step `k`, counted from 1; `order` is the plan's for the step's epoch.
    ///
    /// On an error, a signal among them, the weights are those of the step before. One rank's is every rank's.
    pub fn step(&mut self, k: usize, examples: &[Example], order: &[usize]) -> Result<StepReport> {
        let device = self.model.llama.device().clone();
        with_spinning_workers(&device, usize::MAX, || self.step_together(k, examples, order))
    }

    fn step_together(&mut self, k: usize, examples: &[Example], order: &[usize]) -> Result<StepReport> {
        let start = Instant::now();

        // The whole group is known before its first pass: its counts are the denominators of both means.
        let group = self.plan.group(k, order);
        let counts = Counts::of(group.iter().map(|sample| &examples[sample.record]));

        // Accumulate: each micro-batch adds its share of the mean's gradient.
        let pass = StepSettings { weights: self.weights(k), ..self.pass.clone() };
        let mut gradients = Gradients::new();
        let accumulate = |sums: LossSums, samples: &[Sample]| {
            let batch = Batch::new(examples, samples);
            Ok(sums + forward_backward(&self.model, &batch, counts, &pass, &mut gradients)?)
        };
        let accumulated = self.micro_batches(&group).try_fold(LossSums::default(), accumulate);
        let accumulated = accumulated.and_then(|sums| self.model.llama.tie_gradients(&mut gradients).map(|()| sums));

        // Add up over the ranks; everything else is already the same on each.
        let mut sums = self.ranks.agree(accumulated)?;
        let parameters = self.optimizer.parameters();
        let allreduce_seconds = replicas::sum(&self.ranks, parameters, &mut gradients, &mut sums)?;

        let mut losses = pass.weights.losses(sums, counts);
        losses.loss = storage::spoiled("train.loss", losses.loss);
        let unfit = |error: Error| {
            error.context(list_records(examples, &group)).or_hint(
                "lower train.learning_rate, or look at these records and for broken weights; the last checkpoint is \
                 untouched: --resume goes on from it",
            )
        };
        if !losses.loss.is_finite() {
            return Err(unfit(Error::run(format!("the loss of step {k} is {}", losses.loss))));
        }
        let lr = self.schedule.learning_rate(k);
        let grad_norm = self.optimizer.step(&gradients, k, lr).map_err(unfit)?;

        let seconds = start.elapsed().as_secs_f64();
        Ok(StepReport { step: k, sums, counts, losses, lr, grad_norm, seconds, allreduce_seconds })
    }

    /// This rank's micro-batches of a group.
    fn micro_batches<'a>(&self, group: &'a [Sample]) -> impl Iterator<Item = &'a [Sample]> + use<'a> {
        self.plan.micro_batches(group, self.ranks.rank())
    }
}

/// The records of a step by their numbers in the file that is trained on; of many the first.
fn list_records(examples: &[Example], group: &[Sample]) -> String {
    let numbers: Vec<String> =
        group.iter().take(SHOWN).map(|sample| examples[sample.record].record.to_string()).collect();
    let more = if group.len() > SHOWN { format!(" and {} more", group.len() - SHOWN) } else { String::new() };
    format!("train records {}{more}", numbers.join(", "))
}

/// Records that a message names.
const SHOWN: usize = 32;

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use candle_core::{DType, Device, Tensor};
    use serde_json::json;

    use super::*;
    use crate::{
        config::{self, Objective, Parameters},
        model::{ActivationCheckpointing, ClsHead, Llama, LlamaConfig, adapter::LoraConfig},
    };

    pub fn trainer(objective: Objective) -> Trainer {
        let config = json!({
            "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
        });
        let config = LlamaConfig::parse(config.as_object().unwrap()).unwrap();
        let mut llama = Llama::random(config, DType::F32, 3, &Device::Cpu).unwrap();
        llama.add_lora(&LoraConfig::from(&config::Lora { rank: 2, ..config::Lora::default() }), 3).unwrap();
        let head = ClsHead::new(16, 8, 2, config::Activation::Gelu, 0.1, 3, &Device::Cpu).unwrap();
        let model = Model::new(llama, head);
        let optimizer = Optimizer::new(model.trainable(Parameters::Lora).unwrap(), &config::Train::default()).unwrap();
        let plan = BatchPlan {
            records: 3,
            batch_size: 2,
            accumulation: 1,
            ranks: 1,
            epochs: 5,
            shuffle: true,
            balanced: None,
            short_first: None,
            seed: 3,
        };
        let weights = LossWeights { objective, generation: 1.0, classification: 1.0, consistency: 0.0, prompt: 0.0 };
        let pass = StepSettings {
            weights,
            parameters: Parameters::Lora,
            label_smoothing: 0.0,
            class_balance: None,
            label_tokens: None,
            memory: ActivationCheckpointing::Recompute,
            dropout: Some(3),
        };
        let schedule = LinearSchedule { peak: 0.01, warmup: 0, total: 10 };
        Trainer {
            model,
            optimizer,
            plan,
            schedule,
            weight_schedule: WeightSchedule { end: None, total: 10 },
            pass,
            ranks: Collective::one(),
        }
    }

    fn examples() -> Vec<Example> {
        let example = |prompt: &[u32], target: &[u32], class| Example {
            prompt: prompt.to_vec(),
            target: target.to_vec(),
            class,
            record: 0,
        };
        vec![example(&[1, 2, 3, 4], &[5, 6, 0], 1), example(&[7, 8], &[], 0), example(&[9, 10, 11], &[12, 0], 0)]
    }

    fn bits(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Vec<u32>> {
        let bits = |tensor: Tensor| {
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        tensors.into_iter().map(|(name, tensor)| (name, bits(tensor))).collect()
    }

    #[test]
    fn the_base_stays_as_it_is_and_every_adapter_learns() {
        let mut trainer = trainer(Objective::Joint);
        let base = bits(trainer.model.llama.base_tensors());
        let adapters = bits(trainer.model.llama.adapter_tensors());
        let order = trainer.plan.order(1);
        let first = trainer.step(1, &examples(), &order).unwrap();
        let second = trainer.step(2, &examples(), &order).unwrap();
        assert_eq!((first.counts.records, second.counts.records), (2, 1));
        assert_eq!(bits(trainer.model.llama.base_tensors()), base);
        for (name, before) in &adapters {
            assert_ne!(&bits(trainer.model.llama.adapter_tensors())[name], before, "{name}");
        }
    }

    #[test]
    fn a_prompt_of_weight_one_is_learned_as_a_target_is_and_of_weight_zero_not_at_all() {
        // The same ids; only where the prompt ends differs. `lm` reads no t_n, so nothing else does.
        let short: Vec<Example> = vec![
            Example { prompt: vec![1], target: vec![2, 3, 4, 5, 6, 0], class: 1, record: 0 },
            Example { prompt: vec![9], target: vec![10, 11, 12, 0], class: 0, record: 0 },
            Example { prompt: vec![7], target: vec![8, 0], class: 0, record: 0 },
        ];
        let long: Vec<Example> = short
            .iter()
            .map(|example| {
                let (more, target) = example.target.split_at(1);
                Example {
                    prompt: [&example.prompt, more].concat(),
                    target: target.to_vec(),
                    class: example.class,
                    record: 0,
                }
            })
            .collect();
        let step = |examples: &[Example], prompt: f64| {
            let mut trainer = trainer(Objective::Lm);
            trainer.pass.weights.prompt = prompt;
            let order = trainer.plan.order(1);
            let report = trainer.step(1, examples, &order).unwrap();
            (report.losses.loss, bits(trainer.model.llama.adapter_tensors()))
        };
        let all = step(&short, 0.0);
        let whole = step(&long, 1.0);
        assert!((all.0 - whole.0).abs() < 1e-12 && all.1 == whole.1, "{} {}", all.0, whole.0);
        let half = step(&long, 0.5);
        assert!(half.1 != whole.1 && half.1 != step(&long, 0.0).1);
    }

    /// Each tensor moved along its gradient g by ±h: the loss of a step, smoothed and weighed as the step's schedule
    /// says, must change by 2h‖g‖².
    #[test]
    fn the_gradient_of_a_smoothed_and_scheduled_step_is_the_slope_of_its_loss() {
        let mut trainer = trainer(Objective::Joint);
        trainer.weight_schedule = WeightSchedule { end: Some([0.25, 3.0]), total: 10 };
        let pass = StepSettings { weights: trainer.weights(7), label_smoothing: 0.3, ..trainer.pass.clone() };
        assert!(pass.weights.generation < 0.6 && pass.weights.classification > 2.0);
        let examples = examples();
        let samples = [0, 1, 2].map(|record| Sample { record, key: record as u64 });
        let counts = Counts::of(&examples);
        let batch = Batch::new(&examples, &samples);
        let loss = |gradients: &mut Gradients| {
            let sums = forward_backward(&trainer.model, &batch, counts, &pass, gradients).unwrap();
            pass.weights.losses(sums, counts).loss
        };
        let mut gradients = Gradients::new();
        loss(&mut gradients);
        let handles = trainer.model.trainable(Parameters::Lora).unwrap();
        let mut moved = Vec::new();
        for (name, gradient) in &gradients {
            let squared = f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
            // An adapter's A has no slope while its B is 0, and a slope below this drowns in the rounding of an f32
            // loss. Every adapter's is checked in `model::training`; what is new here is what comes out of the heads.
            if squared < 1e-3 {
                continue;
            }
            let handle = &handles[name];
            let h = 3e-3 / squared.sqrt();
            let start = (handle * 1.0).unwrap();
            let at = |by: f64| {
                handle.slice_set(&(&start + (gradient * by).unwrap()).unwrap(), 0, 0).unwrap();
                loss(&mut Gradients::new())
            };
            let slope = (at(h) - at(-h)) / (2.0 * h);
            handle.slice_set(&start, 0, 0).unwrap();
            assert!((slope / squared - 1.0).abs() < 1e-2, "{name}: slope {slope:e}, squared norm {squared:e}");
            moved.push(name.as_str());
        }
        let of = |part: &str| moved.iter().filter(|name| name.contains(part)).count();
        assert!(of("cls_head.") == 4 && of("lora_B") >= 2, "{moved:?}");
    }

    #[test]
    fn a_schedule_changes_every_step_but_the_first() {
        let run = |end: Option<[f64; 2]>| {
            let mut trainer = trainer(Objective::Joint);
            trainer.weight_schedule = WeightSchedule { end, total: 10 };
            let order = trainer.plan.order(1);
            [1, 2].map(|k| trainer.step(k, &examples(), &order).unwrap().losses.loss)
        };
        let constant = run(None);
        let moving = run(Some([1.0, 2.0]));
        assert!(constant[0] == moving[0] && constant[1] < moving[1], "{constant:?} {moving:?}");
    }

    #[test]
    fn gradients_that_are_not_finite_stop_the_run_before_anything_changes() {
        let mut trainer = trainer(Objective::Joint);
        trainer.pass.weights.classification = f64::NAN;
        let adapters = bits(trainer.model.llama.adapter_tensors());
        let order = trainer.plan.order(1);
        assert_eq!(trainer.step(1, &examples(), &order).unwrap_err().exit_code(), 1);
        assert_eq!(bits(trainer.model.llama.adapter_tensors()), adapters);
    }
}
