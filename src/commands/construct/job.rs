//! All that is known before the teacher's weights are read, and what is done with them.

use std::{path::Path, sync::Arc};

use serde_json::{Map, json};

use super::{
    finished::Finished,
    split::Split,
    split_files::SplitFiles,
    teacher::{self, ConfiguredTeacher, Purpose, TeacherSource},
    trials::trials,
};
use crate::{
    commands::{Context, dry_run::DryRunReport, run_json},
    config::{Config, OnFail},
    data::Record,
    device,
    error::{Error, Result, ResultExt},
    fingerprint::Fingerprint,
    generate::{
        Budget, Engine, Sampling,
        construct::{self, Method, Progress, Rules, output::write_split},
        loading,
    },
    prompt::{PromptTemplate, Prompter, TextTokenizer},
    shard::Shard,
    storage::{self, RunLock},
};

/// The field that a line has besides those of its record and the explanation, which no task's prompt shows.
const MADE: &str = "trial";
/// Appended to the question of a record whose K trials failed, under `on_fail = "rationalize"` (Zelikman et al. 2022,
/// STaR).
const RATIONALIZE: &str =
    "\n\nThe true classification is known: {label}. Explain which findings in the document point to it, then state it.";

/// All that is known before the teacher's weights are read.
pub(super) struct ConstructJob {
    pub dir: std::path::PathBuf,
    pub splits: Vec<Split>,
    pub teacher: ConfiguredTeacher,
    /// Whether its prompts hold the date of the run.
    pub dated: bool,
    /// The part of each split that is this process's.
    shard: Option<Shard>,
    /// The teacher's prompts: the task's, without its prefix.
    asks: Prompter,
    /// The same with the gold label told, by class.
    tells: Vec<Prompter>,
    base: Prompter,
    on_fail: OnFail,
}

impl ConstructJob {
    pub fn prepare(context: &Context, purpose: Purpose) -> Result<Self> {
        let config = &context.config;
        let options = &config.construct;
        Config::require(
            "construct",
            &[
                ("model.base", !config.model.base.is_empty()),
                ("task.prompt", !config.task.prompt.as_os_str().is_empty()),
            ],
        )?;
        let template = PromptTemplate::load(&config.resolve(&config.task.prompt))?;
        if template.fields().iter().any(|field| field == MADE) {
            return Err(Error::usage(format!("task.prompt has the field `{MADE}`, which construct writes itself"))
                .hint("give the field another name in the prompt, and its column by data.fields"));
        }
        template.check_constructed()?;
        let (mut teacher, base) = teacher::find(context, purpose)?;
        let teacher_tokenizer = teacher.tokenizer.clone();
        let dir = context.run_dir.join("construct");
        if dir.is_file() {
            return Err(storage::foreign(&dir, "and it is a file, not a directory"));
        }
        // Before the weights are read, for their hash or to ask; not where all is done.
        if purpose == Purpose::Ask && !all_done(&dir, &options.splits, context.shard)? {
            teacher.prepare(context)?;
        }
        let base_tokenizer = Arc::new(TextTokenizer::load(base.tokenizer_path())?);
        // One date for the run, whichever of the two templates asks for it.
        let date = context.prompt_date();
        let undated = template.date.is_none();
        let template = template.dated(&teacher_tokenizer, &date).dated(&base_tokenizer, &date);
        let dated = undated && template.date.is_some();
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
        let of_teacher = teacher.contents(context, &held_settings(&dir, &options.splits, context.shard)?)?;
        let method = [
            ("task.prompt", json!(template)),
            // Only its tokenizer counts: whether an explanation fits its window.
            ("model.base", json!(base_tokenizer.hash())),
            ("train.seed", json!(context.seed)),
        ];
        let method: Vec<_> = method.into_iter().chain(of_teacher).collect();
        let splits = Vec::new();
        let shard = context.shard;
        let on_fail = options.on_fail;
        let mut job = Self { dir, splits, teacher, dated, shard, asks, tells, base, on_fail };
        for name in &options.splits {
            job.splits.push(Split::read(context, name, &template.fields(), &method)?);
        }
        Ok(job)
    }

