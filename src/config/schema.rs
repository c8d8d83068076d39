//! The keys of a config file, with their defaults and ranges in one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{Cnn, Eval, Train};
use crate::labels::Labels;

/// A whole config file. Every section may be left out; `task.name`, `task.prompt` and the data paths may not when a
/// command needs them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is asked of a document.
    pub task: Task,
    /// Where records come from.
    pub data: Data,
    /// The base model and its window.
    pub model: Model,
    /// Algorithm 1.
    pub construct: Construct,
    /// Low-rank adapters.
    pub lora: Lora,
    /// The classification head.
    pub head: Head,
    /// Optimization.
    pub train: Train,
    /// Models on a server.
    pub remote: Remote,
    /// Decoding.
    pub generate: Generate,
    /// Scoring.
    pub eval: Eval,
    /// The CNN baseline.
    pub cnn: Cnn,
    /// Directory of the config file: where its relative paths begin. Not a key.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Keys that the file or `--set` gave, as `section.key`: a default given is not a default taken. Not a key.
    #[serde(skip)]
    pub given: BTreeSet<String>,
}

/// `[task]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Task {
    /// Name of the task; the run directory defaults to `runs/<name>`.
    pub name: String,
    /// What the model calls class 0, class 1, …
    pub labels: Labels,
    /// The classes are in order (worse, same, better): κ is printed with quadratic weights too.
    pub ordinal: bool,
    /// The prompt file.
    pub prompt: PathBuf,
}

impl Default for Task {
    fn default() -> Self {
        Self { name: "task".into(), labels: Labels::two("0:alive", "1:death"), ordinal: false, prompt: PathBuf::new() }
    }
}

/// Formats of record files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataFormat {
    /// By extension, then by the columns found.
    #[default]
    Auto,
    /// One JSON object a line.
    Jsonl,
    /// RFC 4180.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// The LCD benchmark's `{"data": […]}`.
    Lcd,
    /// CliniFact's CSV, its claims true or not.
    Clinifact,
    /// CliniFact's CSV with its three labels.
    Clinifact3,
    /// Evidence Inference as JSON Lines.
    #[serde(rename = "evidence-inference")]
    EvidenceInference,
}

/// LCD: the days of its mortality labels.
pub const HORIZONS: [u32; 3] = [30, 60, 90];

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// File format; `auto` goes by extension.
    pub format: DataFormat,
    /// Train split.
    pub train: Option<PathBuf>,
    /// Dev split.
    pub dev: Option<PathBuf>,
    /// Test split.
    pub test: Option<PathBuf>,
    /// Record field → column. Canonical fields `id text label explanation group`, or any further name used by the
    /// prompt.
    pub fields: BTreeMap<String, String>,
    /// Records expected in each split.
    pub expect: Expect,
    /// LCD: which mortality label, in days: one of [`HORIZONS`].
    pub horizon: u32,
    /// Horizons that the model may be of just as well, as far as anybody says: their labels are refused.
    #[serde(skip)]
    pub horizons_in_doubt: Vec<u32>,
    /// The columns of `eval.subgroups`, which every reader carries along.
    #[serde(skip)]
    pub carried: Vec<String>,
    /// `task.labels`, which a label is one of; the checkpoint's where there is one.
    #[serde(skip, default = "default_labels")]
    pub labels: Labels,
}

fn default_labels() -> Labels {
    Task::default().labels
}

impl Default for Data {
    fn default() -> Self {
        Self {
            format: DataFormat::Auto,
            train: None,
            dev: None,
            test: None,
            fields: BTreeMap::new(),
            expect: Expect::default(),
            horizon: 30,
            horizons_in_doubt: Vec::new(),
            carried: Vec::new(),
            labels: default_labels(),
        }
    }
}

/// Record counts that must hold, where given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Records in train.
    pub train: Option<usize>,
    /// Records in dev.
    pub dev: Option<usize>,
    /// Records in test.
    pub test: Option<usize>,
}

/// Arithmetic of the base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// f32 on a CPU, bf16 on CUDA.
    #[default]
    Auto,
    /// f32 operands.
    F32,
    /// bf16 operands, f32 accumulation.
    Bf16,
}

/// How the frozen base's projections are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// In the numbers of `model.dtype`.
    #[default]
    None,
    /// 8 bits a weight, 8 bits an activation, multiplied as they are.
    Fp8,
    /// 8 bits a weight.
    Int8,
    /// 4 bits a weight.
    Nf4,
}

