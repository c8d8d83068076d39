//! What the model is: its base, how it was built, chosen, prompted, on which machines.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Sources, display_value};
use crate::{
    foreign,
    report::card::{Facts, block, code},
    train::log::METRICS,
};

/// Settings of the training that are told, with what they are called.
const BUILDING: [(&str, &[(&str, &str)]); 4] = [
    (
        "objective",
        &[
            ("train.objective", "losses"),
            ("train.w_gen", "weight of the text's loss"),
            ("train.w_cls", "of the head's"),
            ("train.w_consistency", "of the consistency loss"),
            ("train.loss_schedule", "their schedule"),
            ("train.label_smoothing", "label smoothing"),
        ],
    ),
    (
        "what is trained",
        &[
            ("train.parameters", "parameters"),
            ("lora.rank", "LoRA rank"),
            ("lora.alpha", "alpha"),
            ("lora.dropout", "dropout"),
            ("lora.targets", "on"),
        ],
    ),
    (
        "optimizer",
        &[
            ("train.learning_rate", "AdamW, learning rate"),
            ("train.warmup_steps", "warmup steps"),
            ("train.weight_decay", "weight decay"),
            ("train.max_grad_norm", "gradient norm at most"),
        ],
    ),
    (
        "schedule",
        &[
            ("train.epochs", "epochs"),
            ("train.batch_size", "batch"),
            ("train.grad_accumulation", "accumulation"),
            ("train.effective_batch", "effective batch"),
            ("train.max_steps", "steps at most"),
            ("train.curriculum", "curriculum"),
            ("train.seed", "seed"),
        ],
    ),
];

/// States what is known of the model.
pub fn state(sources: &Sources<'_>, facts: &mut Facts) {
    facts.set("stages", stages(sources));
    facts.list("model", model(sources));
    facts.list("building", building(sources));
    facts.list("selection", selection(sources));
    facts.list("imbalance", imbalance(sources));
    facts.list("teacher", teacher(sources));
    facts.set("prompt", prompt(sources));
    facts.list("decoding", decoding(sources));
    facts.list("compute", compute(sources));
    facts.list("program", program(sources));
    facts.set("task", task(sources));
}

/// Which stages of a model's life the run has.
fn stages(sources: &Sources<'_>) -> String {
    let split = sources.work.split().unwrap_or("prediction files");
    if sources.job().is_none() {
        return "Predictions that were made elsewhere are evaluated; how their model was made, the run does not say."
            .into();
    }
    let constructed = sources.of_run("construct/stats.json").is_some();
    let trained = sources.command("train").is_some();
    let made = match (constructed, trained) {
        (true, true) => {
            "Explanations are constructed by a teacher, a base model is fine-tuned, and the result evaluated"
        }
        (false, true) => "A base model is fine-tuned and evaluated",
        (_, false) => "A fine-tuned model is evaluated; the run directory has no record of its training",
    };
    format!("{made} (scored: {split}).")
}

fn model(sources: &Sources<'_>) -> Vec<String> {
    let Some(job) = sources.job() else { return Vec::new() };
    let info = &job.info;
    let hash = |hash: &Option<String>| {
        hash.as_ref().map_or("no hash recorded".into(), |hash| format!("BLAKE3 {}", code(hash)))
    };
    let checkpoint = job.checkpoint.strip_prefix(&sources.context.run_dir).unwrap_or(&job.checkpoint);
    let mut lines = vec![
        format!("base: {}, {}", code(&info.base_model), hash(&info.base_hash)),
        format!("its tokenizer and chat template: {}", hash(&info.tokenizer_hash)),
        format!("checkpoint: {}, BLAKE3 {}", code(&checkpoint.to_string_lossy()), code(&job.hash)),
    ];
    if !info.clsgen_version.is_empty() {
        lines.push(format!("written by clsgen {}", info.clsgen_version));
    }
    lines.push(match sources.command("train").and_then(|record| display_value(&record["ended"])) {
        Some(ended) => format!("last trained: {ended}"),
        None => "last trained: not recorded".into(),
    });
    lines
}

