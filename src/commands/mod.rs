//! The recipes: construct, train, eval, predict, demo, selftest. Flat, readable, no cleverness. Layer 6.

pub mod args;
pub mod construct;
pub mod demo;
pub mod dry_run;
pub mod eval;
pub mod logging;
mod machine;
pub mod man;
pub mod output;
pub mod predict;
pub mod run_record;
mod scoring;
pub mod selftest;
pub mod train;

use std::{path::PathBuf, time::SystemTime};

use candle_core::{DType, Device};

use crate::{config::Config, device, error::Result};

/// What the global flags say, resolved once.
#[derive(Debug, Clone)]
pub struct Context {
    /// The validated config: file, then `--set`, then `--seed`.
    pub config: Config,
    /// `--set`, as given: for a command that loads a config of its own.
    pub sets: Vec<String>,
    /// The config file, if one was given.
    pub config_path: Option<PathBuf>,
    /// `--run`, default `runs/<task.name>`.
    pub run_dir: PathBuf,
    /// `--device`, as given.
    pub device: String,
    /// `--seed`, default `train.seed`.
    pub seed: u64,
    /// Machine-readable stdout.
    pub json: bool,
    /// No progress, no notes; warnings and errors only.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Check everything, write nothing.
    pub dry_run: bool,
    /// May the network be used?
    pub allow_network: bool,
    /// Worker threads.
    pub threads: usize,
    /// When the command began.
    pub started: SystemTime,
}

impl Context {
    /// The device `--device` names.
    pub fn device(&self) -> Result<Device> {
        device::select(&self.device, crate::ops::cuda::open)
    }

    /// The number type that `model.dtype` comes to on this device.
    pub fn dtype(&self) -> Result<DType> {
        Ok(device::dtype(self.config.model.dtype, &self.device()?))
    }

    /// Now, for chat templates that read the clock: taken by the run directory's first command and used by all later
    /// ones. Local time, `2026-11-28T07:46:13`.
    pub fn prompt_date(&self) -> String {
        let held = run_record::read(&self.run_dir.join(run_record::FILE));
        let held = held.and_then(|record| record["prompt_date"].as_str().map(str::to_owned));
        held.unwrap_or_else(|| {
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
            json: false,
            quiet: true,
            verbose: 0,
            dry_run: false,
            allow_network: false,
            threads: 1,
            started: SystemTime::now(),
        }
    }
}
