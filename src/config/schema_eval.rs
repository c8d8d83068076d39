//! The keys of scoring: `[eval]` and `[cnn]`, with their defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which calibrator `predict --calibrated` will apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calibrate {
    /// None; nothing is fitted.
    None,
    /// One number divides the logit.
    #[default]
    Temperature,
    /// A line on the logit scale.
    Platt,
    /// A monotone map; wants 1,000 dev records.
    Isotonic,
}

/// `[eval]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eval {
    /// The judge: hub id, directory, or address of a server.
    pub judge: Option<String>,
    /// The model's name on that server.
    pub judge_name: Option<String>,
    /// Whose tokenizer and chat template make its prompts; without it what the name stands for here, else `model.base`.
    pub judge_tokenizer: Option<String>,
    /// The model of the prompted baselines: hub id, directory, or address of a server; without it the base model.
    pub baseline_model: Option<String>,
    /// The model's name on that server.
    pub baseline_model_name: Option<String>,
    /// Whose tokenizer and chat template make its prompts; without it what the name stands for here, else the base's.
    pub baseline_model_tokenizer: Option<String>,
    /// The judge's question about an explanation (`system`, `template` with `{explanation}`); without it that of
    /// the paper's two tasks.
    pub judge_prompt: Option<PathBuf>,
    /// The verbalized-probability prompt (`system`, `question`); without it that of the paper's two tasks, of more
    /// than two classes one made of the labels.
    pub verbalized_prompt: Option<PathBuf>,
    /// Runs of the sampled baselines.
    pub runs: usize,
    /// Bootstrap resamples.
    pub bootstrap: usize,
    /// Of more than two classes, the one that thresholds, operating points, subgroups and decision curves are of.
    pub positive: Option<String>,
    /// Columns of the records that predictions carry along (sex, ward, …), whose values are measured one by one.
    pub subgroups: Vec<String>,
    /// Sensitivities of the operating points, whose thresholds reach them on dev.
    pub sensitivities: Vec<f64>,
    /// Specificities likewise.
    pub specificities: Vec<f64>,
    /// Shares of all records that are called, likewise.
    pub alert_rates: Vec<f64>,
    /// What base and tuned model read for the forgetting check: `.txt` with a text a line, or records; without it the
    /// documents of dev, under `--forgetting`.
    pub language_text: Option<PathBuf>,
    /// Baselines to run.
    pub baselines: Vec<String>,
    /// Temperature of the sampled baselines.
    pub temperature: f64,
    /// Nucleus of the sampled baselines.
    pub top_p: f64,
    /// What a negative called positive costs, for the cost-tuned threshold.
    pub cost_fp: f64,
    /// What a positive called negative costs.
    pub cost_fn: f64,
    /// Calibrator that `calibration.*_after` and `predict --calibrated` use, fitted on dev: none, temperature, platt or
    /// isotonic.
    pub calibrate: Calibrate,
    /// Fit isotonic calibration on fewer than 1,000 dev records too, where it follows noise.
    pub force_isotonic: bool,
}

impl Default for Eval {
    fn default() -> Self {
        Self {
            judge: None,
            judge_name: None,
            judge_tokenizer: None,
            baseline_model: None,
            baseline_model_name: None,
            baseline_model_tokenizer: None,
            judge_prompt: None,
            verbalized_prompt: None,
            runs: 10,
            bootstrap: 2000,
            positive: None,
            subgroups: Vec::new(),
            sensitivities: vec![0.8, 0.9],
            specificities: vec![0.9],
            alert_rates: vec![0.05, 0.1],
            language_text: None,
            baselines: Vec::new(),
            temperature: 0.6,
            top_p: 0.9,
            cost_fp: 1.0,
            cost_fn: 1.0,
            calibrate: Calibrate::Temperature,
            force_isotonic: false,
        }
    }
}

/// `[cnn]`: the baseline of the paper's Table 6.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cnn {
    /// A Hugging Face BERT folder, by path or hub id: its word-piece embeddings and `tokenizer.json` are used.
    pub embeddings: Option<PathBuf>,
    /// Word pieces of a document that are read.
    pub max_tokens: usize,
    /// Filters of each kernel size.
    pub filters: usize,
    /// Width of the layer between pooling and the logits.
    pub projection: usize,
    /// Dropout on the pooled features and on the projection.
    pub dropout: f64,
    /// Records in an optimizer step.
    pub batch_size: usize,
    /// Most passes over the train split.
    pub epochs: usize,
    /// The one peak learning rate to try; `None` tries the grid of Table 6 (5e-4, 1e-4, 5e-5).
    pub learning_rate: Option<f64>,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Share of all steps that warm up.
    pub warmup: f64,
    /// Runs on test: seeds 0, 1, ….
    pub seeds: usize,
}

impl Default for Cnn {
    fn default() -> Self {
        Self {
            embeddings: None,
            max_tokens: 7040,
            filters: 512,
            projection: 256,
            dropout: 0.5,
            batch_size: 16,
            epochs: 10,
            learning_rate: None,
            weight_decay: 0.01,
            warmup: 0.1,
            seeds: 5,
        }
    }
}