fn building(sources: &Sources<'_>) -> Vec<String> {
    let Some(job) = sources.job() else { return Vec::new() };
    let head = serde_json::to_value(&job.info.head).unwrap_or_default();
    let of_head = |key: &str| display_value(&head[key]).unwrap_or_default();
    let mut lines = vec![format!(
        "head: hidden state of the prompt's last token, after the final norm → {} → {} logits, {}, dropout {}",
        of_head("hidden"),
        job.info.labels.len(),
        of_head("activation"),
        of_head("dropout")
    )];
    let Some(record) = sources.command("train") else {
        lines.push("settings of the training: not recorded in this run directory".into());
        return lines;
    };
    let config = &record["config"];
    let full = config["train"]["parameters"] == "full";
    for (name, keys) in BUILDING {
        let given = keys.iter().filter(|(key, _)| !(full && key.starts_with("lora.")));
        let told: Vec<String> = given
            .filter_map(|(key, name)| {
                let value = key.split('.').fold(config, |value, part| &value[part]);
                Some(format!("{name} {}", display_value(value)?))
            })
            .collect();
        lines.push(format!("{name}: {}", told.join(", ")));
    }
    lines
}

/// The rule, and what it chose.
fn selection(sources: &Sources<'_>) -> Vec<String> {
    let Some(best) = sources.of_run("best.json") else { return Vec::new() };
    let epochs = log(sources).map_or(0, |log| log.epochs);
    let chosen = display_value(&best["epoch"]).unwrap_or_default();
    let score = display_value(&best["score"])
        .map_or_else(|| "no dev metric defines a score".into(), |score| format!("score {score}"));
    let of = if epochs > 0 { format!(" of {epochs}") } else { String::new() };
    vec![
        "rule: the epoch with the highest sum of z-scores of AUROC, AUROC-Align and κ on dev; ties go to the earliest"
            .into(),
        format!("chosen: epoch {chosen}{of}, {score} ({})", code(&display_value(&best["path"]).unwrap_or_default())),
    ]
}

/// What was done about rare classes.
fn imbalance(sources: &Sources<'_>) -> Vec<String> {
    let Some(record) = sources.command("train") else { return Vec::new() };
    let train = &record["config"]["train"];
    let said = [("class_weights", "weights of the classes in the loss"), ("sample", "sampling of the records")];
    let told =
        said.iter().filter_map(|(key, name)| Some(format!("{name} (train.{key}): {}", display_value(&train[*key])?)));
    let mut told: Vec<String> = told.collect();
    if told.is_empty() {
        told.push("no weights of classes and no resampling: the settings of the training have none".into());
    }
    told
}

/// Who wrote the explanations that were learned.
fn teacher(sources: &Sources<'_>) -> Vec<String> {
    let stats = sources.of_run("construct/stats.json").unwrap_or_default();
    let mut lines = Vec::new();
    for (split, stats) in stats["splits"].as_object().into_iter().flatten() {
        let settings = &stats["settings"];
        let setting = |key: &str| display_value(&settings[format!("construct.{key}").as_str()]);
        let told = [
            ("trials at most", setting("trials")),
            ("temperature", setting("temperature")),
            ("top_p", setting("top_p")),
            ("where all fail", setting("on_fail")),
        ];
        let told: Vec<String> =
            told.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))).collect();
        let hash = setting("teacher").map_or_else(|| "no hash recorded".into(), |hash| code(&hash));
        lines.push(format!("explanations of {split}: written by a teacher model ({hash}), {}", told.join(", ")));
    }
    if let Some(teacher) =
        sources.command("construct").and_then(|record| display_value(&record["config"]["construct"]["teacher"]))
    {
        lines.push(format!("construct.teacher: {}", code(&teacher)));
    }
    lines
}

fn prompt(sources: &Sources<'_>) -> String {
    let Some(job) = sources.job() else { return String::new() };
    let template = serde_json::to_value(&job.template).unwrap_or_default();
    let parts = ["system", "user", "question", "prefix", "verdict"];
    let told = parts.iter().filter_map(|part| {
        let text = template[*part].as_str().filter(|text| !text.is_empty())?;
        Some(format!("{part}:\n\n{}", block(text)))
    });
    told.collect::<Vec<_>>().join("\n\n")
}

fn decoding(sources: &Sources<'_>) -> Vec<String> {
    let Some(job) = sources.job() else { return Vec::new() };
    let config = serde_json::to_value(&sources.context.config).unwrap_or_default();
    let generate = &config["generate"];
    let told = ["temperature", "top_p", "constrain"]
        .iter()
        .filter_map(|key| Some(format!("generate.{key} = {}", display_value(&generate[*key])?)));
    let mut lines = vec![
        told.collect::<Vec<_>>().join(", "),
        format!("at most {} tokens of text; seed {}", job.info.max_output_tokens, sources.context.seed),
    ];
    lines.extend(
        display_value(&sources.run["prompt_date"]).map(|date| format!("date in prompts that print one: {date}")),
    );
    lines
}

