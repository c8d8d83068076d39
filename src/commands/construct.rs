//! `clsgen construct`: Algorithm 1 on each split named (paper §4.2, SPEC A1–A7, A52).

use std::{path::Path, sync::Arc};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::{Context, args::ConstructArgs, dry_run::Plan, output, run_record, scoring};
use crate::{
    config::OnFail,
    data::{self, Needs, Record},
    device,
    error::{Context as _, Error, Result},
    generate::{
        Budget, Engine, Sampling,
        construct::{Explained, Method, Progress, Rules, Statistics, explain, output::write_split, progress::refuse_other},
        memory::Longest,
    },
    model::{Model, ModelSource, source},
    prompt::{PromptTemplate, Prompter, TextTokenizer},
    storage::{self, RunLock},
};

/// Appended to the question of a record whose K trials failed, under `on_fail = "rationalize"` (Zelikman et al. 2022, STaR).
const RATIONALIZE: &str =
    "\n\nThe true classification is known: {label}. Explain which findings in the document point to it, then state it.";

/// Runs the command.
pub fn run(context: &Context, _args: &ConstructArgs) -> Result<()> {
    if context.dry_run {
        return Job::prepare(context)?.dry_run(context);
    }
    let stats = execute(context)?;
    print(context, &stats)
}

/// Constructs every split named, or finds that it is done: `stats.json`.
pub(super) fn execute(context: &Context) -> Result<Value> {
    let job = Job::prepare(context)?;
    let _lock = RunLock::acquire(&context.run_dir)?;
    job.protect_inputs(context)?;
    storage::create_dir_all(&job.dir)?;
    let stats_path = job.dir.join("stats.json");
    if let Some(done) = read_json(&stats_path) {
        job.refuse_other_runs(&stats_path, &done)?;
        return Ok(done);
    }
    job.refuse_foreign_files(None)?;
    let inputs: Vec<&Path> = job.splits.iter().map(|split| split.path.as_path()).collect();
    run_record::write(context, "construct", &inputs, &[("construct.teacher", &job.teacher.path, &job.teacher_hash)])?;
    let mut logs = Vec::new();
    for split in &job.splits {
        logs.push(Progress::open(&job.log_path(split), &split.settings).context("construct")?);
    }
    if job.splits.iter().zip(&logs).any(|(split, log)| job.unfinished(split, log)) {
        job.refuse_foreign_files(Some(&logs))?;
        device::check_disk(&job.dir, job.splits.iter().map(|split| split.least_bytes(context)).sum())?;
        job.ask_teacher(context, &mut logs)?;
    }
    job.finish(&logs, &stats_path)
}

/// Table 7 on stdout.
fn print(context: &Context, stats: &Value) -> Result<()> {
    if context.json {
        return output::line(&stats.to_string());
    }
    for name in &context.config.construct.splits {
        let statistics = statistics(stats, name)?;
        output::line(&statistics.table(&format!("{} ({name})", context.config.task.name)))?;
    }
    output::line(&context.run_dir.join("construct").display().to_string())
}

/// A split's rows of Table 7, from `stats.json`.
pub(super) fn statistics(stats: &Value, split: &str) -> Result<Statistics> {
    let held = stats["splits"][split]["statistics"].clone();
    serde_json::from_value(held).map_err(|e| Error::run(format!("construct/stats.json, split {split}: {e}")))
}

/// A split to construct.
struct Split {
    name: String,
    path: std::path::PathBuf,
    records: Vec<Record>,
    /// Everything its outcome depends on.
    settings: Value,
}

/// All that is known before the teacher's weights are read.
struct Job {
    dir: std::path::PathBuf,
    splits: Vec<Split>,
    teacher: ModelSource,
    teacher_hash: String,
    /// The teacher's prompts: the task's, without its prefix.
    asks: Prompter,
    /// The same with the gold label told, by class.
    tells: [Prompter; 2],
    base: Prompter,
    on_fail: OnFail,
}