    /// The checks that asking the teacher would begin with, and what would be asked.
    pub fn dry_run(&self, context: &Context) -> Result<()> {
        let mut todo = Vec::new();
        for split in self.missing(&self.finished()?)? {
            let of_part = self.shard.map(|_| self.files(split).finished()).transpose()?;
            let done = of_part.map(|part| part.holds(&split.name, &self.settings(split))).transpose()?;
            todo.extend((!done.unwrap_or(false)).then_some(split));
        }
        self.refuse_foreign_files(&todo, None)?;
        let mut plan = DryRunReport::new(context, "construct")
            .with("construct.teacher", json!(self.teacher.display_name()))
            .with("trials of a record, at most", context.config.construct.trials)
            .with("done already", todo.is_empty());
        for split in &self.splits {
            let done = if todo.iter().any(|missing| missing.name == split.name) { "" } else { ", done already" };
            let part = self.shard.map(|shard| format!(" of {}, part {shard}", split.total)).unwrap_or_default();
            plan = plan.with(&format!("records of {}", split.name), format!("{}{part}{done}", split.records.len()));
        }
        plan.print(context)
    }

    /// The splits that `stats.json` names: those that are finished as a whole. Parts have files of their own.
    pub fn finished(&self) -> Result<Finished> {
        SplitFiles::new(&self.dir, "", None).finished()
    }

    /// The files of a split, or of this process's part of it.
    pub fn files(&self, split: &Split) -> SplitFiles {
        SplitFiles::new(&self.dir, &split.name, self.shard)
    }

    /// Everything that the outcome here depends on: of a part, which part too.
    pub fn settings(&self, split: &Split) -> Fingerprint {
        split.settings_of(self.shard)
    }

    /// The splits that are not finished; one that other settings finished is refused.
    pub fn missing(&self, finished: &Finished) -> Result<Vec<&Split>> {
        let mut missing = Vec::new();
        for split in &self.splits {
            if !finished.holds(&split.name, &split.settings)? {
                missing.push(split);
            } else {
                finished.check_output(&split.name, &SplitFiles::new(&self.dir, &split.name, None).output())?;
            }
        }
        Ok(missing)
    }

    /// Nothing that is read is written, whatever `construct.splits` and `--run` say.
    pub fn protect_inputs(&self) -> Result<()> {
        self.splits.iter().for_each(|split| storage::protect(&split.path));
        self.splits.iter().try_for_each(|split| storage::check_output(&self.files(split).output()))
    }

    /// Runs every trial of these splits that is missing: their logs, whole. The command's record keeps the run's
    /// `lock`.
    pub fn explain(&self, context: &Context, todo: &[&Split], lock: RunLock) -> Result<Vec<Progress>> {
        self.refuse_foreign_files(todo, None)?;
        let inputs: Vec<&Path> = self.splits.iter().map(|split| split.path.as_path()).collect();
        run_json::write(context, "construct", &inputs, &[self.teacher.used()], lock)?;
        let mut logs = Vec::new();
        for split in todo {
            logs.push(Progress::open(&self.files(split).log(), &self.settings(split)).context("construct")?);
        }
        if todo.iter().zip(&logs).any(|(split, log)| self.unfinished(split, log)) {
            self.refuse_foreign_files(todo, Some(&logs))?;
            device::check_disk(&self.dir, todo.iter().map(|split| split.least_bytes(context)).sum())?;
            self.ask_teacher(context, todo, &mut logs)?;
        }
        Ok(logs)
    }

    /// A split's file is written once its log is whole. One that lies where one of `todo` goes without a whole log
    /// (before `logs` are opened: without any) was not made by us, and is not replaced.
    fn refuse_foreign_files(&self, todo: &[&Split], logs: Option<&[Progress]>) -> Result<()> {
        for split in todo {
            let files = self.files(split);
            let dropped = files.dropped();
            let with_it = todo.iter().map(|split| self.files(split)).filter(|other| other.dropped() == dropped);
            let begun = files.stats().is_file() || with_it.map(|other| other.log()).any(|log| log.is_file());
            if dropped.symlink_metadata().is_ok() && !begun {
                return Err(storage::foreign(&dropped, "and construct did not make it"));
            }
        }
        for (i, split) in todo.iter().enumerate() {
            let path = self.files(split).output();
            let log = self.files(split).log();
            let ours = logs.map_or_else(|| log.is_file(), |logs| !self.unfinished(split, &logs[i]));
            if path.symlink_metadata().is_ok() && !ours {
                return Err(storage::foreign(&path, "and construct did not make it"));
            }
        }
        Ok(())
    }

