//! `eval.judge`: LLM-as-a-judge over the texts that were just scored (paper §5.3.2), in `judge.jsonl` of the split's
//! folder; over those of the base before tuning in `base.judge.jsonl`.

use std::{collections::HashMap, path::Path};

use serde_json::json;

use super::{
    PredictionSource, Scored,
    asked_model::{AskedModel, PROMPTS},
    folder::Folder,
    log,
    run_directory::Base,
};
use crate::{
    baselines::{
        judge::{self, Case, JudgeLine},
        prompting::Asker,
        prompts::{self, TaskPrompt},
    },
    config::{self, Stage},
    context::Context,
    data::{Prediction, Predictions},
    error::Result,
    fingerprint::{Fingerprint, TOKENIZER},
    generate::{Sampling, scoring::Windows},
    labels::{Class, Labels},
    metrics::{self, AnySample, Options, comparison::Comparison, evaluation::Judge, judge::Judged, multiclass},
    prompt::{PromptFormat, PromptTemplate, Prompter, Verdict},
    remote::Named,
};

/// Its answers on the tuned model's texts, in the split's folder.
pub const FILE: &str = "judge.jsonl";
/// Those on the base's.
pub const BASE_FILE: &str = "base.judge.jsonl";

/// Texts to be judged.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    predictions: &'a Predictions,
    sample: &'a AnySample,
    /// The line that ends them.
    verdict: &'a Verdict,
    /// The judge's answers.
    file: &'static str,
}

impl<'a> Texts<'a> {
    /// The model's own.
    pub fn of(scored: &'a Scored) -> Self {
        Self { predictions: &scored.predictions, sample: &scored.sample, verdict: &scored.verdict, file: FILE }
    }

    /// Those of the base before tuning.
    pub fn of_base(base: &'a Base, scored: &'a Scored) -> Self {
        Self { predictions: &base.predictions, sample: &base.sample, verdict: &scored.verdict, file: BASE_FILE }
    }

    /// What a judge is asked of them; it never sees their verdict lines.
    fn cases(&self, labels: &Labels) -> Vec<Case> {
        let numbered = (1..).zip(self.predictions.iter());
        numbered.filter_map(|(number, prediction)| judge::case(prediction, number, self.verdict, labels)).collect()
    }
}

/// What a judge said of the texts.
pub struct Judgement {
    /// Measured.
    pub metrics: Judge,
    lines: HashMap<String, JudgeLine>,
}

/// A judge, found before any work.
pub struct Plan {
    /// The model.
    pub asked: AskedModel,
    labels: Labels,
    inconsistency: PromptTemplate,
    readability: PromptTemplate,
}

impl Plan {
    /// The judge that `eval.judge` names; `None` where it names none.
    pub fn find(context: &Context, work: &PredictionSource<'_>, folder: &Folder) -> Result<Option<Self>> {
        let config = &context.config;
        let Some(judge) = &config.eval.judge else { return Ok(None) };
        let labels = config.task.labels.clone();
        let own = match work {
            PredictionSource::Run(job) => Some(&job.template),
            PredictionSource::Files { .. } => None,
        };
        let named = Named {
            key: "eval.judge",
            url: judge,
            name: config.eval.judge_name.as_deref(),
            tokenizer: config.eval.judge_tokenizer.as_deref(),
        };
        let asked = AskedModel::find(context, named, || work.tokenizer_path(context))?;
        let tokenizer = asked.tokenizer();
        // A base model has no chat template; it is asked in plain text.
        let format = if tokenizer.chat_template().is_some() { PromptFormat::Chat } else { PromptFormat::Plain };
        let task = TaskPrompt { labels: &labels, days: prompts::task_days(own, config.data.horizon) };
        let file = config.eval.judge_prompt.as_ref().map(|path| config.resolve(path));
        let date = context.prompt_date();
        let inconsistency = prompts::inconsistency(task, file.as_deref(), format)?.dated(tokenizer, &date);
        let readability = prompts::readability(format)?.dated(tokenizer, &date);

        let longest = config.model.max_input_tokens + config.model.max_output_tokens;
        asked.check(context, (folder, &folder.out.join(FILE)), longest, false)?;
        Ok(Some(Self { asked, labels, inconsistency, readability }))
    }

    /// Judges what is not judged yet and measures.
    pub fn run(&self, context: &Context, folder: &Folder, texts: Texts<'_>, options: &Options) -> Result<Judgement> {
        let cases = texts.cases(&self.labels);
        let config = &context.config.model;
        let tokenizer = self.asked.tokenizer();
        let cap = judge::max_new_tokens(tokenizer, &self.labels)?;
        let prompter = |template: &PromptTemplate| {
            let input = config.max_input_tokens;
            let output = config.max_output_tokens.max(cap);
            Prompter::new(template.clone(), tokenizer.clone(), self.labels.clone(), input, output, config.truncate)
        };
        let inconsistency = prompter(&self.inconsistency)?;
        let readability = prompter(&self.readability)?;
        // A thought takes as much room as an explanation does.
        let thinks = inconsistency.opens_thought() || readability.opens_thought();
        let cap = if thinks { config.max_output_tokens.max(cap) } else { cap };
        let file = folder.out.join(texts.file);
        let longest = config.max_input_tokens + cap;
        let [dtype, quantize] = self.asked.precision(context)?;
        let contents = [
            ("clsgen_version", json!(env!("CARGO_PKG_VERSION"))),
            ("eval.judge", self.asked.identity()?),
            (PROMPTS, self.asked.prompts(context, &file, cases.len(), longest)?),
            (TOKENIZER, json!(tokenizer.hash())),
            ("predictions", json!(texts.predictions.blake3)),
            ("eval.judge_prompt", json!([&self.inconsistency, &self.readability])),
            ("labels", json!(self.labels)),
            dtype,
            quantize,
            ("max_new_tokens", json!(cap)),
        ];
        let made = Fingerprint::new(Stage::Judge, &context.config, &contents)?;
        let judged = log::fill(context, &file, (&made, folder.overwrite), &cases, |_| (), &|rest, lines, bar| {
            let windows = Windows { input: config.max_input_tokens, output: cap, ..windows(config) };
            let ready = self.asked.ready(context, &windows)?;
            let batch_tokens = context.config.generate.batch_tokens;
            let model = ready.writer()?;
            let asker = Asker { model, sampling: Sampling::greedy(), max_new_tokens: cap, runs: 1, batch_tokens };
            judge::ask(&asker, &inconsistency, &readability, rest, &mut |line| {
                lines.append(line)?;
                bar.inc(1);
                Ok(())
            })
        })?;
        Ok(measured(texts, cases.len(), judged, options))
    }
}

