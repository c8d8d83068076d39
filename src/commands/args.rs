//! Flags of each command, as clap reads them.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser};

use crate::selftest::OPS;

/// `clsgen demo`
#[derive(Debug, Clone, Default, Args)]
pub struct DemoArgs {
    /// Run directory to make [default: runs/demo]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Synthetic discharge notes to make
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub notes: Option<u32>,
    /// Losses to train; cls shows the collapse of the text that the joint objective prevents
    #[arg(long, value_name = "OBJECTIVE", value_parser = ["joint", "cls", "lm"], default_value = "joint")]
    pub objective: String,
    /// Make the embedded model again in DIR, from a random start (about an hour)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "objective"])]
    pub pretrain: Option<PathBuf>,
}

/// `clsgen construct`
#[derive(Debug, Clone, Default, Args)]
pub struct ConstructArgs {
    /// Put together the parts that --shard made
    #[arg(long)]
    pub merge: bool,
    /// Write the trials that are open as requests for `vllm run-batch`, and ask nobody
    #[arg(long, value_name = "FILE", conflicts_with_all = ["merge", "batch_in"])]
    pub batch_out: Option<PathBuf>,
    /// Read the answers that `vllm run-batch` wrote
    #[arg(long, value_name = "FILE", conflicts_with = "merge")]
    pub batch_in: Option<PathBuf>,
}

fn tokens_per_second(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "not a positive number of tokens a second".into())
}

/// `clsgen train`
#[derive(Debug, Clone, Default, Args)]
pub struct TrainArgs {
    /// Go on from the newest valid checkpoint of the run directory
    #[arg(long)]
    pub resume: bool,
    /// Under --dry-run: plan for GPUs of another machine, each of which trains so many tokens a second
    #[arg(long, value_name = "TOKENS_PER_SECOND", value_parser = tokens_per_second)]
    pub assume: Option<f64>,
}

/// `clsgen eval`
#[derive(Debug, Clone, Default, Args)]
pub struct EvalArgs {
    /// Score this prediction file, whoever made it, or several as one; no model is run
    #[arg(long, value_name = "TEST.jsonl", num_args = 1..)]
    pub predictions: Vec<PathBuf>,
    /// Tune thresholds on these predictions of the dev split
    #[arg(long, value_name = "DEV.jsonl", num_args = 1.., requires = "predictions")]
    pub dev_predictions: Vec<PathBuf>,
    /// Split to score [default: test]
    #[arg(long, value_name = "SPLIT", value_parser = ["train", "dev", "test"])]
    pub split: Option<String>,
    /// Print these tables of the paper beside ours, with the difference; `all`: its whole results section, with the
    /// curve, the base before tuning and every baseline that the config allows
    #[arg(long, value_name = "TABLES", value_delimiter = ',')]
    #[arg(value_parser = ["all", "table1", "table2", "table3", "table4", "table7"])]
    pub paper: Vec<String>,
    /// Table and figure of dev metrics over the epochs (Fig. 1 a–c)
    #[arg(long)]
    pub curve: bool,
    /// Run these baselines and score them beside the model
    #[arg(long, value_name = "NAMES", value_delimiter = ',',
        value_parser = ["verbalized", "label", "self_consistency", "token_probability", "cnn"])]
    pub baselines: Vec<String>,
    /// Runs of each sampled baseline [default: eval.runs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,
    /// Score the base model before tuning too
    #[arg(long)]
    pub compare_base: bool,
    /// Perplexity of base and tuned model on other text (eval.language_text, else dev): what tuning forgot
    #[arg(long)]
    pub forgetting: bool,
    /// Compare with these predictions of the same records, paired
    #[arg(long, value_name = "OTHER.jsonl", num_args = 1..)]
    pub against: Vec<PathBuf>,
    /// Mean ± SD of these runs, which differ by their seed; each was evaluated before
    #[arg(long, value_name = "RUN", num_args = 1..)]
    #[arg(conflicts_with_all = ["predictions", "against", "paper", "curve", "baselines", "runs", "compare_base",
        "forgetting", "card", "include_text", "gate"])]
    pub over: Vec<PathBuf>,
    /// Write model-card.md and tripod-llm.md: the items of TRIPOD-LLM and TRIPOD+AI, filled from the run's files
    #[arg(long)]
    pub card: bool,
    /// Put text of records into the report (it holds none otherwise)
    #[arg(long)]
    pub include_text: bool,
    /// Replace the split's folder that other settings made
    #[arg(long)]
    pub overwrite: bool,
    /// Exit 1 when a metric misses a bound of this file
    #[arg(long, value_name = "FILE")]
    pub gate: Option<PathBuf>,
}

