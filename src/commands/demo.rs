//! `clsgen demo`: the paper's whole idea on synthetic notes and the embedded model, in minutes, on a CPU.
//!
//! ```text
//! notes with known risk ─▶ construct (Algorithm 1) ─▶ train ─▶ eval ─▶ predict ─▶ table
//! ```
//!
//! It calls the very commands a user would, on files that it leaves in DIR as a worked example: `DIR/demo.toml` is a
//! config to go on with.

mod notes;
mod pretrain;
mod summary;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    Context,
    args::{DemoArgs, EvalArgs, PredictArgs, TrainArgs},
    construct,
    dry_run::{Plan, print_config},
    eval, output, predict, run_record, train,
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
    if context.dry_run {
        return dry_run(context, args);
    }
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
    let constructed = recorded(demo, construct::execute)?;

    step(context, "2/4 train: LoRA and head, dev scored after each epoch");
    recorded(demo, |demo| train::execute(demo, &TrainArgs { resume: dir.join("checkpoints").is_dir(), assume: None }))?;

    step(context, "3/4 eval: the test notes, before and after tuning");
    let asked =
        EvalArgs { split: "test".into(), curve: true, compare_base: true, include_text: true, ..EvalArgs::default() };
    let scored =
        recorded(demo, |demo| eval::execute(demo, &asked, None))?.ok_or_else(|| Error::run("nothing was scored"))?;

    step(context, "4/4 predict: notes without a label");
    let input = dir.join("data").join("new.jsonl");
    let output = dir.join("predictions.jsonl");
    // One document a command: what predict would say is in the summary.
    let silent = Context { json: false, ..demo.clone() };
    predict::run(
        &silent,
        &PredictArgs { model: dir.to_owned(), input: input.clone(), output: output.clone(), ..PredictArgs::default() },
    )?;

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

/// What is asked for, checked: how many notes, and the directory.
fn asked(context: &Context, args: &DemoArgs) -> Result<(u64, PathBuf)> {
    if context.config_path.is_some() {
        return Err(
            Error::usage("`clsgen demo` brings its own config").hint("leave --config out; --set changes single keys")
        );
    }
    let notes = args.notes.map_or(NOTES, u64::from);
    if notes < FEWEST {
        return Err(Error::usage(format!("--notes {notes}: a demonstration takes {FEWEST} or more"))
            .hint("the default is 1600"));
    }
    Ok((notes, args.out.clone().unwrap_or_else(|| Path::new("runs").join("demo"))))
}

/// The text of `DIR/demo.toml`.
fn config_text(args: &DemoArgs) -> String {
    demo::CONFIG.replace("objective = \"joint\"", &format!("objective = \"{}\"", args.objective))
}

/// What a demonstration would make: its config is checked without being written.
fn dry_run(context: &Context, args: &DemoArgs) -> Result<()> {
    let (text, run_dir, notes, steps) = match &args.pretrain {
        Some(dir) => {
            let notes = args.notes.map_or(pretrain::NOTES, u64::from);
            (demo::PRETRAIN_CONFIG.to_owned(), dir.join("run"), notes, "train from a random start, export the model")
        }
        None => {
            let (notes, dir) = asked(context, args)?;
            notes::check_once(&dir.join("demo.toml"), config_text(args).as_bytes())?;
            (config_text(args), dir, notes, "construct, train, eval, predict")
        }
    };
    let mut config = config::parse("demo.toml", &text, &context.sets)?;
    if args.pretrain.is_none() {
        config.train.seed = context.seed;
    }
    let context = Context { config, run_dir, ..context.clone() };
    if !context.json {
        print_config(&context)?;
    }
    Plan::new(&context, "demo").with("synthetic notes", notes).with("steps", steps).print(&context)
}

/// Runs a command of the demonstration; `run.json` says when it began and how it ended.
fn recorded<T>(demo: &Context, command: impl FnOnce(&Context) -> Result<T>) -> Result<T> {
    let context = Context { started: SystemTime::now(), ..demo.clone() };
    let result = command(&context);
    // What the command itself says comes first.
    let recorded = run_record::finish(&result);
    result.and_then(|value| recorded.map(|()| value))
}

/// Files of the demonstration, and the context that its commands run in.
fn prepare(context: &Context, args: &DemoArgs) -> Result<(Context, u64)> {
    let (notes, dir) = asked(context, args)?;
    storage::create_dir_all(&dir.join("prompts"))?;
    let config_path = dir.join("demo.toml");
    notes::write_once(&config_path, config_text(args).as_bytes())?;
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