impl Job {
    fn prepare(context: &Context) -> Result<Self> {
        let config = &context.config;
        let options = &config.construct;
        let template = PromptTemplate::load(&config.resolve(&config.task.prompt))?;
        let search = [config.dir.as_path(), Path::new(".")];
        let find = |key: &str, name: &str| match name.is_empty() {
            true => Err(Error::usage(format!("{key} is not set")).hint(format!("name a model folder or hub id: --set {key}=DIR"))),
            false => source::resolve(name, &search, context.allow_network).context(key),
        };
        let teacher = find("construct.teacher", &options.teacher)?;
        let base = find("model.base", &config.model.base)?;
        let shape = teacher.config()?;
        shape.check_window(options.max_input_tokens, options.max_output_tokens, config.model.allow_long).context("construct")?;
        let teacher_tokenizer = Arc::new(TextTokenizer::load(teacher.tokenizer_path())?);
        teacher_tokenizer.check_vocab(shape.vocab_size)?;
        let dir = context.run_dir.join("construct");
        // Before the weights are read, for their hash or to ask; not where all is done.
        if !dir.join("stats.json").is_file() {
            let longest = Longest { input: options.max_input_tokens, output: options.max_output_tokens, key: "construct.max_input_tokens" };
            scoring::check_memory_of(context, &teacher, longest).context("construct.teacher")?;
        }
        let base_tokenizer = Arc::new(TextTokenizer::load(base.tokenizer_path())?);
        let asking = |template: PromptTemplate| {
            let (input, output) = (options.max_input_tokens, options.max_output_tokens);
            Prompter::new(template, teacher_tokenizer.clone(), config.task.labels.clone(), input, output, config.model.truncate)
        };
        let plain = PromptTemplate { prefix: String::new(), ..template.clone() };
        let told = |label: &String| {
            let question = format!("{}{}", plain.question, RATIONALIZE.replace("{label}", label));
            asking(PromptTemplate { question, ..plain.clone() })
        };
        let tells = [told(&config.task.labels[0])?, told(&config.task.labels[1])?];
        let asks = asking(plain)?;
        let (input, output) = (config.model.max_input_tokens, config.model.max_output_tokens);
        let labels = config.task.labels.clone();
        let base = Prompter::new(template.clone(), base_tokenizer, labels, input, output, config.model.truncate)?;
        let teacher_hash = teacher.hash()?;
        let method = json!({
            "teacher": teacher_hash, "options": options, "labels": config.task.labels, "prompt": template, "seed": context.seed,
            "max_output_tokens": output, "truncate": config.model.truncate, "dtype": config.model.dtype,
        });
        let mut job = Self { dir, splits: Vec::new(), teacher, teacher_hash, asks, tells, base, on_fail: options.on_fail };
        for name in &options.splits {
            job.splits.push(Split::read(context, name, &template.fields(), &method)?);
        }
        Ok(job)
    }

    /// The checks that asking the teacher would begin with, and what would be asked.
    fn dry_run(&self, context: &Context) -> Result<()> {
        let done = read_json(&self.dir.join("stats.json"));
        if let Some(done) = &done {
            self.refuse_other_runs(&self.dir.join("stats.json"), done)?;
        }
        let mut plan = Plan::new(context, "construct")
            .with("construct.teacher", json!(self.teacher.path))
            .with("trials of a record, at most", context.config.construct.trials)
            .with("done already", done.is_some());
        for split in &self.splits {
            plan = plan.with(&format!("records of {}", split.name), split.records.len());
        }
        plan.print(context)
    }

    fn log_path(&self, split: &Split) -> std::path::PathBuf {
        self.dir.join(format!("{}.progress.jsonl", split.name))
    }

