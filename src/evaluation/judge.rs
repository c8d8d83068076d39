//! `eval.judge`: LLM-as-a-judge over the texts that were just scored (SPEC A35, A36), in `RUN/eval/judge.jsonl`.

use std::{cell::OnceCell, collections::HashMap, sync::Arc};

use serde_json::json;

use super::{Scored, Work, folder::Folder, log};
use crate::{
    baselines::{
        judge::{self, Case, JudgeLine},
        prompting::Asker,
        prompts::{self, TaskPrompt},
    },
    config::Stage,
    context::Context,
    data::Prediction,
    error::{Context as _, Result},
    fingerprint::{Fingerprint, TOKENIZER},
    generate::{Sampling, memory::Longest, scoring},
    labels::{Class, Labels},
    metrics::{
        AnySample, Options,
        evaluation::Judge,
        judge::{Judged, judge as measure},
        multiclass,
    },
    model::{ModelSource, source},
    prompt::{PromptFormat, PromptTemplate, Prompter, TextTokenizer},
};

const FILE: &str = "judge.jsonl";

/// A judge, found before any work.
pub struct Plan {
    /// Its files.
    pub source: ModelSource,
    hash: OnceCell<String>,
    tokenizer: Arc<TextTokenizer>,
    labels: Labels,
    inconsistency: PromptTemplate,
    readability: PromptTemplate,
}

impl Plan {
    /// The judge that `eval.judge` names; `None` where it names none.
    pub fn find(context: &Context, work: &Work<'_>) -> Result<Option<Self>> {
        let config = &context.config;
        let Some(judge) = &config.eval.judge else { return Ok(None) };
        let labels = config.task.labels.clone();
        let own = match work {
            Work::Run(job) => Some(&job.template),
            Work::Files { .. } => None,
        };
        let source = source::resolve(judge, &[&config.dir], context.allow_network).context("eval.judge")?;
        let tokenizer = TextTokenizer::load(source.tokenizer_path())?;
        // A base model has no chat template; it is asked in plain text.
        let format = if tokenizer.chat_template().is_some() { PromptFormat::Chat } else { PromptFormat::Plain };
        let task = TaskPrompt { labels: &labels, days: prompts::task_days(own, config.data.horizon) };
        let file = config.eval.judge_prompt.as_ref().map(|path| config.resolve(path));
        let date = context.prompt_date();
        let inconsistency = prompts::inconsistency(task, file.as_deref(), format)?.dated(&tokenizer, &date);
        let readability = prompts::readability(format)?.dated(&tokenizer, &date);

        Ok(Some(Self {
            source,
            hash: OnceCell::new(),
            tokenizer: Arc::new(tokenizer),
            labels,
            inconsistency,
            readability,
        }))
    }

    /// Its weights' hash, read once.
    pub fn hash(&self) -> Result<&str> {
        if self.hash.get().is_none() {
            let _ = self.hash.set(self.source.hash()?);
        }
        Ok(self.hash.get().map_or("", String::as_str))
    }