/// Which part of a too-long document goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncate {
    /// Its end.
    #[default]
    Tail,
    /// Its start.
    Head,
    /// Its middle.
    Middle,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Hub id, directory, or `.gguf` file.
    pub base: String,
    /// Arithmetic.
    pub dtype: Dtype,
    /// Storage of the frozen projections: `nf4` takes a quarter of bf16's memory, `int8` half; the arithmetic stays
    /// that of `model.dtype`. `fp8` takes as much as bf16 and multiplies in 8 bits, on Hopper. Adapters and head stay
    /// f32.
    pub quantize: Quantize,
    /// Window of the prompt, in tokens.
    pub max_input_tokens: usize,
    /// Window of the generated text, in tokens.
    pub max_output_tokens: usize,
    /// Which part of a too-long document goes.
    pub truncate: Truncate,
    /// Allow a window beyond the model's `max_position_embeddings`.
    pub allow_long: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            base: String::new(),
            dtype: Dtype::Auto,
            quantize: Quantize::None,
            max_input_tokens: 7040,
            max_output_tokens: 384,
            truncate: Truncate::Tail,
            allow_long: false,
        }
    }
}

/// What becomes of a record that no trial explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    /// Left out and listed.
    #[default]
    Drop,
    /// Kept for the CLS loss alone.
    LabelOnly,
    /// Prompted once more with its gold label.
    Rationalize,
}

/// `[construct]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Construct {
    /// The teacher: hub id, directory, or address of a server.
    pub teacher: String,
    /// The model's name on that server.
    pub teacher_name: Option<String>,
    /// Whose tokenizer and chat template make its prompts; without it what the name stands for here, else `model.base`.
    pub teacher_tokenizer: Option<String>,
    /// Window of the teacher's prompt.
    pub max_input_tokens: usize,
    /// Window of its answer, thoughts included.
    pub max_output_tokens: usize,
    /// K of Algorithm 1.
    pub trials: usize,
    /// Sampling temperature.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// What becomes of a record that no trial explained.
    pub on_fail: OnFail,
    /// Splits to construct.
    pub splits: Vec<String>,
    /// Fewest words of an explanation (1 or more).
    pub min_words: usize,
    /// Largest share of an explanation's word 5-grams that may be copied from the document (0 to 1; 1 allows any).
    pub max_copied: f64,
}

impl Default for Construct {
    fn default() -> Self {
        Self {
            teacher: String::new(),
            teacher_name: None,
            teacher_tokenizer: None,
            max_input_tokens: 8196,
            max_output_tokens: 2048,
            trials: 5,
            temperature: 0.6,
            top_p: 0.95,
            on_fail: OnFail::Drop,
            splits: vec!["train".into(), "dev".into()],
            min_words: 1,
            max_copied: 1.0,
        }
    }
}

/// `[lora]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank r.
    pub rank: usize,
    /// α; the update is scaled by α / r.
    pub alpha: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
    /// Adapted projections.
    pub targets: Vec<String>,
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.05,
            targets: ["q_proj", "k_proj", "v_proj", "o_proj"].map(String::from).to_vec(),
        }
    }
}

/// Nonlinearity of the CLS head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Exact (erf) GELU.
    #[default]
    Gelu,
    /// ReLU.
    Relu,
    /// tanh.
    Tanh,
}

/// `[head]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Head {
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Nonlinearity.
    pub activation: Activation,
    /// Dropout after the nonlinearity.
    pub dropout: f64,
}

impl Default for Head {
    fn default() -> Self {
        Self { hidden: 2048, activation: Activation::Gelu, dropout: 0.1 }
    }
}

/// `[remote]`: how a server is asked that one of `construct.teacher`, `eval.judge` and `eval.baseline_model` names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Remote {
    /// Requests under way at once.
    pub concurrency: usize,
    /// Seconds until a request counts as lost.
    pub timeout_s: u64,
    /// Attempts after the first.
    pub retries: u32,
    /// Whether `construct` drops a record whose every attempt failed for the server's reasons, or leaves it open.
    pub drop_failed: bool,
    /// The environment variable that holds the key, if there is one.
    pub key_env: String,
}

impl Default for Remote {
    fn default() -> Self {
        Self { concurrency: 16, timeout_s: 600, retries: 6, drop_failed: false, key_env: "OPENAI_API_KEY".into() }
    }
}

/// `[generate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Generate {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// KV-cache tokens held at once; `None` goes by memory.
    pub batch_tokens: Option<usize>,
    /// Force the closing `Classification: <label>`.
    pub constrain: bool,
    /// Say of each explanation what of it stands in the record.
    pub evidence: bool,
}

impl Default for Generate {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, batch_tokens: None, constrain: false, evidence: false }
    }
}
