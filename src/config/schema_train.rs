//! The keys of `[train]`, with their defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which losses train the model (paper §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// L = w_gen·L_gen + w_cls·L_cls.
    #[default]
    Joint,
    /// L_cls alone: the linguistic-collapse ablation.
    Cls,
    /// L_gen alone.
    Lm,
}

/// Which tensors are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parameters {
    /// Adapters and head; the base stays bit-unchanged.
    #[default]
    Lora,
    /// Every weight and the head.
    Full,
}

/// Where the weights of `model.base` come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Its weight files.
    #[default]
    Pretrained,
    /// The seed: its folder needs `config.json` and a tokenizer, no weights (pretraining from scratch).
    Random,
}

/// What a layer keeps for its backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationMemory {
    /// Per layer, from the memory that is free.
    #[default]
    Auto,
    /// Everything backward reads.
    Keep,
    /// The layer's input; the rest is computed again.
    Recompute,
}

/// How the weights of the losses move over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossSchedule {
    /// They stay.
    #[default]
    Constant,
    /// On a line from `w_gen`, `w_cls` at the first step to `w_gen_end`, `w_cls_end` at the last.
    Linear,
}

/// Which records an epoch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curriculum {
    /// Those that `shuffle` puts first.
    #[default]
    None,
    /// Those with the fewest prompt tokens; equal ones in the order of `shuffle`.
    ShortFirst,
}

/// What a record of each class counts in L_cls.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "WeightsForm", into = "WeightsForm")]
pub enum ClassWeights {
    /// One as much as another.
    #[default]
    None,
    /// w_k = n / (K·n_k): every class as much as another.
    Balanced,
    /// By class.
    Given(Vec<f64>),
}

/// How `class_weights` stands in a file: a word or a list.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WeightsForm {
    Word(WeightsWord),
    List(Vec<f64>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WeightsWord {
    None,
    Balanced,
}

impl From<WeightsForm> for ClassWeights {
    fn from(form: WeightsForm) -> Self {
        match form {
            WeightsForm::Word(WeightsWord::None) => Self::None,
            WeightsForm::Word(WeightsWord::Balanced) => Self::Balanced,
            WeightsForm::List(weights) => Self::Given(weights),
        }
    }
}

impl From<ClassWeights> for WeightsForm {
    fn from(weights: ClassWeights) -> Self {
        match weights {
            ClassWeights::None => Self::Word(WeightsWord::None),
            ClassWeights::Balanced => Self::Word(WeightsWord::Balanced),
            ClassWeights::Given(weights) => Self::List(weights),
        }
    }
}

/// Which records an epoch draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpochSample {
    /// Every one once.
    #[default]
    Natural,
    /// As many, each class in the same number.
    Balanced,
}

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Losses.
    pub objective: Objective,
    /// Passes over the train split.
    pub epochs: usize,
    /// Records in one forward pass.
    pub batch_size: usize,
    /// Forward passes in one optimizer step.
    pub grad_accumulation: usize,
    /// Records in one optimizer step over all ranks; when given, sets `grad_accumulation`.
    pub effective_batch: Option<usize>,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warmup.
    pub warmup_steps: usize,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Clip of the global gradient norm; 0 switches clipping off.
    pub max_grad_norm: f64,
    /// Weight of L_gen.
    pub w_gen: f64,
    /// Weight of L_cls.
    pub w_cls: f64,
    /// Whether these weights stay or move.
    pub loss_schedule: LossSchedule,
    /// Weight of L_gen at the last step, under `loss_schedule = "linear"`; `None`: that of the first.
    pub w_gen_end: Option<f64>,
    /// Weight of L_cls at the last step, likewise.
    pub w_cls_end: Option<f64>,
    /// ε of L_cls: its target is y(1 − ε) + ε/K over K classes instead of y. Dev's loss is never smoothed.
    pub label_smoothing: f64,
    /// Weight of the consistency loss, which pulls head and text towards one answer; 0 leaves it out.
    pub w_consistency: f64,
    /// What a record of each class counts in L_cls; the loss corrects for it.
    pub class_weights: ClassWeights,
    /// Which records an epoch draws; L_cls corrects for it.
    pub sample: EpochSample,
    /// Weight, within L_gen, of a prompt token beside a target token: 0 trains on targets alone, 1 on the whole text.
    pub prompt_loss_weight: f64,
    /// What is trained.
    pub parameters: Parameters,
    /// Where the base's weights come from; `random` needs `parameters = "full"`.
    pub init: Init,
    /// New order each epoch; `false` keeps the file's.
    pub shuffle: bool,
    /// Which records an epoch begins with.
    pub curriculum: Curriculum,
    /// Stop after this many optimizer steps.
    pub max_steps: Option<usize>,
    /// Checkpoint whose adapter and head training starts from.
    pub init_from: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
    /// What a layer keeps for its backward pass.
    pub activation_memory: ActivationMemory,
    /// Steps between replacements of `checkpoints/last/`.
    pub save_every_steps: usize,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            objective: Objective::Joint,
            epochs: 20,
            batch_size: 1,
            grad_accumulation: 8,
            effective_batch: None,
            learning_rate: 2e-5,
            warmup_steps: 100,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            w_gen: 1.0,
            w_cls: 1.0,
            loss_schedule: LossSchedule::Constant,
            w_gen_end: None,
            w_cls_end: None,
            label_smoothing: 0.0,
            w_consistency: 0.0,
            class_weights: ClassWeights::None,
            sample: EpochSample::Natural,
            prompt_loss_weight: 0.0,
            parameters: Parameters::Lora,
            init: Init::Pretrained,
            shuffle: true,
            curriculum: Curriculum::None,
            max_steps: None,
            init_from: None,
            seed: 42,
            activation_memory: ActivationMemory::Auto,
            save_every_steps: 200,
        }
    }
}
