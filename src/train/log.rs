//! What a run says while it trains: `metrics.jsonl`, TensorBoard events, a progress bar on a terminal.
//!
//! Numbers only: no record's text, no id. Of several ranks, rank 0 alone says it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar};
use serde::Serialize;
use serde_json::Value;

use super::{
    dev::DevMetrics,
    loss::{Counts, Losses},
    mfu::Mfu,
    step::StepReport,
    tensorboard::EventWriter,
};
use crate::{
    error::{Error, Result},
    foreign, progress,
    storage::{self, RecordLog},
};

/// Name of the log in the run directory.
pub const METRICS: &str = "metrics.jsonl";

/// The progress bar.
const STEPS: &str = "{wide_bar} step {pos}/{len} · {msg} · {eta} left";
/// Between the log lines that stand in for the bar where there is no terminal.
const EVERY: Duration = Duration::from_secs(60);

/// A line of `metrics.jsonl` for an optimizer step.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct StepLine {
    r#type: &'static str,
    step: usize,
    epoch: usize,
    loss: f64,
    loss_gen: Option<f64>,
    loss_cls: Option<f64>,
    /// Under `train.w_consistency` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_consistency: Option<f64>,
    lr: f64,
    grad_norm: f64,
    records: usize,
    tokens: usize,
    target_tokens: usize,
    tokens_per_s: f64,
    seconds: f64,
    /// Model FLOPs utilisation, 0 to 1.
    mfu: Option<f64>,
    /// The sum of gradients over ranks: only where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    allreduce_seconds: Option<f64>,
    /// Its share of `seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    allreduce_share: Option<f64>,
}

/// A line for an epoch: means over its records and tokens, weighted as its last step is; then what dev says.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct EpochLine<'a> {
    r#type: &'static str,
    epoch: usize,
    step: usize,
    complete: bool,
    loss: f64,
    loss_gen: Option<f64>,
    loss_cls: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_consistency: Option<f64>,
    records: usize,
    /// What scoring dev took.
    #[serde(skip_serializing_if = "Option::is_none")]
    dev_seconds: Option<f64>,
    dev: Option<&'a DevMetrics>,
}

/// The run's log, open for appending.
#[derive(Debug)]
pub struct TrainLog {
    /// None of a rank that is not to write.
    files: Option<Files>,
    bar: ProgressBar,
    /// When a line was last printed in place of the bar.
    told: Instant,
}

#[derive(Debug)]
struct Files {
    lines: RecordLog,
    /// How many of the lines stay when the run goes on; `None` once it has.
    staying: Option<usize>,
    events: EventWriter,
    mfu: Option<Mfu>,
}

impl Files {
    /// Appends a line. Before the first, that of an epoch which goes on is cut: not earlier, since a run that is
    /// stopped before it has done a step leaves the epoch's checkpoint as it was.
    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        if let Some(staying) = self.staying.take() {
            self.lines.keep(staying)?;
        }
        self.lines.append(line)
    }
}

impl TrainLog {
    /// Opens the log of `run`, which ends with step `last`; a resume after step `done` drops the lines of later steps
    /// first, and that of an epoch after `complete_epochs` as soon as it logs anything.
    /// With `mfu` each step says what share of the devices' peak it used.
    pub fn open(
        run: &Path,
        last: usize,
        done: usize,
        complete_epochs: usize,
        mfu: Option<Mfu>,
        quiet: bool,
    ) -> Result<Self> {
        let path = run.join(METRICS);
        let staying = Some(keep_until(&path, done, complete_epochs)?);
        let lines = RecordLog::open(&path)?;
        let events = EventWriter::create(&run.join("tensorboard"), done + 1)?;
        let bar = progress::bar(quiet, Some(last), done, STEPS);
        Ok(Self { files: Some(Files { lines, staying, events, mfu }), bar, told: Instant::now() })
    }

    /// A log that says nothing.
    pub fn silent() -> Self {
        Self { files: None, bar: ProgressBar::hidden(), told: Instant::now() }
    }

