//! `clsgen train`: joint fine-tuning, a checkpoint an epoch, model selection on dev.
//!
//! ```text
//! config, records, explanations ─▶ checks (exit 2 to 5 before any work)
//!     ─▶ model ─▶ session ─▶ best.json
//! ```

mod agreement;
mod base;
mod identity;
mod inputs;
mod start;

use std::{path::Path, sync::Arc};

use candle_core::Device;
use serde_json::json;

use self::{base::FoundBase, identity::Identity, inputs::Inputs};
use super::{Context, args::TrainArgs, output, ranks, run_json};
use crate::{
    config::{Config, EpochSample, LossSchedule, Objective},
    device,
    error::{Error, Result, ResultExt},
    generate::{Sampling, predict},
    model::{LoraConfig, Model, checkpoint::ClsgenJson},
    ops::cuda,
    prompt::{Prompter, TextTokenizer},
    signals, storage,
    train::{
        cards::{self, Needs},
        checkpoint::{self, CheckpointWriter, Resumable},
        class_balance::{BalancedSampler, ClassBalance},
        consistency::LabelTokens,
        dev::Dev,
        examples::{self, Example},
        log::TrainLog,
        loss::{LossWeights, StepSettings},
        memory::{self, Largest},
        mfu::{Mfu, Operations},
        optimizer::Optimizer,
        plan::BatchPlan,
        schedule::{LinearSchedule, WeightSchedule},
        select::{Best, is_scored},
        session::Session,
        step::Trainer,
    },
};

/// Runs the command.
pub fn run(context: &Context, args: &TrainArgs) -> Result<()> {
    match execute(context, args)? {
        Some(best) => print_best(context, &best),
        None => Ok(()),
    }
}

/// Trains to the end, or to a signal: the best checkpoint; `None` of a dry run, and on other ranks than 0.
pub(super) fn execute(context: &Context, args: &TrainArgs) -> Result<Option<Best>> {
    let config = &context.config;
    if args.assume.is_some() && !context.dry_run {
        return Err(Error::usage("--assume plans a run on other machines: it trains nothing")
            .hint("add --dry-run, or leave --assume out"));
    }
    ranks::check_started_alike(context, &[("--resume", json!(args.resume))])?;
    let together = &context.ranks;
    let lock = || run_json::lock(&context.run_dir);
    let mut lock = if context.dry_run { None } else { together.on_rank_0(lock)? };

    // Records, base model, and whether this is the run the directory holds.
    let mut inputs = Inputs::load(context)?;
    inputs.files().into_iter().for_each(storage::protect);
    let elsewhere = args.assume.is_some();
    let (base, fits) = FoundBase::find(context, elsewhere)?;
    inputs.template = inputs.template.dated(&base.tokenizer, &agreement::prompt_date(context)?);
    let mut identity = Identity::of(context, &inputs, &base.hash, base.tokenizer.hash())?;
    identity.check_ranks(context, &base.device)?;
    together.on_rank_0(|| identity.check(&context.run_dir))?;
    // Finding it may put a directory in order that a kill left half replaced: not in a dry run.
    let resume = if context.dry_run && args.resume { None } else { agreement::resume_point(context, args.resume)? };

    // Records as tokens, and what the run will do with them.
    base.check_window(context)?;
    let prompter = prompter(config, &inputs, base.tokenizer.clone())?;
    let examples = encode(config, &inputs, &prompter)?;
    let label_tokens = label_tokens(config, &inputs, &prompter, &examples)?;
    // A dev record without a prompt must not come to light after an epoch's work.
    let dev = dev(context, &mut inputs, &prompter)?;
    let lengths = examples.iter().map(|example| example.prompt.len()).collect();
    let (class_balance, sampler) = class_balance(config, &examples)?;
    let plan = BatchPlan::new(&config.train, lengths, sampler, together.size(), context.seed)?;
    agreement::check_steps(resume.as_ref(), &plan, &config.train)?;
    let whole = config.train.prompt_loss_weight > 0.0;
    let largest = Largest::of(&examples, plan.batch_size, plan.balanced.as_ref(), whole);
    ranks::announce(context);
    announce(&inputs, &plan, largest);
    let fits = fits.and(room(config, &base, largest));
    if context.dry_run {
        dry_run(context, args, &base, (&plan, &examples, largest))?;
        return together.agree(if elsewhere { Ok(None) } else { fits.map(|()| None) });
    }
    fits?;
    // Every rank has looked at what memory is free before any takes some.
    together.agree(signals::check_interrupted())?;

    // The model, where the run left off or from the start.
    let (model, head_trained) = start::model(context, &base, resume.as_ref(), identity.start_hash())?;
    let of_losses = (label_tokens, class_balance);
    let trainer = trainer(context, model, plan.clone(), of_losses, largest, resume.as_ref(), &base.device)?;
    let state = agreement::state(resume, &plan);
    let log = together.on_rank_0(|| {
        // The epochs to come, `last`, and one more while a directory is being replaced.
        let checkpoints = (state.epochs_left(&plan, config.train.max_steps) + 2) as u64;
        device::check_disk(&context.run_dir, memory::checkpoint_bytes(&trainer.optimizer) * checkpoints)?;
        // Only now, when nothing can be refused any more, does the directory become this run's.
        let models = [("model.base", base.source.path.as_path(), base.hash.as_str())];
        // A run that has nothing left to do, not even to score, keeps the record of who trained it.
        let over = state.is_over(&plan, config.train.max_steps) && is_scored(&context.run_dir, &state, dev.is_some());
        let done = over && run_json::ended_well(&context.run_dir, "train");
        if let Some(lock) = lock.take_if(|_| !done) {
            run_json::write(context, "train", &inputs.files(), &models, lock)?;
        }
        identity.write(&context.run_dir)?;
        let mfu = mfu(context, &base, &trainer);
        let last = plan.last_step(config.train.max_steps);
        TrainLog::open(&context.run_dir, last, state.step, state.complete_epochs(), mfu, context.quiet)
    })?;

    let mut session = Session {
        log: log.unwrap_or_else(TrainLog::silent),
        trainer,
        examples: &examples,
        dev,
        prompter: &prompter,
        writer: CheckpointWriter {
            run: context.run_dir.clone(),
            info: clsgen_json(config, &inputs, &base, head_trained)?,
            source: base.source,
            parameters: config.train.parameters,
        },
        resumed_at: state.step,
        state,
        save_every_steps: config.train.save_every_steps,
        max_steps: config.train.max_steps,
    };
    session.run()
}

