//! What the data are: their files, counts by split and class, what is missing, cut, shared.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Sources, display_value, share};
use crate::{
    data::{Finish, Record},
    evaluation::{PredictionSource, splits},
    labels::Class,
    report::{
        Table,
        card::{Facts, code, columns, plain},
    },
};

/// A split as its file holds it.
struct Split {
    name: String,
    /// Records of each class, in their order.
    by_class: Vec<usize>,
    n: usize,
    /// Distinct groups; none where no record has one.
    groups: Option<usize>,
    /// Words of the texts: median and longest; none where only predictions are known.
    words: Option<(usize, usize)>,
    explained: Option<usize>,
}

impl Split {
    fn of<'a>(
        name: &str,
        classes: usize,
        rows: impl Iterator<Item = (Option<Class>, Option<&'a str>)> + Clone,
    ) -> Self {
        let mut by_class = vec![0; classes];
        for class in rows.clone().filter_map(|(label, _)| label) {
            if let Some(count) = by_class.get_mut(class.index()) {
                *count += 1;
            }
        }
        let groups: BTreeSet<&str> = rows.clone().filter_map(|(_, group)| group).collect();
        let groups = (!groups.is_empty()).then_some(groups.len());
        Self { name: name.to_owned(), by_class, n: rows.count(), groups, words: None, explained: None }
    }

    fn of_records(name: &str, classes: usize, records: &[Record]) -> Self {
        let rows = records.iter().map(|record| (record.label, record.group.as_deref()));
        let words = |record: &Record| record.fields.values().map(|text| text.split_whitespace().count()).sum();
        let mut all: Vec<usize> = records.iter().map(words).collect();
        all.sort_unstable();
        let explained = records.iter().filter(|record| record.explanation.is_some()).count();
        Self {
            words: all.last().map(|&longest| (all[all.len() / 2], longest)),
            explained: Some(explained),
            ..Self::of(name, classes, rows)
        }
    }

    fn classes(&self, labels: &[String]) -> String {
        let each = |(count, label): (&usize, &String)| format!("{} {}", share(*count, self.n), code(label));
        self.by_class.iter().zip(labels).map(each).collect::<Vec<_>>().join(", ")
    }
}

/// States what is known of the data.
pub fn state(sources: &Sources<'_>, facts: &mut Facts) {
    let splits = splits(sources);
    let labels = sources.labels();
    facts.list("sources", files(sources));
    facts.set("counts", counts(&splits, labels));
    facts.list("flow", flow(sources, &splits));
    facts.list("shares", shares(&splits, labels));
    facts.list("fields", fields(sources));
    facts.list("reading", reading(sources));
    facts.list("missing", missing(sources, &splits));
    // As it stands among the tables that were just written.
    let leakage = sources.job().and_then(|_| super::read(&sources.folder.out.join("tables/leakage.json")));
    let leakage: Option<Table> = leakage.and_then(|table| serde_json::from_value(table).ok());
    let mut shared: Vec<String> = leakage.iter().map(|table| columns(table, &[0, 1, 2, 3])).collect();
    match sources.scored.dev_overlap {
        0 => {}
        n => shared.push(format!("{n} of the scored records are dev's too.")),
    }
    facts.set("leakage", shared.join("\n"));
}

/// Each split that can be read; of prediction files, what they hold.
fn splits(sources: &Sources<'_>) -> Vec<Split> {
    let classes = sources.labels().len();
    let config = &sources.context.config;
    if sources.job().is_none() {
        let rows = sources.scored.predictions.iter().map(|line| (line.label, line.group.as_deref()));
        return vec![Split::of("scored", classes, rows)];
    }
    // What cannot be read was told with leakage.
    let load = |path: &PathBuf| splits::load(config, path, &sources.scored.fields).ok();
    let named = named_splits(sources).into_iter();
    named.filter_map(|(name, path)| Some(Split::of_records(name, classes, &load(&path)?))).collect()
}

