//! `clsgen construct`: Algorithm 1 on each split named (paper §4.2, SPEC A1–A7, A52).

mod finished;
mod trials;

use std::{path::Path, sync::Arc};

use serde_json::{Map, Value, json};

use self::{finished::Finished, trials::trials};
use super::{Context, args::ConstructArgs, dry_run::Plan, output, run_record};
use crate::{
    config::{OnFail, Stage},
    data::{self, Needs, Record},
    device,
    error::{Context as _, Error, Result},
    fingerprint::Fingerprint,
    generate::{
        Budget, Engine, Sampling,
        construct::{Method, Progress, Rules, Statistics, output::write_split},
        memory::Longest,
        scoring,
    },
    model::{Model, ModelSource, source},
    prompt::{PromptTemplate, Prompter, TextTokenizer},
    storage,
};

/// Appended to the question of a record whose K trials failed, under `on_fail = "rationalize"` (Zelikman et al. 2022,
/// STaR).
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

/// Constructs every split named that is not finished yet: `stats.json`, with all that are.
pub(super) fn execute(context: &Context) -> Result<Value> {
    let job = Job::prepare(context)?;
    let lock = run_record::lock(&context.run_dir)?;
    job.protect_inputs()?;
    storage::create_dir_all(&job.dir)?;
    let mut finished = Finished::read(&job.dir)?;
    let todo = job.missing(&finished)?;
    if !todo.is_empty() {
        job.refuse_foreign_files(&todo, None)?;
        let inputs: Vec<&Path> = job.splits.iter().map(|split| split.path.as_path()).collect();
        run_record::write(
            context,
            "construct",
            &inputs,
            &[("construct.teacher", &job.teacher.path, &job.teacher_hash)],
            lock,
        )?;
        let mut logs = Vec::new();
        for split in &todo {
            logs.push(Progress::open(&job.log_path(split), &split.settings).context("construct")?);
        }
        if todo.iter().zip(&logs).any(|(split, log)| job.unfinished(split, log)) {
            job.refuse_foreign_files(&todo, Some(&logs))?;
            device::check_disk(&job.dir, todo.iter().map(|split| split.least_bytes(context)).sum())?;
            job.ask_teacher(context, &todo, &mut logs)?;
        }
        job.finish(&todo, &logs, &mut finished)?;
    }
    // Only now that stats.json names the split; a kill may have left an earlier one's.
    job.splits.iter().try_for_each(|split| storage::remove_file(&job.log_path(split)))?;
    Ok(finished.into_stats())
}