/// The config's windows.
fn windows(config: &config::Model) -> Windows {
    let input = config.max_input_tokens;
    let output = config.max_output_tokens;
    Windows { input, output, truncate: config.truncate, allow_long: config.allow_long }
}

/// Whether one judge has judged the texts of the base and of those scored, by the same prompts.
pub fn is_of_both(out: &Path) -> bool {
    let made = |file: &str| log::made_by(&out.join(file)).map(|made| made.filtered(|key| key != "predictions"));
    match (made(FILE), made(BASE_FILE)) {
        (Some(scored), Some(base)) => scored.differences(&base).is_empty(),
        _ => true,
    }
}

/// What an earlier command's judge said of these very predictions, measured again: a later one without a judge does not
/// blank it. `None` where none did, or not to the end.
pub fn kept(folder: &Folder, texts: Texts<'_>, options: &Options) -> Result<Option<Judgement>> {
    let file = folder.out.join(texts.file);
    if !file.is_file() {
        return Ok(None);
    }
    let Some(made) = log::made_by(&file) else {
        tracing::warn!("{}: nothing beside it says what made it: not counted", file.display());
        return Ok(None);
    };
    let Ok(labels) = serde_json::from_value::<Labels>(made.get("labels").clone()) else { return Ok(None) };
    if *made.get("predictions") != json!(texts.predictions.blake3) {
        tracing::warn!("{} judges other predictions: not counted", file.display());
        return Ok(None);
    }
    let judged: Vec<JudgeLine> = match log::verified(&file, |_| ()) {
        // Without a judge it cannot be made again.
        Err(error) if folder.overwrite && error.exit_code() == 3 => {
            tracing::warn!("{error}: not counted");
            return Ok(None);
        }
        read => {
            read.map_err(|error| error.hint("--overwrite leaves it out, or judges again where eval.judge is set"))?
        }
    };
    let cases = texts.cases(&labels).len();
    if judged.len() < cases {
        tracing::warn!(
            "{} was not finished: not counted; the same command with eval.judge goes on with it",
            file.display()
        );
        return Ok(None);
    }
    Ok(Some(measured(texts, cases, judged, options)))
}

/// What `plan` says of the texts or, without one, what an earlier command's judge said of them.
pub fn judge_or_keep(
    plan: Option<&Plan>,
    context: &Context,
    folder: &Folder,
    texts: Texts<'_>,
    options: &Options,
) -> Result<Option<Judgement>> {
    match plan {
        Some(judge) => judge.run(context, folder, texts, options).map(Some),
        None => kept(folder, texts, options),
    }
}

/// `second − first` of what was judged of two sets of texts about the same records.
pub fn differences(
    first: (Texts<'_>, &Judgement),
    second: (Texts<'_>, &Judgement),
    options: &Options,
) -> Vec<Comparison> {
    match second.0.sample {
        AnySample::Two(sample) => {
            let [first, second] =
                [first, second].map(|(texts, judged)| rows(texts, judged, |class| class == Class::ONE));
            metrics::judge::differences(sample, [&first, &second], options)
        }
        AnySample::More(sample) => {
            let [first, second] = [first, second].map(|(texts, judged)| rows(texts, judged, u8::from));
            multiclass::judge_differences(sample, [&first, &second], options)
        }
    }
}

fn measured(texts: Texts<'_>, cases: usize, judged: Vec<JudgeLine>, options: &Options) -> Judgement {
    let lines = judged.into_iter().map(|line| (line.id.clone(), line)).collect();
    let judgement = Judgement { metrics: Judge::default(), lines };
    let metrics = match texts.sample {
        AnySample::Two(sample) => {
            metrics::judge::judge(sample, &rows(texts, &judgement, |class| class == Class::ONE), options)
        }
        AnySample::More(sample) => multiclass::judge(sample, &rows(texts, &judgement, u8::from), options),
    };
    let unparsable = metrics.unparsable.value.map_or(0.0, |share| share * metrics.unparsable.n as f64);
    let name = texts.file.trim_end_matches(".jsonl");
    tracing::info!("{name}: {cases} texts, {unparsable:.0} of {} answers unparsable", metrics.unparsable.n);
    Judgement { metrics, ..judgement }
}

/// What was said of each text, in their order.
fn rows<L>(texts: Texts<'_>, judgement: &Judgement, label: impl Fn(Class) -> L) -> Vec<Option<Judged<L>>> {
    let line = |prediction: &Prediction| judgement.lines.get(prediction.id.as_deref()?);
    texts.predictions.iter().map(|prediction| Some(judge::judged(prediction, line(prediction), &label))).collect()
}