    fn unfinished(&self, split: &Split, log: &Progress) -> bool {
        self.open_records(split, log) > 0
    }

    /// How many records are not tried to the end.
    pub fn open_records(&self, split: &Split, log: &Progress) -> usize {
        let rationalize = self.on_fail == OnFail::Rationalize;
        let open =
            |record: &&Record| !log.tried(record.number) || (rationalize && log.wants_rationalization(record.number));
        split.records.iter().filter(open).count()
    }

    /// Loads the teacher, if it is here, and runs every trial that is missing.
    fn ask_teacher(&self, context: &Context, todo: &[&Split], logs: &mut [Progress]) -> Result<()> {
        let options = &context.config.construct;
        let source = match &self.teacher.held {
            TeacherSource::Here(source) => source,
            TeacherSource::There(_, Some(remote)) => {
                self.run_trials(context, remote, todo, logs)?;
                return remote.check_none_left_open();
            }
            TeacherSource::Offline(batch) => return self.run_trials(context, &**batch, todo, logs),
            TeacherSource::There(model, None) => return Err(Error::run(format!("{} was not tried", model.url()))),
        };
        let model = loading::load_writer(context, "construct.teacher", source, teacher::longest(context))?;
        let budget = Budget::beside(&model.llama, options.max_input_tokens, context.config.generate.batch_tokens);
        self.run_trials(context, &Engine::new(&model, self.asks.tokenizer(), budget), todo, logs)
    }

    /// Runs every trial that is missing.
    fn run_trials(
        &self,
        context: &Context,
        teacher: &dyn construct::Teacher,
        todo: &[&Split],
        logs: &mut [Progress],
    ) -> Result<()> {
        let options = &context.config.construct;
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
            self.teacher.enter(split, 0);
            let asks = |record: &Record| self.teacher.prompt(&self.asks, record).map_err(named);
            trials(
                context,
                &format!("construct {}", split.name),
                teacher,
                &todo,
                &asks,
                method,
                |record, explained| log.add(record, false, explained),
            )?;
            if self.on_fail == OnFail::Rationalize {
                let todo: Vec<&Record> =
                    split.records.iter().filter(|record| log.wants_rationalization(record.number)).collect();
                self.teacher.enter(split, options.trials);
                let method = Method { trials: 1, trials_before: options.trials, ..method };
                let unlabeled =
                    |record: &Record| Error::data(format!("record {}, field label: missing", record.place()));
                let tells = |record: &Record| {
                    let asks = record.label.and_then(|label| self.tells.get(label.index()));
                    self.teacher.prompt(asks.ok_or_else(|| unlabeled(record))?, record).map_err(named)
                };
                trials(
                    context,
                    &format!("rationalize {}", split.name),
                    teacher,
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
    pub fn finish(&self, todo: &[&Split], logs: &[Progress], finished: &mut Finished) -> Result<()> {
        let mut splits = Map::new();
        let mut dropped = Vec::new();
        for (split, log) in todo.iter().zip(logs) {
            let path = self.files(split).output();
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
            splits.insert(split.name.clone(), split.entry(&self.settings(split), &path, &written.statistics)?);
        }
        finished.add(splits, &dropped)
    }
}

/// The settings of those splits, or of this process's parts of them, that earlier commands finished.
fn held_settings(dir: &Path, splits: &[String], shard: Option<Shard>) -> Result<Vec<Fingerprint>> {
    let whole = SplitFiles::new(dir, "", None).finished()?;
    let mut held: Vec<Fingerprint> = splits.iter().filter_map(|split| whole.settings(split)).collect();
    for split in splits.iter().filter(|_| shard.is_some()) {
        held.extend(SplitFiles::new(dir, split, shard).finished()?.settings(split));
    }
    Ok(held)
}

/// Whether an earlier command finished all of these splits, or the part of each.
fn all_done(dir: &Path, splits: &[String], shard: Option<Shard>) -> Result<bool> {
    let whole = SplitFiles::new(dir, "", None).finished()?;
    for split in splits {
        if !whole.names(split) && (shard.is_none() || !SplitFiles::new(dir, split, shard).finished()?.names(split)) {
            return Ok(false);
        }
    }
    Ok(true)
}
