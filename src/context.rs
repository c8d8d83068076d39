//! What every command is told: config, run directory, device, seed, and how to speak. Layer 2.

use std::{path::PathBuf, time::SystemTime};

use candle_core::{DType, Device};

use crate::{config::Config, device, error::Result, ops, parallel::Collective, shard::Shard, storage::run_record};

/// The global command-line options, resolved once.
#[derive(Debug, Clone)]
pub struct Context {
    /// The validated config: file, then `--set`, then `--seed`.
    pub config: Config,
    /// `--set`, and `--seed` as one: `demo` applies them to a config of its own.
    pub sets: Vec<String>,
    /// The config file, if one was given.
    pub config_path: Option<PathBuf>,
    /// `--run`, default `runs/<task.name>`.
    pub run_dir: PathBuf,
    /// `--device`, as given.
    pub device: String,
    /// `--seed`, default `train.seed`.
    pub seed: u64,
    /// `--shard`: the part of the records that is predicted or constructed; `None` is all of them.
    pub shard: Option<Shard>,
    /// Machine-readable stdout.
    pub json: bool,
    /// No progress bars and no info messages; warnings and errors only.
    pub quiet: bool,
    /// Number of `-v` flags.
    pub verbose: u8,
    /// Check everything, write nothing.
    pub dry_run: bool,
    /// May the network be used?
    pub allow_network: bool,
    /// Threads of the CPU pool.
    pub threads: usize,
    /// This process among those that do the command together.
    pub ranks: Collective,
    /// When the command began.
    pub started: SystemTime,
}

impl Context {
    /// The device that `--device` selects; each rank's own GPU, unless a number is given.
    pub fn device(&self) -> Result<Device> {
        device::select(&self.device, self.ranks.gpu(), ops::cuda::open)
    }

    /// The tensor dtype that `model.dtype` resolves to on this device.
    pub fn dtype(&self) -> Result<DType> {
        Ok(device::dtype(self.config.model.dtype, &self.device()?))
    }

    /// Date and time for chat templates that call `strftime_now`: those that the run directory keeps, so that every
    /// command of a run renders the same prompts; without one, this command's start. Local time, `2026-11-28T07:46:13`.
    pub fn prompt_date(&self) -> String {
        run_record::date(&self.run_dir).unwrap_or_else(|| {
            let now =
                jiff::Timestamp::try_from(self.started).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
            now.strftime("%Y-%m-%dT%H:%M:%S").to_string()
        })
    }

    /// All defaults, writing into `run_dir`.
    #[cfg(test)]
    pub fn for_test(run_dir: &std::path::Path) -> Self {
        Self {
            config: Config::default(),
            sets: Vec::new(),
            config_path: None,
            run_dir: run_dir.to_owned(),
            device: "cpu".into(),
            seed: 42,
            shard: None,
            json: false,
            quiet: true,
            verbose: 0,
            dry_run: false,
            allow_network: false,
            threads: 1,
            ranks: Collective::one(),
            started: SystemTime::now(),
        }
    }
}
