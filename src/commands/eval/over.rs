//! `--over RUN…`: mean ± SD of the model's own metrics over runs that differ by their seed alone.
//!
//! Every run was evaluated before: `RUN/eval/<split>/metrics.json` is read, nothing is scored. Runs of other data or
//! another config are refused by what decided them: `RUN/train.json` and the split's `settings.json`; so are runs that
//! were not trained as far, and metrics of another checkpoint than the run's best is now.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{args::EvalArgs, dry_run::DryRunReport, output, run_json},
    Context,
    gate::leaves_of,
    write_tables,
};
use crate::{
    error::{Error, Result},
    evaluation::{
        folder::{self, Fingerprints},
        judge, language, log,
    },
    fingerprint::Fingerprint,
    foreign,
    generate::scoring,
    metrics::runs::Spread,
    report::{Table, table::number},
    storage,
    train::log::METRICS,
};

/// What may differ: the seed, what training made of it, and the day that a prompt's clock was read.
const OF_THE_SEED: [&str; 4] = ["train.seed", "checkpoint", "dev predictions", "prompt date"];
/// The document beside the tables.
const FILE: &str = "over.json";

/// A run that was evaluated.
struct Evaluated {
    path: PathBuf,
    trained: Fingerprint,
    made: Fingerprints,
    /// What made the judge's answers and the base's perplexities, where there are some.
    others: [Option<Fingerprint>; 2],
    metrics: Value,
    /// Steps that were trained; none where its log is gone.
    steps: Option<u64>,
}

/// Mean ± SD of `--over`, in `RUN/eval/over/<split>/`.
pub fn run(context: &Context, args: &EvalArgs) -> Result<()> {
    let runs = args.over.iter().map(|path| Evaluated::read(path, args.split())).collect::<Result<Vec<_>>>()?;
    check(&runs)?;
    let root = context.run_dir.join("eval");
    folder::refuse_older(&root)?;
    let out = root.join("over").join(args.split());
    let named: Vec<Value> = runs.iter().map(Evaluated::named).collect();
    refuse_others(&out, &named, args.overwrite)?;
    let spreads = spreads(&runs);
    if context.dry_run {
        return DryRunReport::new(context, "eval").with("runs", named).with("metrics", spreads.len()).print(context);
    }
    let lock = run_json::lock(&context.run_dir)?;
    storage::create_dir_all(&out)?;
    let files: Vec<PathBuf> = runs.iter().map(|run| metrics_file(&run.path, args.split())).collect();
    run_json::write(context, "eval", &files.iter().map(PathBuf::as_path).collect::<Vec<_>>(), &[], lock)?;
    let table = table(args.split(), &spreads, runs.len());
    let metrics: Map<String, Value> = spreads.iter().map(|(path, spread)| (path.clone(), json!(spread))).collect();
    let document = json!({ "schema": 1, "split": args.split(), "runs": named, "metrics": metrics });
    storage::write_json(&out.join(FILE), &document)?;
    write_tables(&out, &[&table])?;
    tracing::info!("wrote {}", out.join(FILE).display());
    if context.json { output::write(&storage::json(&document)?) } else { output::line(&table.markdown()) }
}

fn metrics_file(run: &Path, split: &str) -> PathBuf {
    run.join("eval").join(split).join("metrics.json")
}

impl Evaluated {
    fn read(path: &Path, split: &str) -> Result<Self> {
        let metrics = metrics_file(path, split);
        #[derive(Deserialize)]
        struct Settings {
            made: Fingerprints,
        }
        let settings: Settings = read(&metrics.with_file_name(folder::SETTINGS), path)?;
        let best = scoring::checkpoint_dir(path).ok().filter(|best| best.is_dir());
        let now = best.as_deref().map(scoring::checkpoint_hash).transpose()?;
        let measured = settings.made.scoring.get("checkpoint");
        if now.is_some_and(|now| !measured.is_null() && *measured != json!(now)) {
            return Err(Error::usage(format!(
                "--over: {} is of another checkpoint than the run's best is now",
                metrics.display()
            ))
            .hint(format!("evaluate it again: give eval --overwrite, --split {split} and --run {}", path.display())));
        }
        let values: Value = read(&metrics, path)?;
        let made_by = |file: &str| log::made_by(&metrics.with_file_name(file));
        // A text that is gone or was changed since leaves its answers, but no perplexity.
        let read_text = made_by(language::BASE_FILE).filter(|_| !values["perplexity"].is_null());
        Ok(Self {
            steps: steps(path),
            trained: read(&path.join("train.json"), path)?,
            made: settings.made,
            others: [made_by(judge::FILE), read_text],
            metrics: values,
            path: path.to_owned(),
        })
    }

    fn seed(&self) -> &Value {
        self.trained.get("train.seed")
    }

    fn named(&self) -> Value {
        json!({ "path": std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()), "seed": self.seed() })
    }

    /// Where it is another run than `first`, but for the seed.
    fn differences(&self, first: &Self) -> Vec<String> {
        let counts = |key: &str| !OF_THE_SEED.contains(&key);
        let pairs = [
            (&self.trained, &first.trained),
            (&self.made.scoring, &first.made.scoring),
            (&self.made.measuring, &first.made.measuring),
        ];
        let apart = pairs.map(|(own, first)| own.filtered(counts).differences(&first.filtered(counts)));
        let mut all = apart.concat();
        // Who judged, and what was read for the perplexity, are in no settings of the split.
        for (own, first) in self.others.iter().zip(&first.others) {
            if let (Some(own), Some(first)) = (own, first) {
                let counts = |key: &str| counts(key) && key != "predictions";
                all.extend(own.filtered(counts).differences(&first.filtered(counts)));
            }
        }
        if let (Some(own), Some(first)) = (self.steps, first.steps)
            && own != first
        {
            all.push(format!("steps trained ({first} → {own})"));
        }
        all.sort();
        all.dedup();
        all
    }
}

