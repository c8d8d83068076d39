//! `eval --baselines`: the paper's other methods on the records that the model was scored on (paper §5.2).
//!
//! Answers go to `RUN/eval/<split>/baselines/<name>.jsonl` as they come and are continued by the same command.

mod answers;

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    PredictionSource,
    asked_model::{AskedModel, PROMPTS, Ready},
    cnn,
    folder::{self, Folder},
    log,
    run_directory::EvalJob,
};
use crate::{
    baselines::{
        Baseline,
        prompting::{self, Asker, BaselineAnswer, BaselineRecord},
        prompts::{self, TaskPrompt},
    },
    config::Stage,
    context::Context,
    data::Record,
    error::{Error, Result},
    fingerprint::{Fingerprint, TOKENIZER},
    generate::{
        Sampling, loading,
        scoring::{self, Known, Windows},
    },
    labels::Class,
    model::{Model, ModelSource, checkpoint::ClsgenJson},
    prompt::{PromptTemplate, Prompter, TextTokenizer},
    remote::Named,
    storage,
};

pub use answers::{BaselineRuns, kept};
use answers::{are_of, by_run, finished, keeping_runs, read, runs_of, tell_kept, tell_runs, without_texts};

/// Where the answers are kept in a split's folder.
const FOLDER: &str = "baselines";

/// The answers of a baseline; `out` is the split's folder.
pub fn file(out: &Path, baseline: Baseline) -> PathBuf {
    out.join(FOLDER).join(format!("{}.jsonl", baseline.name()))
}

/// Which baselines to run, checked before any work.
pub struct Plan<'a> {
    job: &'a EvalJob,
    baselines: Vec<Baseline>,
    runs: usize,
    /// Those whose answers count as they are.
    kept: Vec<Baseline>,
    /// Those that are asked as often as an earlier command asked them.
    keeping_runs: Vec<Baseline>,
    info: ClsgenJson,
    known: Known,
    /// The task's own prompt.
    own: PromptTemplate,
    /// Answers of other settings may be replaced.
    overwrite: bool,
    /// `eval.baseline_model`: who is asked in the base's place.
    pub asked: Option<AskedModel>,
}

impl<'a> Plan<'a> {
    /// The baselines that flags or config name; `None` where there are none.
    pub fn find(
        context: &Context,
        asked: &folder::EvalRequest,
        overwrite: bool,
        work: &'a PredictionSource<'_>,
        folder: &Folder,
    ) -> Result<Option<Self>> {
        let named = if asked.baselines.is_empty() { &context.config.eval.baselines } else { &asked.baselines };
        let baselines = Baseline::parse_all(named)?;
        if baselines.is_empty() {
            return match asked.runs {
                Some(_) => Err(Error::usage("--runs counts the runs of baselines, and none is named")
                    .hint("add --baselines verbalized,label")),
                None => Ok(None),
            };
        }
        let PredictionSource::Run(job) = work else {
            if asked.baselines.is_empty() {
                tracing::warn!("eval.baselines are left out: prediction files hold no records to run them on");
                return Ok(None);
            }
            return Err(Error::usage("baselines read the records, which prediction files do not hold")
                .hint("leave --predictions out and give --run and --config, or leave --baselines out"));
        };
        let info = job.info.clone();
        let mut own = job.template.clone();
        let known = scoring::known(context, &job.checkpoint, &info)?;
        own.date.clone_from(&known.date);
        let runs = asked.runs.map_or(context.config.eval.runs, |runs| runs as usize);
        let kept = kept(context, asked, folder);
        let keeping_runs = keeping_runs(asked);
        let prompted = baselines.iter().any(|baseline| *baseline != Baseline::Cnn);
        let other = context.config.eval.baseline_model.as_deref().filter(|_| prompted);
        let other = other.map(|url| {
            let eval = &context.config.eval;
            let named = Named {
                key: "eval.baseline_model",
                url,
                name: eval.baseline_model_name.as_deref(),
                tokenizer: eval.baseline_model_tokenizer.as_deref(),
            };
            AskedModel::find(context, named, || work.tokenizer_path(context))
        });
        let asked = other.transpose()?;
        let plan = Self { job, baselines, runs, kept, keeping_runs, info, known, own, overwrite, asked };
        plan.check_server(context, folder)?;
        let asks = |baseline| plan.baselines.contains(&baseline) && !plan.kept.contains(&baseline);
        if asks(Baseline::Verbalized) {
            plan.verbalized_prompt(context)?;
        }
        if asks(Baseline::Cnn) {
            cnn::check_cnn(context)?;
        }
        Ok(Some(plan))
    }

