//! Flags of each command, as clap reads them (SPEC §1 and §6, "More flags").

use std::path::PathBuf;

use clap::Args;

/// `clsgen construct`
#[derive(Debug, Clone, Default, Args)]
pub struct ConstructArgs {}

/// `clsgen train`
#[derive(Debug, Clone, Default, Args)]
pub struct TrainArgs {
    /// Go on from the newest valid checkpoint of the run directory
    #[arg(long)]
    pub resume: bool,
}

/// `clsgen eval`
#[derive(Debug, Clone, Default, Args)]
pub struct EvalArgs {
    /// Score this prediction file instead of running a model
    #[arg(long, value_name = "TEST.jsonl")]
    pub predictions: Option<PathBuf>,
    /// Choose thresholds on these dev predictions
    #[arg(long, value_name = "DEV.jsonl", requires = "predictions")]
    pub dev_predictions: Option<PathBuf>,
    /// Split to score
    #[arg(long, value_name = "SPLIT", value_parser = ["train", "dev", "test"], default_value = "test")]
    pub split: String,
    /// Print the paper's tables beside ours
    #[arg(long, value_name = "TABLES", value_delimiter = ',', value_parser = ["table1", "table2", "table3", "table4", "table7"])]
    pub paper: Vec<String>,
    /// Score every epoch's checkpoint
    #[arg(long)]
    pub curve: bool,
    /// Baselines to run
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub baselines: Vec<String>,
    /// Runs of each sampled baseline
    #[arg(long, value_name = "N")]
    pub runs: Option<usize>,
    /// Also score the base model before tuning
    #[arg(long)]
    pub compare_base: bool,
    /// Put record text into the report
    #[arg(long)]
    pub include_text: bool,
    /// Exit 1 when a metric misses a floor of this file
    #[arg(long, value_name = "FILE")]
    pub gate: Option<PathBuf>,
}

/// `clsgen predict`
#[derive(Debug, Clone, Default, Args)]
pub struct PredictArgs {
    /// A checkpoint or a run directory
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Records to predict; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Where predictions go; `-` is stdout
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Stop with exit 3 if any record is bad
    #[arg(long)]
    pub strict: bool,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
    /// Also fill `calibrated_probability`
    #[arg(long)]
    pub calibrated: bool,
    /// Probability only, no explanation
    #[arg(long)]
    pub no_explanation: bool,
}

/// `clsgen demo`
#[derive(Debug, Clone, Default, Args)]
pub struct DemoArgs {
    /// Run directory to make
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Synthetic notes to make
    #[arg(long, value_name = "N")]
    pub notes: Option<usize>,
    /// Losses to train: joint, cls or lm
    #[arg(long, value_name = "OBJECTIVE", value_parser = ["joint", "cls", "lm"])]
    pub objective: Option<String>,
}

/// `clsgen selftest`
#[derive(Debug, Clone, Default, Args)]
pub struct SelftestArgs {}