/// Whether weights, what is trained and the largest micro-batch have room on the device, by what it has free now.
fn room(config: &Config, base: &FoundBase, largest: Largest) -> Result<()> {
    let trained = (config.train.parameters, &LoraConfig::from(&config.lora));
    let here = (&base.device, cuda::memory_available(&base.device));
    memory::check_before_loading(&base.llama_config, (base.held, base.precision), trained, largest, here)
}

/// The model FLOPs utilization of this run's steps, where the card's peak is known.
fn mfu(context: &Context, base: &FoundBase, trainer: &Trainer) -> Option<Mfu> {
    let operations = Operations::of(&base.llama_config, context.config.train.parameters);
    Mfu::new(operations, &trainer.pass.weights, context.ranks.size(), base.dtype, &base.device)
        .inspect_err(|error| tracing::warn!("metrics.jsonl has no mfu: {error}"))
        .ok()
}

fn dry_run(
    context: &Context,
    args: &TrainArgs,
    base: &FoundBase,
    (plan, examples, largest): (&BatchPlan, &[Example], Largest),
) -> Result<()> {
    let goes_on = args.resume && checkpoint::any(&context.run_dir).is_some();
    if !goes_on {
        start::check(context, base)?;
    }
    let needs = Needs::of(&context.config, &base.llama_config, largest);
    let told = super::dry_run::DryRunReport::new(context, "train")
        .with("starts", if goes_on { "from the newest whole checkpoint" } else { "anew" })
        .with("model.base", json!(base.source.path))
        .with("tokenizer", json!(base.source.tokenizer_path()))
        .with("records", plan.records)
        .with("epochs", context.config.train.epochs)
        .with("steps in all", plan.total_steps())
        .with("records of a step", plan.group_size())
        .with("longest micro-batch, tokens", largest.rows)
        .with("memory of a rank on a GPU", needs.describe())
        .with("cards", needs.cards());
    match args.assume {
        Some(rate) => {
            let title = format!("hours at {rate} tokens/s a rank");
            told.with(&title, cards::hours(examples, plan, &context.config.train, rate))
        }
        None => told,
    }
    .print(context)
}