/// Table 7 on stdout.
fn print(context: &Context, stats: &Value) -> Result<()> {
    if context.json {
        return output::line(&stats.to_string());
    }
    for name in &context.config.construct.splits {
        let statistics = statistics(stats, name)?;
        output::line(
            &statistics.table(&format!("{} ({name})", context.config.task.name), &context.config.task.labels),
        )?;
        if let Some(truncation) = statistics.truncation() {
            output::line(&format!("{truncation}.\n"))?;
        }
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
    settings: Fingerprint,
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
    tells: Vec<Prompter>,
    base: Prompter,
    on_fail: OnFail,
}

impl Job {
    fn prepare(context: &Context) -> Result<Self> {
        let config = &context.config;
        let options = &config.construct;
        let template = PromptTemplate::load(&config.resolve(&config.task.prompt))?;
        let search = [config.dir.as_path(), Path::new(".")];
        let find = |key: &str, name: &str| {
            if name.is_empty() {
                Err(Error::usage(format!("{key} is not set"))
                    .hint(format!("name a model folder or hub id: --set {key}=DIR")))
            } else {
                source::resolve(name, &search, context.allow_network).context(key)
            }
        };
        let teacher = find("construct.teacher", &options.teacher)?;
        let base = find("model.base", &config.model.base)?;
        let shape = teacher.config()?;
        shape
            .check_window(options.max_input_tokens, options.max_output_tokens, config.model.allow_long)
            .context("construct")?;
        let teacher_tokenizer = Arc::new(TextTokenizer::load(teacher.tokenizer_path())?);
        teacher_tokenizer.check_vocab(shape.vocab_size)?;
        let dir = context.run_dir.join("construct");
        // Before the weights are read, for their hash or to ask; not where all is done.
        let finished = Finished::read(&dir)?;
        if !options.splits.iter().all(|split| finished.names(split)) {
            let longest = Longest {
                input: options.max_input_tokens,
                output: options.max_output_tokens,
                key: "construct.max_input_tokens",
            };
            scoring::check_memory_of(context, &teacher, longest).context("construct.teacher")?;
        }
        let base_tokenizer = Arc::new(TextTokenizer::load(base.tokenizer_path())?);
        // One date for the run, whichever of the two templates asks for it.
        let date = context.prompt_date();
        let template = template.dated(&teacher_tokenizer, &date).dated(&base_tokenizer, &date);
        let asking = |template: PromptTemplate| {
            let input = options.max_input_tokens;
            let output = options.max_output_tokens;
            Prompter::new(
                template,
                teacher_tokenizer.clone(),
                config.task.labels.clone(),
                input,
                output,
                config.model.truncate,
            )
        };
        let plain = PromptTemplate { prefix: String::new(), ..template.clone() };
        let told = |label: &String| {
            let question = format!("{}{}", plain.question, RATIONALIZE.replace("{label}", label));
            asking(PromptTemplate { question, ..plain.clone() })
        };
        let tells = config.task.labels.iter().map(told).collect::<Result<_>>()?;
        let asks = asking(plain)?;
        let input = config.model.max_input_tokens;
        let output = config.model.max_output_tokens;
        let labels = config.task.labels.clone();
        let base =
            Prompter::new(template.clone(), base_tokenizer.clone(), labels, input, output, config.model.truncate)?;
        let teacher_hash = teacher.hash()?;
        let method = [
            ("task.prompt", json!(template)),
            ("construct.teacher", json!(teacher_hash)),
            ("teacher's tokenizer", json!(teacher_tokenizer.hash())),
            // Only its tokenizer counts: whether an explanation fits its window.
            ("model.base", json!(base_tokenizer.hash())),
            ("model.dtype", json!(context.dtype()?.as_str())),
            ("train.seed", json!(context.seed)),
        ];
        let mut job =
            Self { dir, splits: Vec::new(), teacher, teacher_hash, asks, tells, base, on_fail: options.on_fail };
        for name in &options.splits {
            job.splits.push(Split::read(context, name, &template.fields(), &method)?);
        }
        Ok(job)
    }

    /// The checks that asking the teacher would begin with, and what would be asked.
    fn dry_run(&self, context: &Context) -> Result<()> {
        let todo = self.missing(&Finished::read(&self.dir)?)?;
        self.refuse_foreign_files(&todo, None)?;
        let mut plan = Plan::new(context, "construct")
            .with("construct.teacher", json!(self.teacher.path))
            .with("trials of a record, at most", context.config.construct.trials)
            .with("done already", todo.is_empty());
        for split in &self.splits {
            let done = if todo.iter().any(|missing| missing.name == split.name) { "" } else { ", done already" };
            plan = plan.with(&format!("records of {}", split.name), format!("{}{done}", split.records.len()));
        }
        plan.print(context)
    }

    /// The splits that are not finished; one that other settings finished is refused.
    fn missing(&self, finished: &Finished) -> Result<Vec<&Split>> {
        let mut missing = Vec::new();
        for split in &self.splits {
            if !finished.holds(&split.name, &split.settings)? {
                missing.push(split);
            }
        }
        Ok(missing)
    }

    fn log_path(&self, split: &Split) -> std::path::PathBuf {
        self.dir.join(format!("{}.progress.jsonl", split.name))
    }

    /// Nothing that is read is written, whatever `construct.splits` and `--run` say.
    fn protect_inputs(&self) -> Result<()> {
        self.splits.iter().for_each(|split| storage::protect(&split.path));
        self.splits.iter().try_for_each(|split| storage::check_output(&self.dir.join(format!("{}.jsonl", split.name))))
    }

    /// A split's file is written once its log is whole: one that is there before (without `logs`: before there is any
    /// log) was not made by us, and is not replaced.
    fn refuse_foreign_files(&self, todo: &[&Split], logs: Option<&[Progress]>) -> Result<()> {
        let dropped = self.dir.join("dropped.jsonl");
        let begun = self.dir.join("stats.json").is_file() || todo.iter().any(|split| self.log_path(split).is_file());
        if dropped.symlink_metadata().is_ok() && !begun {
            return Err(storage::foreign(&dropped, "and construct did not make it"));
        }
        for (i, split) in todo.iter().enumerate() {
            let path = self.dir.join(format!("{}.jsonl", split.name));
            let ours = logs.map_or_else(|| self.log_path(split).is_file(), |logs| !self.unfinished(split, &logs[i]));
            if path.symlink_metadata().is_ok() && !ours {
                return Err(storage::foreign(&path, "and construct did not make it"));
            }
        }
        Ok(())
    }

    fn unfinished(&self, split: &Split, log: &Progress) -> bool {
        let rationalize = self.on_fail == OnFail::Rationalize;
        split
            .records
            .iter()
            .any(|record| !log.tried(record.number) || (rationalize && log.wants_rationalization(record.number)))
    }

    /// Loads the teacher and runs every trial that is missing.
    fn ask_teacher(&self, context: &Context, todo: &[&Split], logs: &mut [Progress]) -> Result<()> {
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
            opened_thought: self.asks.opens_thought(),
        };
        for (split, log) in todo.iter().zip(logs) {
            let todo: Vec<&Record> = split.records.iter().filter(|record| !log.tried(record.number)).collect();
            let named = |error: Error| error.context(split.path.display());
            let asks = |record: &Record| self.asks.prompt(record).map_err(named);
            trials(
                context,
                &format!("construct {}", split.name),
                &engine,
                &todo,
                &asks,
                method,
                |record, explained| log.add(record, false, explained),
            )?;
            if self.on_fail == OnFail::Rationalize {
                let todo: Vec<&Record> =
                    split.records.iter().filter(|record| log.wants_rationalization(record.number)).collect();
                let method = Method { trials: 1, trials_before: options.trials, ..method };
                let unlabeled =
                    |record: &Record| Error::data(format!("record {}, field label: missing", record.place()));
                let tells = |record: &Record| {
                    let asks = record.label.and_then(|label| self.tells.get(label.index()));
                    asks.ok_or_else(|| unlabeled(record))?.prompt(record).map_err(named)
                };
                trials(
                    context,
                    &format!("rationalize {}", split.name),
                    &engine,
                    &todo,
                    &tells,
                    method,
                    |record, explained| log.add(record, true, explained),
                )?;
            }
            log.sync()?;
        }
        Ok(())
    }

    /// Writes the splits, the dropped list and, last, the statistics that mark them as done.
    fn finish(&self, todo: &[&Split], logs: &[Progress], finished: &mut Finished) -> Result<()> {
        let mut splits = Map::new();
        let mut dropped = Vec::new();
        for (split, log) in todo.iter().zip(logs) {
            let path = self.dir.join(format!("{}.jsonl", split.name));
            let written = write_split(
                &path,
                &split.name,
                &split.records,
                |record| log.explained(record),
                self.on_fail,
                self.asks.labels(),
            )?;
            if let Some(truncation) = written.statistics.truncation() {
                tracing::warn!("{}: {truncation}", split.name);
            }
            dropped.extend(written.dropped);
            splits.insert(
                split.name.clone(),
                json!({
                    "source": { "path": split.path.to_string_lossy(), "blake3": split.settings.get("source") },
                    "output": { "path": path.file_name().map(|name| name.to_string_lossy()),
                    "blake3": storage::hash_file(&path)? },
                    "settings": split.settings, "statistics": written.statistics,
                }),
            );
        }
        finished.add(splits, &dropped)
    }
}