/// What `metrics.jsonl` counts.
struct Log {
    steps: usize,
    epochs: usize,
    seconds: f64,
    tokens: u64,
}

fn log(sources: &Sources<'_>) -> Option<Log> {
    sources.job()?;
    let bytes = foreign::read(&sources.context.run_dir.join(METRICS), foreign::LARGE).ok()?;
    let mut log = Log { steps: 0, epochs: 0, seconds: 0.0, tokens: 0 };
    let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    for line in lines {
        match line["type"].as_str() {
            Some("step") => {
                log.steps += 1;
                log.seconds += line["seconds"].as_f64().unwrap_or_default();
                log.tokens += line["tokens"].as_u64().unwrap_or_default();
            }
            Some("epoch") => log.epochs += 1,
            _ => {}
        }
    }
    (log.steps > 0).then_some(log)
}

fn compute(sources: &Sources<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(record) = sources.command("train") {
        lines.push(format!("training ran on {}", hardware(&record["hardware"])));
        lines.extend(log(sources).map(|log| {
            format!(
                "its {} steps took {:.3} hours (the sum of `seconds` in `{METRICS}`) over {} tokens",
                log.steps,
                log.seconds / 3600.0,
                log.tokens
            )
        }));
    }
    if sources.run["hardware"].is_object() {
        lines.push(format!("this evaluation ran on {}", hardware(&sources.run["hardware"])));
        lines.push("energy: not recorded; no file of a run holds it".into());
    }
    lines
}

fn hardware(value: &Value) -> String {
    let named = [("device", "device"), ("dtype", "numbers"), ("cpu", "CPU"), ("gpus", "GPUs"), ("ranks", "hosts")];
    let mut told: Vec<String> =
        named.iter().filter_map(|(key, name)| Some(format!("{name} {}", display_value(&value[*key])?))).collect();
    told.extend(display_value(&value["threads"]).map(|threads| {
        format!(
            "{threads} threads of {} cores",
            display_value(&value["cores"]).unwrap_or_else(|| "an unknown number of".into())
        )
    }));
    told.extend(
        value["memory_bytes"].as_u64().map(|bytes| format!("{:.1} GiB of memory", bytes as f64 / f64::from(1 << 30))),
    );
    told.join(", ")
}

/// The program, and the command lines that led here.
fn program(sources: &Sources<'_>) -> Vec<String> {
    let run = &sources.run;
    let Some(version) = display_value(&run["versions"]["clsgen"]) else { return Vec::new() };
    let hash = display_value(&run["versions"]["executable_blake3"])
        .map_or_else(String::new, |hash| format!(", BLAKE3 {}", code(&hash)));
    let mut lines = vec![format!("clsgen {version}{hash}")];
    let mut newest: BTreeMap<&str, &Value> = BTreeMap::new();
    // The newest of each comes first.
    for record in
        std::iter::once(run).chain(["train", "construct"].into_iter().filter_map(|name| sources.command(name)))
    {
        if let Some(name) = record["command"].as_str() {
            newest.entry(name).or_insert(record);
        }
    }
    for name in ["construct", "train", "eval"] {
        let Some(record) = newest.get(name) else { continue };
        let words: Vec<String> =
            record["command_line"].as_array().into_iter().flatten().filter_map(display_value).collect();
        let seed = display_value(&record["seeds"]["seed"]).unwrap_or_default();
        let started = display_value(&record["started"]).unwrap_or_default();
        lines.push(format!("{name}: {} (began {started}, seed {seed})", code(&words.join(" "))));
    }
    lines
}

/// What the classes are.
fn task(sources: &Sources<'_>) -> String {
    let labels: Vec<String> = sources.labels().iter().map(|label| code(label)).collect();
    let config = &sources.context.config;
    let positive = match (&config.eval.positive, labels.len()) {
        (_, 2) => format!("; {} is the positive one", labels[1]),
        (Some(positive), _) => format!("; {} is the one that thresholds are of", code(positive)),
        (None, _) => String::new(),
    };
    let horizon = if config.data.format == crate::config::DataFormat::Lcd {
        format!("; horizon {} days", config.data.horizon)
    } else {
        String::new()
    };
    format!("The outcome is one of the classes {}{positive}{horizon}.", labels.join(", "))
}