    /// Judges what is not judged yet and measures.
    pub fn run(&self, context: &Context, folder: &Folder, scored: &Scored, options: &Options) -> Result<Judge> {
        let cases = cases(scored, &self.labels);
        let config = &context.config.model;
        let cap = judge::max_new_tokens(&self.tokenizer, &self.labels)?;
        let prompter = |template: &PromptTemplate| {
            let input = config.max_input_tokens;
            let output = config.max_output_tokens.max(cap);
            Prompter::new(template.clone(), self.tokenizer.clone(), self.labels.clone(), input, output, config.truncate)
        };
        let inconsistency = prompter(&self.inconsistency)?;
        let readability = prompter(&self.readability)?;
        // A thought takes as much room as an explanation does.
        let thinks = inconsistency.opens_thought() || readability.opens_thought();
        let cap = if thinks { config.max_output_tokens.max(cap) } else { cap };
        let contents = [
            ("clsgen_version", json!(env!("CARGO_PKG_VERSION"))),
            ("eval.judge", json!(self.hash()?)),
            (TOKENIZER, json!(self.tokenizer.hash())),
            ("predictions", json!(scored.predictions.blake3)),
            ("eval.judge_prompt", json!([&self.inconsistency, &self.readability])),
            ("labels", json!(self.labels)),
            ("model.dtype", json!(context.dtype()?.as_str())),
            ("max_new_tokens", json!(cap)),
        ];
        let made = Fingerprint::new(Stage::Judge, &context.config, &contents)?;
        let file = folder.out.join(FILE);
        let judged = log::fill(context, &file, (&made, folder.overwrite), &cases, |_| (), &|rest, lines, bar| {
            let shape = self.source.config()?;
            self.tokenizer.check_vocab(shape.vocab_size)?;
            shape.check_window(config.max_input_tokens, cap, config.allow_long).context("eval.judge")?;
            let longest = Longest { input: config.max_input_tokens, output: cap, key: "model.max_input_tokens".into() };
            scoring::check_memory_of(context, &self.source, longest.clone()).context("eval.judge")?;
            let model = scoring::load_writer(context, "eval.judge", &self.source, longest)?;
            let batch_tokens = context.config.generate.batch_tokens;
            let asker =
                Asker { model: &model, sampling: Sampling::greedy(), max_new_tokens: cap, runs: 1, batch_tokens };
            judge::ask(&asker, &inconsistency, &readability, rest, &mut |line| {
                lines.append(line)?;
                bar.inc(1);
                Ok(())
            })
        })?;
        Ok(measured(scored, cases.len(), judged, options))
    }
}

/// What an earlier command's judge said of these very predictions, measured again: a later one without a judge does not
/// blank it. `None` where none did, or not to the end.
pub fn kept(folder: &Folder, scored: &Scored, options: &Options) -> Result<Option<Judge>> {
    let file = folder.out.join(FILE);
    let Some(made) = log::made_by(&file).filter(|_| file.is_file()) else { return Ok(None) };
    let Ok(labels) = serde_json::from_value::<Labels>(made.get("labels").clone()) else { return Ok(None) };
    if *made.get("predictions") != json!(scored.predictions.blake3) {
        tracing::warn!("{} judges other predictions: not counted", file.display());
        return Ok(None);
    }
    let judged: Vec<JudgeLine> = log::verified(&file)?;
    let cases = cases(scored, &labels).len();
    if judged.len() < cases {
        tracing::warn!(
            "{} was not finished: not counted; the same command with eval.judge goes on with it",
            file.display()
        );
        return Ok(None);
    }
    Ok(Some(measured(scored, cases, judged, options)))
}

/// What a judge is asked of the scored predictions; it never sees their verdict lines.
fn cases(scored: &Scored, labels: &Labels) -> Vec<Case> {
    scored.predictions.iter().filter_map(|prediction| judge::case(prediction, &scored.verdict, labels)).collect()
}

fn measured(scored: &Scored, cases: usize, judged: Vec<JudgeLine>, options: &Options) -> Judge {
    let judged: HashMap<String, JudgeLine> = judged.into_iter().map(|line| (line.id.clone(), line)).collect();
    let predicted = &scored.predictions;
    let measured = match &scored.sample {
        AnySample::Two(sample) => measure(sample, &rows(predicted, &judged, |class| class == Class::ONE), options),
        AnySample::More(sample) => multiclass::judge(sample, &rows(predicted, &judged, u8::from), options),
    };
    let unparsable = measured.unparsable.value.map_or(0.0, |share| share * measured.unparsable.n as f64);
    tracing::info!("judge: {cases} texts, {unparsable:.0} of {} answers unparsable", measured.unparsable.n);
    measured
}

/// What was said of each prediction, in their order.
fn rows<L>(
    predicted: &[Prediction],
    judged: &HashMap<String, JudgeLine>,
    label: impl Fn(Class) -> L,
) -> Vec<Option<Judged<L>>> {
    let line = |prediction: &Prediction| judged.get(prediction.id.as_deref()?);
    predicted.iter().map(|prediction| Some(judge::judged(prediction, line(prediction), &label))).collect()
}
