//! The model that training starts from: fresh adapters and head, those of `train.init_from`, or where a resume left
//! off.

use std::path::{Path, PathBuf};

use candle_core::Device;

use super::base::FoundBase;
use crate::{
    commands::Context,
    config::{Init, Objective, Parameters},
    error::{Error, Result},
    generate::scoring,
    model::{
        ClsHead, Llama, Model,
        adapter::LoraConfig,
        carries_adapter,
        checkpoint::{self, BaseLookup, ClsgenJson},
        peft,
    },
    storage,
    train::checkpoint::Resumable,
};

/// Base, adapters and head; and whether the head is trained, by this run or by one that it starts from. `start_hash` is
/// the hash by which the run records the checkpoint of `train.init_from`.
pub(super) fn model(
    context: &Context,
    base: &FoundBase,
    resume: Option<&Resumable>,
    start_hash: Option<&str>,
) -> Result<(Model, bool)> {
    let config = &context.config;
    let from = resume.map(|resume| resume.path.clone()).or_else(|| init_from(context));
    let (mut model, head_trained) = match from {
        None => (fresh(context, base)?, false),
        Some(dir) => {
            // `init_from` may lie in a run that is still training.
            storage::read_unchanged(&dir, |dir| {
                let info = check_shape(context, dir, base)?;
                if resume.is_none() && start_hash != Some(scoring::checkpoint_hash(dir)?.as_str()) {
                    return Err(replaced(dir));
                }
                Ok((stored(context, dir, base)?, info.head_trained))
            })?
        }
    };
    // Dropout is a setting of this run, whatever the checkpoint was trained with.
    model.head.dropout = config.head.dropout;
    model.llama.set_lora_dropout(config.lora.dropout);
    Ok((model, head_trained || config.train.objective != Objective::Lm))
}

/// The run would record another start than it had.
fn replaced(dir: &Path) -> Error {
    Error::model(format!("train.init_from: {} was replaced while this run was being prepared", dir.display()))
        .hint("start again, from a checkpoint that stays, such as RUN/checkpoints/epoch-01")
}

fn init_from(context: &Context) -> Option<PathBuf> {
    let config = &context.config;
    config.train.init_from.as_ref().map(|dir| config.resolve(dir))
}

/// Whether `train.init_from` can be started from, as far as can be told without its weights: for a dry run.
pub(super) fn check(context: &Context, base: &FoundBase) -> Result<()> {
    let check = |dir: PathBuf| storage::read_unchanged(&dir, |dir| check_shape(context, dir, base).map(drop));
    init_from(context).map_or(Ok(()), check)
}

fn fresh(context: &Context, base: &FoundBase) -> Result<Model> {
    let config = &context.config;
    let FoundBase { source, llama_config, precision, device, .. } = base;
    let mut llama = match config.train.init {
        Init::Pretrained => Llama::load(source, *precision, device)?,
        Init::Random => Llama::random(llama_config.clone(), precision.dtype, context.seed, device)?,
    };
    if config.train.parameters == Parameters::Lora {
        llama.add_lora(&LoraConfig::from(&config.lora), context.seed)?;
    }
    let head = head(context, llama.config.hidden_size, device)?;
    Ok(Model::new(llama, head))
}

/// The head of this task as it is drawn.
fn head(context: &Context, hidden_size: usize, device: &Device) -> Result<ClsHead> {
    let shape = &context.config.head;
    let classes = context.config.task.labels.count();
    ClsHead::new(hidden_size, shape.hidden, classes, shape.activation, shape.dropout, context.seed, device)
}

fn stored(context: &Context, dir: &Path, base: &FoundBase) -> Result<Model> {
    let FoundBase { source, precision, device, .. } = base;
    if context.config.train.parameters == Parameters::Full {
        // Such a checkpoint is a whole model folder, or an adapter over this base, which cannot be trained in full.
        let lookup =
            BaseLookup { base: Some(&context.config.model.base), search: &[&context.config.dir], allow_network: false };
        return Ok(checkpoint::load_model(dir, lookup, *precision, device)?.model);
    }
    let llama = Llama::load(source, *precision, device)?;
    let head = head(context, llama.config.hidden_size, device)?;
    let mut model = Model::new(llama, head);
    checkpoint::load_into(&mut model, dir)?;
    Ok(model)
}

/// A checkpoint of other labels (exit 2), or of another base, rank or head (exit 4), cannot be gone on with under this
/// config: told before the base is read. Returns what the checkpoint says of itself.
fn check_shape(context: &Context, dir: &Path, base: &FoundBase) -> Result<ClsgenJson> {
    let config = &context.config;
    let info = checkpoint::read_info(dir)?;
    if info.labels.count() == config.task.labels.count() && info.labels != config.task.labels {
        return Err(Error::usage(format!(
            "{}: its labels are {:?}, task.labels is {:?}",
            dir.display(),
            &info.labels[..],
            &config.task.labels[..]
        ))
        .hint("make task.labels those of the checkpoint: its head and its answers know the classes by them"));
    }
    let mut differing = Vec::new();
    if info.base_hash.as_deref().is_some_and(|hash| hash != base.hash) {
        differing.push("its base model is not the one model.base names".to_owned());
    }
    if info.tokenizer_hash.as_deref().is_some_and(|hash| hash != base.tokenizer.hash()) {
        differing.push("its tokenizer, chat template or generation_config is not the one in model.base".to_owned());
    }
    if (info.head.hidden, info.head.activation) != (config.head.hidden, config.head.activation) {
        differing.push(format!(
            "its head is {} {:?}, head.hidden is {} and head.activation {:?}",
            info.head.hidden, info.head.activation, config.head.hidden, config.head.activation
        ));
    }
    if info.labels.count() != config.task.labels.count() {
        differing.push(format!(
            "its head has {} classes, task.labels names {}",
            info.labels.count(),
            config.task.labels.count()
        ));
    }
    if config.train.parameters == Parameters::Full && dir.join(peft::CONFIG).is_file() {
        return Err(carries_adapter().context(dir.display()));
    }
    if config.train.parameters == Parameters::Lora {
        let theirs = peft::read_config(dir)?;
        let ours = LoraConfig::from(&config.lora);
        let targets = |lora: &LoraConfig| lora.targets.iter().cloned().collect::<std::collections::BTreeSet<_>>();
        if (theirs.rank, theirs.alpha, targets(&theirs)) != (ours.rank, ours.alpha, targets(&ours)) {
            differing.push(format!(
                "its adapter has rank {}, alpha {}, targets {:?}; [lora] says otherwise",
                theirs.rank, theirs.alpha, theirs.targets
            ));
        }
    }
    if differing.is_empty() {
        Ok(info)
    } else {
        Err(Error::model(format!("{}: {}", dir.display(), differing.join("; ")))
            .hint("make task.labels, [lora], [head] and model.base those of the checkpoint"))
    }
}