fn prompter(config: &Config, inputs: &Inputs, tokenizer: Arc<TextTokenizer>) -> Result<Prompter> {
    let window = &config.model;
    let template = inputs.template.clone();
    let labels = config.task.labels.clone();
    Prompter::new(template, tokenizer, labels, window.max_input_tokens, window.max_output_tokens, window.truncate)
}

/// The train split as tokens; objective joint or lm with no explanation at all is refused.
fn encode(config: &Config, inputs: &Inputs, prompter: &Prompter) -> Result<Vec<Example>> {
    let objective = config.train.objective;
    if objective != Objective::Cls && inputs.train.iter().all(|record| record.explanation.is_none()) {
        let message =
            format!("no record of {} has an explanation, and train.objective needs them", inputs.train_path.display());
        return Err(Error::usage(message)
            .hint("run `clsgen construct` first, map data.fields.explanation, or set train.objective = \"cls\""));
    }
    let (examples, found) =
        examples::encode(prompter, &inputs.train, objective).map_err(|e| e.context(inputs.source().display()))?;
    if found.unexplained > 0 && objective != Objective::Cls {
        let fate = if objective == Objective::Lm { "left out" } else { "trained on their label alone" };
        tracing::warn!("{} of {} records have no explanation: {fate}", found.unexplained, inputs.train.len());
    }
    if found.truncated_prompts > 0 {
        tracing::warn!(
            "{} of {} documents are longer than the window and were cut",
            found.truncated_prompts,
            examples.len()
        );
    }
    if found.truncated_targets > 0 {
        tracing::warn!("{} explanations are longer than model.max_output_tokens and were cut", found.truncated_targets);
    }
    Ok(examples)
}

/// Where the consistency loss reads the LM's answer, if it is trained.
fn label_tokens(
    config: &Config,
    inputs: &Inputs,
    prompter: &Prompter,
    examples: &[Example],
) -> Result<Option<Arc<LabelTokens>>> {
    if config.train.w_consistency == 0.0 {
        return Ok(None);
    }
    let tokens = LabelTokens::new(prompter)?;
    tokens.check(examples).map_err(|e| e.context(inputs.source().display()))?;
    Ok(Some(Arc::new(tokens)))
}

/// What each class counts in the loss, and which records an epoch draws, where that is not every one alike.
fn class_balance(
    config: &Config,
    examples: &[Example],
) -> Result<(Option<Arc<ClassBalance>>, Option<BalancedSampler>)> {
    let classes: Vec<u32> = examples.iter().map(|example| example.class).collect();
    let count = config.task.labels.count();
    // No loss reads the logits of a head that is not trained.
    let balance =
        ClassBalance::new(&config.train, &classes, count)?.filter(|_| config.train.objective != Objective::Lm);
    let balanced = config.train.sample == EpochSample::Balanced;
    let sampler = balanced.then(|| BalancedSampler::new(&classes, count)).transpose()?;
    if let Some(sampler) = &sampler {
        let draws: Vec<String> = (0..count).map(|class| sampler.draws(class).to_string()).collect();
        tracing::info!("train.sample = \"balanced\": an epoch draws {} records, by class", draws.join(", "));
    }
    if let Some(balance) = &balance {
        let offsets: Vec<String> = balance.offsets.iter().map(|offset| format!("{offset:.3}")).collect();
        tracing::info!("the classification loss adds {} to the logits, by class", offsets.join(", "));
    }
    Ok((balance.map(Arc::new), sampler))
}

fn announce(inputs: &Inputs, plan: &BatchPlan, largest: Largest) {
    tracing::info!(
        "{} records, {} steps an epoch of {} records, {} steps in all; longest micro-batch {} tokens",
        plan.records,
        plan.steps_per_epoch(),
        plan.group_size(),
        plan.total_steps(),
        largest.rows
    );
    for line in &inputs.leakage {
        tracing::warn!("{line}");
    }
}