/// Names and files of the config's splits.
fn named_splits(sources: &Sources<'_>) -> Vec<(&'static str, PathBuf)> {
    let data = &sources.context.config.data;
    let named = [("train", &data.train), ("dev", &data.dev), ("test", &data.test)];
    named.into_iter().filter_map(|(name, path)| Some((name, path.clone()?))).collect()
}

/// Files with length and hash, as `run.json` lists them.
fn files(sources: &Sources<'_>) -> Vec<String> {
    let inputs = |record: &Value| record["inputs"].as_array().cloned().unwrap_or_default();
    let listed: Vec<Value> =
        [Some(&sources.run), sources.command("train")].into_iter().flatten().flat_map(inputs).collect();
    let line = |role: &str, path: &Path| {
        let entry = listed.iter().find(|input| input["path"] == *path.to_string_lossy())?;
        let bytes = display_value(&entry["bytes"]).map_or_else(String::new, |bytes| format!(", {bytes} bytes"));
        let hash = display_value(&entry["blake3"])
            .map_or_else(|| ", no hash recorded".into(), |hash| format!(", BLAKE3 {}", code(&hash)));
        Some(format!("{role}: {}{bytes}{hash}", code(&path.to_string_lossy())))
    };
    let config = &sources.context.config;
    let mut lines: Vec<String> = match sources.work {
        PredictionSource::Files { test, dev } => {
            let test = test.iter().filter_map(|path| line("scored predictions", path));
            test.chain(dev.iter().filter_map(|path| line("dev predictions", path))).collect()
        }
        PredictionSource::Run(_) => {
            named_splits(sources).iter().filter_map(|(name, path)| line(name, &config.resolve(path))).collect()
        }
    };
    let constructed = listed.iter().filter_map(|input| input["path"].as_str()).find(|path| {
        Path::new(path).parent().is_some_and(|folder| folder.ends_with("construct")) && path.ends_with("train.jsonl")
    });
    lines.extend(constructed.and_then(|path| line("trained on, with explanations made for it", Path::new(path))));
    lines
}

fn counts(splits: &[Split], labels: &[String]) -> String {
    if splits.is_empty() {
        return String::new();
    }
    let heads: Vec<String> = labels.iter().map(|label| plain(label)).collect();
    let heads = ["Split", "Records"].into_iter().chain(heads.iter().map(String::as_str));
    let mut table = Table::new(
        "",
        "Records by split and class",
        &heads.chain(["Groups", "Words, median (most)"]).collect::<Vec<_>>(),
    );
    for split in splits {
        let groups = split.groups.map_or_else(|| "–".into(), |groups| groups.to_string());
        let words = split.words.map_or_else(|| "–".into(), |(median, most)| format!("{median} ({most})"));
        let by_class = split.by_class.iter().map(|&count| share(count, split.n));
        table.row([split.name.clone(), split.n.to_string()].into_iter().chain(by_class).chain([groups, words]));
    }
    table.markdown()
}

/// From the files to the numbers.
fn flow(sources: &Sources<'_>, splits: &[Split]) -> Vec<String> {
    let labels = sources.labels();
    let read = splits.iter().map(|split| format!("{}: {} records: {}", split.name, split.n, split.classes(labels)));
    let mut lines: Vec<String> = read.collect();
    let stats = sources.of_run("construct/stats.json").unwrap_or_default();
    for (split, stats) in stats["splits"].as_object().into_iter().flatten() {
        let count = |key: &str| -> Option<usize> {
            let by_class = &stats["statistics"][key];
            let counts = by_class.as_object().map(|object| object.values().collect::<Vec<_>>());
            let counts = counts.or_else(|| by_class.as_array().map(|list| list.iter().collect()))?;
            Some(counts.into_iter().filter_map(Value::as_u64).sum::<u64>() as usize)
        };
        if let [Some(original), Some(generated), Some(failed)] = ["original", "generated", "failed"].map(count) {
            lines.push(format!(
                "explanations constructed for {split}: {} of {original} records, none for {failed}",
                share(generated, original)
            ));
        }
    }
    lines.push(format!("scored: {} records", sources.scored.sample.len()));
    lines
}