    /// Tries the server, if one is asked, where an answer is missing.
    fn check_server(&self, context: &Context, folder: &Folder) -> Result<()> {
        let Some(asked) = &self.asked else { return Ok(()) };
        let windows = scoring::windows(context, &self.info);
        for baseline in self.baselines.iter().filter(|baseline| **baseline != Baseline::Cnn) {
            asked.check(
                context,
                (folder, &file(&folder.out, *baseline)),
                windows.input + windows.output,
                *baseline == Baseline::TokenProbability,
            )?;
        }
        Ok(())
    }

    fn verbalized_prompt(&self, context: &Context) -> Result<PromptTemplate> {
        let task = TaskPrompt {
            labels: &self.info.labels,
            days: prompts::task_days(Some(&self.own), context.config.data.horizon),
        };
        let file = context.config.eval.verbalized_prompt.as_ref().map(|path| context.config.resolve(path));
        prompts::verbalized(task, &self.own, file.as_deref())
    }

    /// Runs what is missing; the answers of each baseline, run by run. `out` is the split's folder.
    pub fn run(&self, context: &Context, out: &Path) -> Result<Vec<(Baseline, BaselineRuns)>> {
        let records = self.job.records(context)?;
        let runner = Runner::new(self, context, out, &records)?;
        self.baselines.iter().map(|&baseline| Ok((baseline, runner.answers(baseline)?))).collect()
    }
}

/// The model that is asked, read when the first missing answer needs it.
struct Base<'a> {
    ready: Ready<'a>,
    tokenizer: Arc<TextTokenizer>,
}

struct Runner<'a> {
    plan: &'a Plan<'a>,
    context: &'a Context,
    /// The split's folder.
    out: &'a Path,
    records: &'a [Record],
    windows: Windows,
    base: OnceCell<Base<'a>>,
}

impl<'a> Runner<'a> {
    fn new(plan: &'a Plan<'a>, context: &'a Context, out: &'a Path, records: &'a [Record]) -> Result<Self> {
        let windows = scoring::windows(context, &plan.info);
        Ok(Self { plan, context, out, records, windows, base: OnceCell::new() })
    }

    /// The answers of a baseline, run by run.
    fn answers(&self, baseline: Baseline) -> Result<BaselineRuns> {
        let labels = &self.plan.info.labels;
        let verdict = self.plan.own.verdict()?;
        let read = |text: &str| read(baseline, text, &verdict, labels);
        let is_kept = self.plan.kept.contains(&baseline);
        let kept = if is_kept { finished((self.out, baseline), self.records, self.plan.overwrite)? } else { None };
        if kept.is_some() && baseline != Baseline::Cnn {
            tell_kept(self.context, self.plan.asked.as_ref(), (self.out, baseline))?;
        }
        let lines = match (baseline, kept) {
            (Baseline::SelfConsistency, Some(runs)) => self.vote(&runs)?,
            (_, Some(lines)) => lines,
            (Baseline::Verbalized, None) => {
                self.written(baseline, &self.plan.verbalized_prompt(self.context)?, &read)?
            }
            (Baseline::Label, None) => self.written(baseline, &self.plan.own, &read)?,
            (Baseline::SelfConsistency, None) => self.vote(&self.written(Baseline::Label, &self.plan.own, &read)?)?,
            (Baseline::TokenProbability, None) => self.token_probability()?,
            (Baseline::Cnn, None) => return Ok(BaselineRuns::new(labels, self.cnn()?)),
        };
        Ok(BaselineRuns::new(labels, by_run(lines)))
    }