impl Split {
    /// Bytes that its file takes at the least: records as they are, and a byte a token of their explanations.
    fn least_bytes(&self, context: &Context) -> u64 {
        let text = |record: &Record| record.fields.values().map(String::len).sum::<usize>();
        self.records.iter().map(|record| (text(record) + context.config.construct.max_output_tokens) as u64).sum()
    }

    fn read(context: &Context, name: &str, fields: &[String], method: &[(&str, Value)]) -> Result<Self> {
        let data = &context.config.data;
        let path = match name {
            "train" => &data.train,
            "dev" => &data.dev,
            "test" => &data.test,
            _ => {
                return Err(Error::usage(format!("construct.splits: {name:?} is no split"))
                    .hint("splits are train, dev and test"));
            }
        };
        let path = path.as_ref().ok_or_else(|| {
            Error::usage(format!("data.{name} is not set, but construct.splits names {name}"))
                .hint("set it, or change construct.splits")
        })?;
        let path = context.config.resolve(path);
        let needs = Needs::split(data, name, fields);
        let records = data::load(data, &path, &needs)?;
        let mut contents = method.to_vec();
        contents.push(("source", data::source_hash(&path)?.into()));
        let settings = Fingerprint::new(Stage::Construct, &context.config, &contents)?;
        Ok(Self { name: name.to_owned(), path, records, settings })
    }
}
