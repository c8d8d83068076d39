//! `clsgen demo`: the paper's whole idea on synthetic notes and the embedded model, in minutes, on a CPU.
//!
//! ```text
//! notes with known risk ─▶ construct (Algorithm 1) ─▶ train ─▶ eval, before and after ─▶ predict new notes ─▶ one table
//! ```
//!
//! It calls the very commands a user would, on files that it leaves in DIR as a worked example: `DIR/demo.toml` is a
//! config to go on with.

mod notes;
mod pretrain;
mod summary;

use std::path::Path;

use super::{
    Context,
    args::{DemoArgs, EvalArgs, PredictArgs, TrainArgs},
    construct, eval, output, predict, train,
};
use crate::{
    config, demo,
    error::{Error, Result},
    storage,
};

/// Notes when `--notes` is not given: 800 to train on, 400 for dev, 400 for test.
const NOTES: u64 = 1600;
/// Fewest notes that give every split both classes, with room.
const FEWEST: u64 = 40;

/// Runs the command.
pub fn run(context: &Context, args: &DemoArgs) -> Result<()> {
    if let Some(dir) = &args.pretrain {
        return pretrain::run(context, dir, args.notes.map(u64::from));
    }
    let (demo, notes) = prepare(context, args)?;
    go(context, &demo, notes).map_err(|error| match output::is_stop(&error) {
        // The commands' own advice is for those who gave them one by one.
        true => error.hint("the same `clsgen demo` command goes on where this one stopped"),
        false => error,
    })
}

/// The commands, one after another.
fn go(context: &Context, demo: &Context, notes: u64) -> Result<()> {
    let dir = demo.run_dir.as_path();

    step(context, "1/4 construct: the teacher explains the train notes, five trials each (Algorithm 1)");
    let constructed = construct::execute(demo)?;

    step(context, "2/4 train: LoRA and head, dev scored after each epoch");
    train::execute(demo, &TrainArgs { resume: dir.join("checkpoints").is_dir() })?;

    step(context, "3/4 eval: the test notes, before and after tuning");
    let asked = EvalArgs { split: "test".into(), curve: true, compare_base: true, include_text: true, ..EvalArgs::default() };
    let scored = eval::execute(demo, &asked)?.ok_or_else(|| Error::run("nothing was scored"))?;

    step(context, "4/4 predict: notes without a label");
    let (input, output) = (dir.join("data").join("new.jsonl"), dir.join("predictions.jsonl"));
    predict::run(demo, &PredictArgs { model: dir.to_owned(), input: input.clone(), output: output.clone(), ..PredictArgs::default() })?;

    summary::Summary {
        context: demo,
        constructed: construct::statistics(&constructed, "train")?,
        scored,
        test: notes::test_split(context.seed, notes),
        input: &input,
        output: &output,
    }
    .print()
}

/// Files of the demonstration, and the context that its commands run in.
fn prepare(context: &Context, args: &DemoArgs) -> Result<(Context, u64)> {
    if context.config_path.is_some() {
        return Err(Error::usage("`clsgen demo` brings its own config").hint("leave --config out; --set changes single keys"));
    }
    let notes = args.notes.map_or(NOTES, u64::from);
    if notes < FEWEST {
        return Err(Error::usage(format!("--notes {notes}: a demonstration takes {FEWEST} or more")).hint("the default is 1600"));
    }
    let dir = args.out.clone().unwrap_or_else(|| Path::new("runs").join("demo"));
    storage::create_dir_all(&dir.join("prompts"))?;
    let config_path = dir.join("demo.toml");
    let objective = format!("objective = \"{}\"", args.objective);
    notes::write_once(&config_path, demo::CONFIG.replace("objective = \"joint\"", &objective).as_bytes())?;
    let (name, prompt) = demo::PROMPT;
    storage::write_file_atomic(&dir.join("prompts").join(name), prompt.as_bytes())?;
    demo::write_model(&dir.join("model"))?;
    notes::write(&dir.join("data"), context.seed, notes)?;
    let mut config = config::load(Some(&config_path), &context.sets)?;
    config.train.seed = context.seed;
    Ok((Context { config, config_path: Some(config_path), run_dir: dir, ..context.clone() }, notes))
}

fn step(context: &Context, what: &str) {
    if !context.quiet {
        tracing::info!("── {what}");
    }
}