/// How far the run was trained, by its log: it may be under way, so that its checkpoints are not ours to look into.
fn steps(run: &Path) -> Option<u64> {
    let log = foreign::read(&run.join(METRICS), foreign::LOG).ok()?;
    let lines = log.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines.filter(|line| line["type"] == "step").filter_map(|line| line["step"].as_u64()).max()
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path, run: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| {
        Error::usage(format!("--over: cannot read {}: {}", path.display(), storage::reason(&e))).hint(format!(
            "give run directories that were trained and evaluated: clsgen eval --config FILE --run {}",
            run.display()
        ))
    })?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::usage(format!("--over: {} cannot be read: {}", path.display(), foreign::reason(&e)))
            .hint(format!("evaluate {} again", run.display()))
    })
}

/// Refuses (exit 2) fewer than two runs, one that is given twice, and others than the first but for the seed.
fn check(runs: &[Evaluated]) -> Result<()> {
    let [first, others @ ..] = runs else { return Err(Error::usage("--over needs runs")) };
    if others.is_empty() {
        return Err(Error::usage("--over: one run has no standard deviation")
            .hint("give two runs or more, trained with --seed 1, --seed 2, …"));
    }
    for (k, run) in runs.iter().enumerate().skip(1) {
        let differing = run.differences(first);
        if !differing.is_empty() {
            return Err(Error::usage(format!(
                "--over: {} and {} differ by more than the seed: {}",
                first.path.display(),
                run.path.display(),
                differing.join("; ")
            ))
            .hint("train and evaluate every run with the same config and data, each with a --seed of its own"));
        }
        if let Some(same) = runs[..k].iter().find(|other| other.seed() == run.seed()) {
            return Err(Error::usage(format!(
                "--over: {} and {} have the same seed, {}",
                same.path.display(),
                run.path.display(),
                run.seed()
            ))
            .hint("a run counts once; train the other with a --seed of its own"));
        }
    }
    Ok(())
}

/// What was made of other runs is kept until `--overwrite`.
fn refuse_others(out: &Path, named: &[Value], overwrite: bool) -> Result<()> {
    let path = out.join(FILE);
    let Ok(bytes) = std::fs::read(&path) else { return Ok(()) };
    let theirs: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    // An older clsgen kept paths as they were given.
    let whole = |run: &Value| {
        let path = run["path"].as_str().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
        json!({ "path": path, "seed": run["seed"] })
    };
    let same = |runs: &Vec<Value>| runs.iter().map(whole).eq(named.iter().cloned());
    if overwrite || theirs["runs"].as_array().is_some_and(same) {
        return Ok(());
    }
    Err(Error::usage(format!("{} is of other runs", path.display()))
        .hint("--overwrite replaces it; or give another --run"))
}

/// Each metric that the first run has, over all of them.
fn spreads(runs: &[Evaluated]) -> Vec<(String, Spread)> {
    let each: Vec<Vec<(String, &Value)>> = runs.iter().map(|run| leaves_of(&run.metrics)).collect();
    let of = |path: &String| -> Vec<Option<f64>> {
        let leaf = |leaves: &Vec<(String, &Value)>| {
            leaves.iter().find(|(other, _)| other == path).and_then(|(_, leaf)| leaf["value"].as_f64())
        };
        each.iter().map(leaf).collect()
    };
    each.first().into_iter().flatten().map(|(path, _)| (path.clone(), Spread::of(of(path)))).collect()
}

/// A row a metric.
fn table(split: &str, spreads: &[(String, Spread)], runs: usize) -> Table {
    let title = format!("CLSGen over {runs} runs, {split} split");
    let mut table = Table::new("over", &title, &["Metric", "Mean ± SD", "Mean", "SD", "Lowest", "Highest", "Note"]);
    for (path, spread) in spreads {
        let both = spread.mean.zip(spread.sd);
        let both =
            both.map_or_else(|| number(None), |(mean, sd)| format!("{} ± {}", number(Some(mean)), number(Some(sd))));
        let ends = [spread.mean, spread.sd, spread.lowest(), spread.highest()].map(number);
        let note = spread.reason.clone().unwrap_or_default();
        table.row([path.clone(), both].into_iter().chain(ends).chain([note]));
    }
    table.note("SD with n − 1. The runs differ by their seed alone; metrics go by their paths in metrics.json.");
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_that_the_runs_have_is_spread() {
        let run = |auroc: f64, f1: Value| Evaluated {
            steps: None,
            path: PathBuf::new(),
            trained: Fingerprint::default(),
            made: Fingerprints { scoring: Fingerprint::default(), measuring: Fingerprint::default() },
            others: [None, None],
            metrics: json!({ "n": 3, "auroc": { "value": auroc, "ci95": null, "n": 3 },
                "per_class": [{ "label": "a", "f1": { "value": f1, "ci95": null, "n": 3 } }] }),
        };
        let found = spreads(&[run(0.5, json!(0.25)), run(0.75, Value::Null)]);
        assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["auroc", "per_class.a.f1"]);
        assert_eq!((found[0].1.mean, found[1].1.mean), (Some(0.625), None));
        assert!(table("test", &found, 2).rows[1][6].contains("1 of 2"));
    }
}