impl EvalArgs {
    /// The split to score.
    pub fn split(&self) -> &str {
        self.split.as_deref().unwrap_or("test")
    }
}

/// `clsgen predict`
#[derive(Debug, Clone, Default, Args)]
pub struct PredictArgs {
    /// A checkpoint, or a run directory (its best checkpoint)
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Records to predict (.jsonl, .csv, .parquet, LCD's .json); `-` is stdin, in any of them but Parquet
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Predictions, a JSON line a record in input order; `-` is stdout
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Exit 3 at a bad record (without it, the record gets a line with `error`)
    #[arg(long)]
    pub strict: bool,
    /// Replace an output made by another command (without it, only the same command's output is continued)
    #[arg(long)]
    pub overwrite: bool,
    /// Fill `calibrated_probability`, with the calibrator `eval` fitted on dev
    #[arg(long)]
    pub calibrated: bool,
    /// Probability only: one pass a record, nothing is generated
    #[arg(long)]
    pub no_explanation: bool,
}

/// What the help of `clsgen export` ends in.
pub const EXPORT_EXAMPLES: &str = "\
Examples:
  clsgen export --model runs/clinifact --merged merged

DIR is a model of transformers, in bf16, and a checkpoint: predict --model DIR
reads it, the head and clsgen.json lie beside the weights.";

/// `clsgen export`
#[derive(Debug, Clone, Default, Args)]
pub struct ExportArgs {
    /// A checkpoint, or a run directory (its best checkpoint)
    #[arg(long, value_name = "RUN")]
    pub model: PathBuf,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub merged: PathBuf,
    /// Replace a merged folder that is there
    #[arg(long)]
    pub overwrite: bool,
}

/// What the help of `clsgen data lcd` ends in.
pub const LCD_EXAMPLES: &str = "\
Examples:
  clsgen data lcd --mimic-note mimic-iv-note-2.2 --mimic-hosp mimiciv-2.2 \\
      --task out_hospital_mortality_30 --task out_hospital_mortality_90 \\
      --out data/lcd
  clsgen data lcd --out data/lcd --check other/lcd

A --task is a folder with labels.json of the benchmark's repository
(Machine-Learning-for-Medical-Language/long-clinical-doc). Text, ids, splits
and order are those of its own program, create_data.py. A record's `group` is
the patient. With --mimic-hosp it has sex, race, insurance, admission_type and
anchor_year_group too, for eval.subgroups.

--split-by year-group tests on the patients of the last anchor_year_group,
with those of the one before as dev. It is the patient's first years that
count: a later admission of a train patient may be after one of a test patient.

--check compares by id, in the fields that both have; exit 1 if they differ.";

/// `clsgen data lcd`
#[derive(Debug, Clone, Default, Args)]
pub struct LcdArgs {
    /// MIMIC-IV-Note 2.2: the folder with discharge.csv or discharge.csv.gz
    #[arg(long, value_name = "DIR", required_unless_present = "check", requires = "task")]
    pub mimic_note: Option<PathBuf>,
    /// MIMIC-IV: the folder with patients and admissions, for subgroups
    #[arg(long, value_name = "DIR", requires = "mimic_note")]
    pub mimic_hosp: Option<PathBuf>,
    /// A task's folder, with its labels.json; repeated, records have the label of each
    #[arg(long, value_name = "DIR", requires = "mimic_note")]
    pub task: Vec<PathBuf>,
    /// The build: train.json, dev.json, test.json, metadata.json
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The benchmark's own splits, or by the years of the patients (needs --mimic-hosp)
    #[arg(long, value_name = "HOW", value_parser = ["benchmark", "year-group"], default_value = "benchmark")]
    pub split_by: String,
    /// Compare the build, made now or before, with this one
    #[arg(long, value_name = "OTHER")]
    pub check: Option<PathBuf>,
    /// Replace a build that is there
    #[arg(long)]
    pub overwrite: bool,
}

/// `clsgen selftest`
#[derive(Debug, Clone, Default, Args)]
pub struct SelftestArgs {
    /// Check these operations alone, comma-separated or repeated
    #[arg(long, value_name = "OP", value_delimiter = ',')]
    #[arg(value_parser = PossibleValuesParser::new(OPS), hide_possible_values = true)]
    pub only: Vec<String>,
    /// A training pass of this model too: a folder with config.json and weights, or a GGUF file
    #[arg(long, value_name = "DIR")]
    pub model: Option<String>,
    /// Check nothing: write the kernels' inputs and outputs to DIR/kernels.safetensors, for tests/golden/kernels.py
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "only"])]
    pub write: Option<PathBuf>,
}
