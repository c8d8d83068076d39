//! What dev said after each epoch of a run, read back: the points of the paper's Fig. 1.

use std::{collections::BTreeMap, path::Path};

use super::{
    checkpoint::{CHECKPOINTS, DEV_METRICS},
    dev::DevMetrics,
    log::METRICS,
};
use crate::{
    error::{Error, Result},
    foreign, storage,
};

/// Dev metrics of every epoch that has them: a checkpoint's own `dev.metrics.json`, else (the checkpoint was deleted)
/// its line of `metrics.jsonl`.
pub fn dev_history(run: &Path) -> Result<BTreeMap<usize, DevMetrics>> {
    let mut history = BTreeMap::new();
    // A torn last line is not JSON; an epoch without dev has null.
    for line in foreign::read_text(&run.join(METRICS), foreign::LOG).unwrap_or_default().lines() {
        let Ok(mut value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if let (true, Some(epoch)) = (value["type"] == "epoch", value["epoch"].as_u64())
            && let Ok(dev) = serde_json::from_value(value["dev"].take())
        {
            history.insert(epoch as usize, dev);
        }
    }
    for entry in std::fs::read_dir(run.join(CHECKPOINTS)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let epoch = name.to_str().and_then(|name| name.strip_prefix("epoch-")?.parse::<usize>().ok());
        let path = entry.path().join(DEV_METRICS);
        if let Some(epoch) = epoch.filter(|_| path.is_file()) {
            let dev = serde_json::from_slice(&storage::verify_file(&entry.path(), DEV_METRICS)?)
                .map_err(|e| Error::model(format!("{}: {}", path.display(), foreign::reason(&e))))?;
            history.insert(epoch, dev);
        }
    }
    Ok(history)
}

/// What scoring a dev record took when the run was trained, prompt and text, after its last epoch; `None` where the log
/// does not tell.
pub fn seconds_a_record(run: &Path) -> Option<f64> {
    let log = foreign::read_text(&run.join(METRICS), foreign::LOG).ok()?;
    log.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let seconds = line["dev_seconds"].as_f64().filter(|seconds| seconds.is_finite() && *seconds > 0.0)?;
        let records = line["dev"]["n"].as_u64().filter(|records| *records > 0)?;
        Some(seconds / records as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{AnyEvaluation, Options, Sample, evaluate};

    #[test]
    fn checkpoints_come_before_the_log_which_fills_the_gaps() {
        let run = tempfile::tempdir().unwrap();
        let dev = |loss| DevMetrics {
            loss: Some(loss),
            loss_gen: None,
            loss_cls: None,
            evaluation: AnyEvaluation::Two(Box::new(evaluate(&Sample::new(), None, &Options::default()))),
        };
        let line = |epoch: usize, dev: Option<DevMetrics>| {
            serde_json::json!({"type": "epoch", "epoch": epoch, "dev": dev}).to_string() + "\n"
        };
        let log = line(1, Some(dev(0.1)))
            + &line(2, Some(dev(0.2)))
            + &line(3, None)
            + "{\"type\":\"step\",\"epoch\":1}\n{\"ty";
        std::fs::write(run.path().join(METRICS), log).unwrap();
        let checkpoint = run.path().join(CHECKPOINTS).join("epoch-02");
        std::fs::create_dir_all(&checkpoint).unwrap();
        std::fs::write(checkpoint.join(DEV_METRICS), serde_json::to_vec(&dev(0.7)).unwrap()).unwrap();
        let losses: Vec<_> =
            dev_history(run.path()).unwrap().into_iter().map(|(epoch, dev)| (epoch, dev.loss)).collect();
        assert_eq!(losses, [(1, Some(0.1)), (2, Some(0.7))]);
        std::fs::write(checkpoint.join(DEV_METRICS), "{").unwrap();
        assert_eq!(dev_history(run.path()).unwrap_err().exit_code(), 4);
        assert!(dev_history(&run.path().join("absent")).unwrap().is_empty());
    }
}