fn shares(splits: &[Split], labels: &[String]) -> Vec<String> {
    let known = |split: &Split| {
        let words = split.words.map_or_else(String::new, |(median, _)| format!("; {median} words at the median"));
        format!("{}: {}{words}", split.name, split.classes(labels))
    };
    // One alone is no comparison.
    if splits.len() < 2 { Vec::new() } else { splits.iter().map(known).collect() }
}

/// Which texts the model reads.
fn fields(sources: &Sources<'_>) -> Vec<String> {
    let Some(job) = sources.job() else { return Vec::new() };
    let names: Vec<String> = job.template.fields().iter().map(|field| code(field)).collect();
    let data = &sources.context.config.data;
    let mapped = data.fields.iter().map(|(field, column)| format!("{} is the column {}", code(field), code(column)));
    [format!("text fields read: {}; {} is the one that may be cut", names.join(", "), code(&job.template.document))]
        .into_iter()
        .chain(mapped)
        .collect()
}

/// How records become prompts.
fn reading(sources: &Sources<'_>) -> Vec<String> {
    let Some(job) = sources.job() else { return Vec::new() };
    let config = serde_json::to_value(&sources.context.config).unwrap_or_default();
    let format = display_value(&config["data"]["format"]).unwrap_or_default();
    let cut = serde_json::to_value(job.info.truncate).unwrap_or_default();
    let mut lines = vec![
        format!("read as data.format = {}, every split alike", code(&format)),
        format!(
            "window: {} tokens of prompt, {} of text; of a longer document the {} goes, of the prompt nothing",
            job.info.max_input_tokens,
            job.info.max_output_tokens,
            display_value(&cut).map_or_else(String::new, |part| match part.as_str() {
                "tail" => "end".into(),
                "head" => "start".into(),
                other => other.to_owned(),
            })
        ),
    ];
    lines.extend(truncation(sources));
    lines
}

/// How many scored documents were cut.
fn truncation(sources: &Sources<'_>) -> Option<String> {
    let counted: Vec<usize> = sources.scored.predictions.iter().filter_map(|line| line.truncated_tokens).collect();
    let cut: Vec<usize> = counted.iter().copied().filter(|&tokens| tokens > 0).collect();
    (!counted.is_empty()).then(|| {
        let most = cut.iter().max().map_or_else(String::new, |most| format!(", by {most} tokens at most"));
        format!("documents cut to the window: {} of the scored records{most}", share(cut.len(), counted.len()))
    })
}

/// Records without a score, texts without a verdict, records without an explanation.
fn missing(sources: &Sources<'_>, splits: &[Split]) -> Vec<String> {
    let lines = || sources.scored.predictions.iter();
    let all = lines().count();
    // An error line would have ended the evaluation.
    let mut told = vec![format!("records without a score: none of {all}")];
    let parsable = lines().filter_map(|line| line.parsable).collect::<Vec<_>>();
    if !parsable.is_empty() {
        let without = parsable.iter().filter(|parsable| !**parsable).count();
        told.push(format!("texts that name no class: {}", share(without, parsable.len())));
    }
    let cut_short = lines().filter(|line| line.finish == Some(Finish::Length)).count();
    if lines().any(|line| line.finish.is_some()) {
        told.push(format!("texts that ended at the length limit: {}", share(cut_short, all)));
    }
    for split in splits.iter().filter(|split| split.name == "train") {
        told.extend(
            split.explained.map(|explained| {
                format!("train records whose file holds an explanation: {}", share(explained, split.n))
            }),
        );
    }
    told.extend(truncation(sources));
    let stats = sources.of_run("construct/stats.json").unwrap_or_default();
    for (split, stats) in stats["splits"].as_object().into_iter().flatten() {
        let reasons = stats["statistics"]["failures"].as_object();
        let reasons: Vec<String> =
            reasons.into_iter().flatten().map(|(reason, count)| format!("{count} {}", code(reason))).collect();
        if !reasons.is_empty() {
            told.push(format!("trials of the teacher that failed, {split}: {}", reasons.join(", ")));
        }
    }
    told
}