    fn cnn(&self) -> Result<Vec<Vec<BaselineAnswer>>> {
        let folder = self.out.join(FOLDER);
        if self.plan.kept.contains(&Baseline::Cnn) {
            return cnn::kept(self.context, self.records, &folder);
        }
        let fields = self.plan.own.fields();
        cnn::run(self.context, &fields, self.records, &self.plan.job.data_hash, (&folder, self.plan.overwrite))
    }

    /// N runs of a prompt: those of the file, and those it lacks.
    fn written(
        &self,
        baseline: Baseline,
        template: &PromptTemplate,
        read: &dyn Fn(&str) -> BaselineAnswer,
    ) -> Result<Vec<BaselineRecord>> {
        let eval = &self.context.config.eval;
        let sampling = Sampling { temperature: eval.temperature, top_p: eval.top_p, seed: self.context.seed };
        let answered = self.plan.keeping_runs.contains(&baseline).then(|| file(self.out, baseline));
        let stay = answered.and_then(|file| runs_of(&file));
        tell_runs(self.context, baseline, stay);
        let runs = stay.unwrap_or(self.plan.runs);
        let made = self.made(baseline, template, Some((runs, sampling.temperature)))?;
        self.logged(baseline, &made, &|rest, lines, bar| {
            let (base, prompter) = self.prompter(template)?;
            let asker = Asker {
                model: base.ready.writer()?,
                sampling,
                max_new_tokens: self.windows.output,
                runs,
                batch_tokens: self.context.config.generate.batch_tokens,
            };
            let mut answered = rest.iter();
            asker.ask(rest.iter().map(|record| (&prompter, record)), &mut |asked| {
                let Some(record) = answered.next() else { return Ok(()) };
                let runs = asked.answers.iter().map(|answer| BaselineAnswer {
                    generated_tokens: Some(answer.generated_tokens),
                    finish: Some(answer.finish),
                    text: Some(answer.text.clone()),
                    ..asked.said(answer).map(read).unwrap_or_default()
                });
                lines.append(BaselineRecord {
                    id: record.id.clone(),
                    label: record.label,
                    prompt_tokens: asked.prompt_tokens,
                    truncated_tokens: asked.truncated_tokens,
                    runs: runs.collect(),
                })?;
                bar.inc(1);
                Ok(())
            })
        })
    }

    fn token_probability(&self) -> Result<Vec<BaselineRecord>> {
        let template = prompting::token_prompt(&self.plan.own)?;
        let made = self.made(Baseline::TokenProbability, &template, None)?;
        self.logged(Baseline::TokenProbability, &made, &|rest, lines, bar| {
            let (base, prompter) = self.prompter(&template)?;
            let mut append = |line| {
                lines.append(line)?;
                bar.inc(1);
                Ok(())
            };
            let batch_tokens = self.context.config.generate.batch_tokens;
            prompting::ask_tokens(base.ready.writer()?, &prompter, batch_tokens, rest, &mut append)
        })
    }

    /// The majority of the label runs, written as a baseline of its own.
    fn vote(&self, runs: &[BaselineRecord]) -> Result<Vec<BaselineRecord>> {
        let mut text = String::new();
        let mut lines = Vec::new();
        for line in runs {
            let labels: Vec<Option<Class>> = line.runs.iter().map(|run| run.verbalized_label).collect();
            let vote = prompting::vote(&labels, &self.plan.info.labels);
            let run = vote.as_ref().map(|vote| vote.run(&self.plan.info.labels)).unwrap_or_default();
            let mut described = json!({
                "id": line.id, "label": line.label, "probability": run.probability,
                "verbalized_label": run.verbalized_label,
                "votes": vote.map(|vote| vote.votes),
                "unparsable": labels.iter().filter(|label| label.is_none()).count(),
            });
            if let Some(shares) = &run.probabilities {
                described["probabilities"] = json!(shares);
            }
            text += &format!("{described}\n");
            lines.push(BaselineRecord { runs: vec![run], ..line.clone() });
        }
        storage::write_file_atomic(&file(self.out, Baseline::SelfConsistency), text.as_bytes())?;
        Ok(lines)
    }