    /// Logs a step.
    pub fn step(&mut self, epoch: usize, report: &StepReport) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let Losses { loss, generation: loss_gen, classification: loss_cls, consistency: loss_consistency } =
            report.losses;
        let Counts { records, tokens, target_tokens, .. } = report.counts;
        let tokens_per_s = tokens as f64 / report.seconds.max(1e-9);
        let step = report.step;
        let lr = report.lr;
        let grad_norm = report.grad_norm;
        let seconds = report.seconds;
        let mfu = files.mfu.map(|mfu| mfu.of(&report.counts, seconds));
        let allreduce_seconds = report.allreduce_seconds;
        let allreduce_share = allreduce_seconds.map(|sum| sum / seconds.max(1e-9));
        let r#type = "step";
        files.append(&StepLine {
            r#type,
            step,
            epoch,
            loss,
            loss_gen,
            loss_cls,
            loss_consistency,
            lr,
            grad_norm,
            records,
            tokens,
            target_tokens,
            tokens_per_s,
            seconds,
            mfu,
            allreduce_seconds,
            allreduce_share,
        })?;
        let mut scalars = vec![
            ("train/loss", Some(loss)),
            ("train/loss_gen", loss_gen),
            ("train/loss_cls", loss_cls),
            ("train/lr", Some(lr)),
            ("train/grad_norm", Some(grad_norm)),
            ("train/tokens_per_s", Some(tokens_per_s)),
            ("train/epoch", Some(epoch as f64)),
        ];
        scalars.extend(loss_consistency.map(|loss| ("train/loss_consistency", Some(loss))));
        let mut message = format!("epoch {epoch}, loss {loss:.4}, {tokens_per_s:.0} tokens/s");
        if let Some(share) = mfu {
            scalars.push(("train/mfu", mfu));
            message += &format!(", {:.0} % of peak", 100.0 * share);
        }
        if let Some(share) = allreduce_share {
            scalars.push(("train/allreduce_share", Some(share)));
            message += &format!(", allreduce {:.1} % of the step", 100.0 * share);
        }
        files.events.scalars(step, &scalars)?;
        self.show(step, message);
        Ok(())
    }

    /// Logs the end of an epoch, or (`complete` = false) of the run within it; `dev`: its metrics and the seconds that
    /// scoring it took.
    pub fn epoch(
        &mut self,
        epoch: usize,
        step: usize,
        complete: bool,
        means: &Losses,
        records: usize,
        dev: Option<(&DevMetrics, f64)>,
    ) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let Losses { loss, generation: loss_gen, classification: loss_cls, consistency: loss_consistency } = *means;
        let r#type = "epoch";
        let (dev, dev_seconds) = dev.unzip();
        files.append(&EpochLine {
            r#type,
            epoch,
            step,
            complete,
            loss,
            loss_gen,
            loss_cls,
            loss_consistency,
            records,
            dev_seconds,
            dev,
        })?;
        let mut scalars = vec![("epoch/loss", Some(loss)), ("epoch/loss_gen", loss_gen), ("epoch/loss_cls", loss_cls)];
        scalars.extend(loss_consistency.map(|loss| ("epoch/loss_consistency", Some(loss))));
        scalars.extend(dev.map(DevMetrics::scalars).unwrap_or_default());
        files.events.scalars(step, &scalars)
    }

    /// Waits until the disk has every line: before a checkpoint whose steps they are of.
    pub fn sync(&self) -> Result<()> {
        self.files.as_ref().map_or(Ok(()), |files| files.lines.sync())
    }

    /// Moves the bar; where there is none (a batch job's log) says the same in a line once a minute.
    fn show(&mut self, step: usize, message: String) {
        self.bar.set_position(step as u64);
        if self.bar.is_hidden() && self.told.elapsed() >= EVERY {
            tracing::info!("step {step}: {message}, {} left", HumanDuration(self.bar.eta()));
            self.told = Instant::now();
        }
        self.bar.set_message(message);
    }

    /// Says that dev is being scored.
    pub fn scoring(&self, epoch: usize) {
        self.bar.set_message(format!("epoch {epoch}, scoring dev"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// The bar, to be suspended while a line is printed.
    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }
}

/// Drops the lines of steps after `done`. Returns how many of the others stay when the run goes on: all but the last
/// where that is of an epoch after `complete_epochs`.
fn keep_until(path: &Path, done: usize, complete_epochs: usize) -> Result<usize> {
    storage::check_output(path)?;
    let Ok(file) = foreign::open(path) else { return Ok(0) };
    let mut kept: Vec<u8> = Vec::new();
    let mut staying = 0;
    let lines = BufReader::new(file)
        .split(b'\n')
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(|e| storage::error("cannot read", path, &e))?;
    for (i, line) in lines.iter().enumerate() {
        // A torn last line is not JSON: it goes too.
        let value = serde_json::from_slice::<Value>(line).unwrap_or_default();
        if value["type"] != "step" && value["type"] != "epoch" {
            if i + 1 == lines.len() {
                continue;
            }
            return Err(Error::usage(format!(
                "{} is there already and is no log of a training run (line {})",
                path.display(),
                i + 1
            ))
            .hint("move it away, or choose another directory with --run"));
        }
        let within = |key: &str, last: usize| value[key].as_u64().is_some_and(|n| n <= last as u64);
        if within("step", done) {
            kept.extend_from_slice(line);
            kept.push(b'\n');
            staying += usize::from(value["type"] == "step" || within("epoch", complete_epochs));
        }
    }
    storage::write_file_atomic(path, &kept)?;
    Ok(staying)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_drops_what_comes_after_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        let line = |kind, step, epoch| format!("{{\"type\":\"{kind}\",\"step\":{step},\"epoch\":{epoch}}}\n");
        let kept = line("step", 1, 1) + &line("step", 2, 1) + &line("epoch", 2, 1) + &line("step", 3, 2);
        std::fs::write(&path, kept.clone() + &line("step", 4, 2) + &line("epoch", 4, 2) + "{\"type\":\"st").unwrap();
        assert_eq!(keep_until(&path, 3, 1).unwrap(), 4);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
        // Of an epoch that was cut the line is there until the epoch goes on.
        let cut = line("step", 1, 1) + &line("step", 2, 1) + &line("epoch", 2, 1);
        assert_eq!(keep_until(&path, 2, 0).unwrap(), 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), cut);
    }
}