fn trainer(
    context: &Context,
    model: Model,
    plan: BatchPlan,
    (label_tokens, class_balance): (Option<Arc<LabelTokens>>, Option<Arc<ClassBalance>>),
    largest: Largest,
    resume: Option<&Resumable>,
    device: &Device,
) -> Result<Trainer> {
    let settings = &context.config.train;
    let weights = LossWeights {
        objective: settings.objective,
        generation: settings.w_gen,
        classification: settings.w_cls,
        consistency: settings.w_consistency,
        prompt: settings.prompt_loss_weight,
    };
    let mut parameters = model.trainable(settings.parameters)?;
    if !weights.trains_classification() {
        parameters.retain(|name, _| !name.starts_with("cls_head."));
    }
    let mut optimizer = Optimizer::new(parameters, settings)?;
    if let Some(resume) = resume {
        optimizer.restore(checkpoint::read_moments(&resume.path, device)?)?;
    }
    let ranks = context.ranks.clone();
    // Every rank's weights are in memory by now, and counted in what is free.
    ranks.agree(Ok(()))?;
    let beside = model.llama.rounded_bytes() + memory::tied_gradient_bytes(&model.llama.config, settings.parameters);
    let fixed = memory::gradient_bytes(&optimizer, ranks.size(), device) + beside;
    let held = memory::held_bytes(&model, &optimizer, settings.parameters);
    let free = cuda::memory_available(device);
    let memory = memory::plan(&model, held, fixed, settings.activation_memory, largest, free)?;
    let total = plan.total_steps();
    if settings.warmup_steps >= total {
        tracing::warn!(
            "train.warmup_steps = {} and the run has {total} steps: it ends before the learning rate reaches \
            train.learning_rate",
            settings.warmup_steps
        );
    }
    let end = [settings.w_gen_end.unwrap_or(settings.w_gen), settings.w_cls_end.unwrap_or(settings.w_cls)];
    let parameters = settings.parameters;
    let label_smoothing = settings.label_smoothing;
    let dropout = Some(context.seed);
    Ok(Trainer {
        model,
        optimizer,
        plan,
        schedule: LinearSchedule { peak: settings.learning_rate, warmup: settings.warmup_steps, total },
        weight_schedule: WeightSchedule { end: (settings.loss_schedule == LossSchedule::Linear).then_some(end), total },
        pass: StepSettings { weights, parameters, label_smoothing, class_balance, label_tokens, memory, dropout },
        ranks,
    })
}

/// The dev split, scored whole after each epoch; its records are taken from `inputs`.
fn dev(context: &Context, inputs: &mut Inputs, prompter: &Prompter) -> Result<Option<Dev>> {
    let config = &context.config;
    let Some((records, (path, _))) = inputs.dev.take().zip(inputs.dev_source.as_ref()) else { return Ok(None) };
    let settings = predict::PredictSettings {
        sampling: Sampling {
            temperature: config.generate.temperature,
            top_p: config.generate.top_p,
            seed: context.seed,
        },
        max_new_tokens: config.model.max_output_tokens,
        explanation: true,
        constrain: config.generate.constrain,
        // Dev's texts are looked through by eval, where it is asked to.
        evidence: false,
        batch_tokens: config.generate.batch_tokens,
    };
    Dev::new(prompter, &records, config.train.objective, config.task.ordinal, settings)
        .map(Some)
        .context(path.display())
}

fn clsgen_json(config: &Config, inputs: &Inputs, base: &FoundBase, head_trained: bool) -> Result<ClsgenJson> {
    // A path is stored whole, so that the checkpoint finds its base from anywhere; a hub id stays one.
    let local = config.resolve(Path::new(&config.model.base)).exists();
    // Links stay as named: a `.gguf` file's name is part of its hash.
    let base_model = match std::path::absolute(&base.source.path) {
        Ok(path) if local => path.display().to_string(),
        _ => config.model.base.clone(),
    };
    Ok(ClsgenJson {
        schema: 1,
        base_model,
        base_hash: Some(base.hash.clone()),
        tokenizer_hash: Some(base.tokenizer.hash().to_owned()),
        labels: config.task.labels.clone(),
        prompt: serde_json::to_value(&inputs.template)
            .map_err(|e| Error::usage(format!("the prompt cannot be stored: {e}")))?,
        head: config.head.clone(),
        max_input_tokens: config.model.max_input_tokens,
        max_output_tokens: config.model.max_output_tokens,
        truncate: config.model.truncate,
        quantize: config.model.quantize,
        complete: true,
        head_trained,
        clsgen_version: env!("CARGO_PKG_VERSION").into(),
    })
}

/// The best checkpoint's path on stdout; the whole of `best.json` under `--json`.
fn print_best(context: &Context, best: &Best) -> Result<()> {
    if context.json {
        let json = serde_json::to_string(best).map_err(|e| Error::run(format!("cannot write JSON: {e}")))?;
        return output::line(&json);
    }
    output::line(&context.run_dir.join(&best.path).display().to_string())
}