    /// What decides a baseline's answers. `draws`: its runs and their temperature, where it writes at all.
    fn made(&self, baseline: Baseline, template: &PromptTemplate, draws: Option<(usize, f64)>) -> Result<Fingerprint> {
        let context = self.context;
        let plan = self.plan;
        let (runs, temperature) = draws.unzip();
        let ([other, prompts, base, tokenizer], [dtype, quantize]) = match &plan.asked {
            Some(asked) => {
                let file = file(self.out, baseline);
                let longest = self.windows.input + self.windows.output;
                let prompts = asked.prompts(context, &file, self.records.len(), longest)?;
                let tokenizer = json!(asked.tokenizer().hash());
                ([asked.identity()?, prompts, Value::Null, tokenizer], asked.precision(context)?)
            }
            None => {
                let identity = [Value::Null, Value::Null, json!(plan.known.base), json!(plan.known.tokenizer)];
                let dtype = ("model.dtype", json!(context.dtype()?.as_str()));
                // The base is read as the checkpoint's own is.
                (identity, [dtype, ("model.quantize", json!(scoring::quantize(context, &plan.info)))])
            }
        };
        let contents = [
            ("clsgen_version", json!(env!("CARGO_PKG_VERSION"))),
            ("baseline", json!(baseline.name())),
            (if baseline == Baseline::Verbalized { "eval.verbalized_prompt" } else { "prompt" }, json!(template)),
            ("labels", json!(plan.info.labels)),
            ("records", json!(plan.job.data_hash)),
            ("eval.baseline_model", other),
            (PROMPTS, prompts),
            ("model.base", base),
            (TOKENIZER, tokenizer),
            dtype,
            quantize,
            ("train.seed", json!(context.seed)),
            ("eval.runs", json!(runs)),
            ("eval.temperature", json!(temperature)),
        ];
        // Only one of them is asked by it.
        let unasked = (baseline != Baseline::Verbalized).then_some(("eval.verbalized_prompt", Value::Null));
        let contents: Vec<_> = contents.into_iter().chain(unasked).collect();
        Fingerprint::new(Stage::Baselines, &self.windows.config(&context.config), &contents)
    }

    /// The lines of a baseline's log; `work` appends those of the records that it lacks.
    fn logged(
        &self,
        baseline: Baseline,
        made: &Fingerprint,
        work: &log::Fill<'_, Record, BaselineRecord>,
    ) -> Result<Vec<BaselineRecord>> {
        let file = file(self.out, baseline);
        let lines = log::fill(self.context, &file, (made, self.plan.overwrite), self.records, without_texts, work)?;
        if are_of(&lines, self.records) {
            Ok(lines)
        } else {
            Err(Error::run(format!("{} holds other records than the split", file.display()))
                .hint("delete it and try again"))
        }
    }

    /// The model that is asked and a prompter of this template for it.
    fn prompter(&self, template: &PromptTemplate) -> Result<(&Base<'a>, Prompter)> {
        if let (Some(asked), None) = (&self.plan.asked, self.base.get()) {
            let ready = asked.ready(self.context, &self.windows)?;
            let _ = self.base.set(Base { ready, tokenizer: asked.tokenizer().clone() });
        }
        if self.base.get().is_none() {
            let checkpoint = &self.plan.job.checkpoint;
            let info = &self.plan.info;
            scoring::check_memory_of_base(self.context, checkpoint, info, &self.windows)?;
            let (model, source): (Model, ModelSource) = loading::load_base(self.context, checkpoint, info)?;
            let tokenizer = TextTokenizer::load(source.tokenizer_path())?;
            tokenizer.check_vocab(model.llama.config.vocab_size)?;
            model.llama.config.check_window(self.windows.input, self.windows.output, self.windows.allow_long)?;
            let _ = self.base.set(Base { ready: Ready::here(model), tokenizer: Arc::new(tokenizer) });
        }
        let base = self.base.get().ok_or_else(|| Error::run("the base model was not kept"))?;
        let Windows { input, output, truncate, .. } = self.windows;
        Ok((
            base,
            Prompter::new(
                template.clone().dated(&base.tokenizer, &self.context.prompt_date()),
                base.tokenizer.clone(),
                self.plan.info.labels.clone(),
                input,
                output,
                truncate,
            )?,
        ))
    }
}