    /// Nothing that is read is written, whatever `construct.splits` and `--run` say.
    fn protect_inputs(&self, context: &Context) -> Result<()> {
        let inputs = self.splits.iter().map(|split| split.path.as_path()).chain(context.config_path.as_deref());
        inputs.for_each(storage::protect);
        self.splits.iter().try_for_each(|split| storage::check_output(&self.dir.join(format!("{}.jsonl", split.name))))
    }

    /// A split's file is written once its log is whole: one that is there before (without `logs`: before there is any log) was not
    /// made by us, and is not replaced.
    fn refuse_foreign_files(&self, logs: Option<&[Progress]>) -> Result<()> {
        for (i, split) in self.splits.iter().enumerate() {
            let path = self.dir.join(format!("{}.jsonl", split.name));
            let ours = logs.map_or_else(|| self.log_path(split).is_file(), |logs| !self.unfinished(split, &logs[i]));
            if path.symlink_metadata().is_ok() && !ours {
                return Err(Error::usage(format!("{} is there already, and construct did not make it", path.display()))
                    .hint("move it away, or choose another directory with --run"));
            }
        }
        Ok(())
    }

    fn unfinished(&self, split: &Split, log: &Progress) -> bool {
        let rationalize = self.on_fail == OnFail::Rationalize;
        split.records.iter().any(|record| !log.tried(record.number) || (rationalize && log.wants_rationalization(record.number)))
    }

    /// Loads the teacher and runs every trial that is missing.
    fn ask_teacher(&self, context: &Context, logs: &mut [Progress]) -> Result<()> {
        let options = &context.config.construct;
        let device = context.device()?;
        let model = Model::base(&self.teacher, device::dtype(context.config.model.dtype, &device), &device)?;
        let budget = Budget::beside(&model.llama, options.max_input_tokens, context.config.generate.batch_tokens);
        let engine = Engine::new(&model, self.asks.tokenizer(), budget);
        let sampling = Sampling { temperature: options.temperature, top_p: options.top_p, seed: context.seed };
        let rules = Rules { min_words: options.min_words, max_copied: options.max_copied };
        let method = Method {
            trials: options.trials,
            trials_before: 0,
            max_new_tokens: options.max_output_tokens,
            sampling,
            rules,
            base: &self.base,
            opened_thought: self.asks.opens_thought()?,
        };
        for (split, log) in self.splits.iter().zip(logs) {
            let todo: Vec<&Record> = split.records.iter().filter(|record| !log.tried(record.number)).collect();
            let asks = |record: &Record| Ok(self.asks.prompt(record)?.ids);
            trials(context, &format!("construct {}", split.name), &engine, &todo, &asks, method, |record, explained| {
                log.add(record, false, explained)
            })?;
            if self.on_fail == OnFail::Rationalize {
                let todo: Vec<&Record> = split.records.iter().filter(|record| log.wants_rationalization(record.number)).collect();
                let method = Method { trials: 1, trials_before: options.trials, ..method };
                let tells = |record: &Record| Ok(self.tells[usize::from(record.label == Some(1))].prompt(record)?.ids);
                trials(context, &format!("rationalize {}", split.name), &engine, &todo, &tells, method, |record, explained| {
                    log.add(record, true, explained)
                })?;
            }
            log.sync()?;
        }
        Ok(())
    }

    /// Writes the splits, the dropped list and, last, the statistics that mark the whole as done.
    fn finish(&self, logs: &[Progress], stats_path: &Path) -> Result<Value> {
        let (mut splits, mut dropped) = (Map::new(), Vec::new());
        for (split, log) in self.splits.iter().zip(logs) {
            let path = self.dir.join(format!("{}.jsonl", split.name));
            let finished = write_split(&path, &split.name, &split.records, |record| log.explained(record), self.on_fail)?;
            for line in &finished.dropped {
                serde_json::to_writer(&mut dropped, line).map_err(|e| Error::run(format!("cannot write the dropped list: {e}")))?;
                dropped.push(b'\n');
            }
            splits.insert(
                split.name.clone(),
                json!({
                    "source": { "path": split.path.to_string_lossy(), "blake3": split.settings["source"] },
                    "output": { "path": path.file_name().map(|name| name.to_string_lossy()), "blake3": storage::hash_file(&path)? },
                    "settings": split.settings, "statistics": finished.statistics,
                }),
            );
        }
        storage::write_file_atomic(&self.dir.join("dropped.jsonl"), &dropped)?;
        let stats = json!({ "schema": 1, "splits": splits });
        let text = serde_json::to_string_pretty(&stats).map_err(|e| Error::run(format!("cannot write stats.json: {e}")))?;
        storage::write_file_atomic(stats_path, text.as_bytes())?;
        for split in &self.splits {
            storage::remove_file(&self.log_path(split))?;
        }
        Ok(stats)
    }

    /// A finished run is only repeated by its own settings.
    fn refuse_other_runs(&self, path: &Path, done: &Value) -> Result<()> {
        for split in &self.splits {
            refuse_other(path, &done["splits"][&split.name]["settings"], &split.settings)?;
        }
        Ok(())
    }
}

impl Split {
    /// Bytes that its file takes at the least: records as they are, and a byte a token of their explanations.
    fn least_bytes(&self, context: &Context) -> u64 {
        let text = |record: &Record| record.fields.values().map(String::len).sum::<usize>();
        self.records.iter().map(|record| (text(record) + context.config.construct.max_output_tokens) as u64).sum()
    }

    fn read(context: &Context, name: &str, fields: &[String], method: &Value) -> Result<Self> {
        let data = &context.config.data;
        let path = match name {
            "train" => &data.train,
            "dev" => &data.dev,
            "test" => &data.test,
            _ => return Err(Error::usage(format!("construct.splits: {name:?} is no split")).hint("splits are train, dev and test")),
        };
        let path = path.as_ref().ok_or_else(|| {
            Error::usage(format!("data.{name} is not set, but construct.splits names {name}")).hint("set it, or change construct.splits")
        })?;
        let path = context.config.resolve(path);
        let needs = Needs { both_classes: false, ..Needs::split(data, name, fields) };
        let records = data::load(data, &path, &needs)?;
        let mut settings = method.clone();
        settings["source"] = data::source_hash(&path)?.into();
        settings["format"] = json!(data.format);
        settings["horizon"] = json!(data.horizon);
        settings["fields"] = json!(data.fields);
        Ok(Self { name: name.to_owned(), path, records, settings })
    }
}

/// Runs the trials of `records` under a progress bar; `file` gets each record's number and outcome as it is done.
fn trials(
    context: &Context,
    title: &str,
    engine: &Engine<'_>,
    records: &[&Record],
    prompt: &dyn Fn(&Record) -> Result<Vec<u32>>,
    method: Method<'_>,
    mut file: impl FnMut(usize, Explained) -> Result<()>,
) -> Result<()> {
    let bar = if context.quiet { ProgressBar::hidden() } else { ProgressBar::new(records.len() as u64) };
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} eta {eta}") {
        bar.set_style(style);
    }
    bar.set_prefix(title.to_owned());
    let (mut kept, mut dropped) = (0usize, 0usize);
    explain(engine, records, prompt, method, &mut |index, explained| {
        if explained.kept.is_some() {
            kept += 1
        } else {
            dropped += 1
        }
        file(records[index].number, explained)?;
        bar.inc(1);
        bar.set_message(format!("kept {kept} dropped {dropped}"));
        device::check_interrupted()
    })
    .map_err(|error| saved(error, kept + dropped, records.len()))?;
    bar.finish_and_clear();
    Ok(())
}

/// Says what a signal leaves behind and how to go on.
fn saved(error: Error, done: usize, of: usize) -> Error {
    match output::is_stop(&error) {
        true => Error::new(error.kind(), format!("{error} after {done} of {of} records to do, what is done is saved"))
            .hint("the same command goes on where this one stopped"),
        false => error,
    }
}

/// A JSON file, if it is there and whole.
fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
