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
    dry_run::{DryRunReport, print_config},
    eval, output, predict, run_json, train,
};
use crate::{
    config, demo,
    error::{Error, Result},
    signals::stoppable,
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
        return pretrain::run(context, dir, args.notes.map(u64::from)).map_err(same_again);
    }
    let (demo, notes) = prepare(context, args)?;
    go(context, &demo, notes).map_err(same_again)
}

/// The hint of a demonstration that was stopped: the commands' own is for those who gave them one by one.
fn same_again(error: Error) -> Error {
    if output::is_stop(&error) {
        error.hint("the same `clsgen demo` command goes on where this one stopped")
    } else {
        error
    }
}

/// The commands, one after another.
fn go(context: &Context, demo: &Context, notes: u64) -> Result<()> {
    let dir = demo.run_dir.as_path();

    step(context, "1/4 construct: the teacher explains the train notes, five trials each (Algorithm 1)");
    let constructed = recorded(demo, construct::execute)?;

    step(context, "2/4 train: LoRA and head, dev scored after each epoch");
    recorded(demo, |demo| train::execute(demo, &TrainArgs { resume: dir.join("checkpoints").is_dir(), assume: None }))?;

    step(context, "3/4 eval: the test notes, before and after tuning");
    let asked = EvalArgs { curve: true, compare_base: true, include_text: true, ..EvalArgs::default() };
    let scored = recorded(demo, |demo| stoppable(|| eval::execute(demo, &asked, None)))?
        .ok_or_else(|| Error::run("nothing was scored"))?;

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
            pretrain::config(context)?;
            pretrain::check_model(dir)?;
            notes::check_once(&pretrain::settings(dir))?;
            (demo::PRETRAIN_CONFIG.to_owned(), dir.join("run"), notes, "train from a random start, export the model")
        }
        None => {
            let (notes, dir) = asked(context, args)?;
            notes::check_once(&files(context, args, &dir, notes)?)?;
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
    DryRunReport::new(&context, "demo").with("synthetic notes", notes).with("steps", steps).print(&context)
}

/// Runs a command of the demonstration; `run.json` says when it began and how it ended.
fn recorded<T>(demo: &Context, command: impl FnOnce(&Context) -> Result<T>) -> Result<T> {
    let context = Context { started: SystemTime::now(), ..demo.clone() };
    let result = command(&context);
    // What the command itself says comes first.
    let recorded = run_json::finish(&result);
    result.and_then(|value| recorded.map(|()| value))
}

/// Config, prompt, model and notes. Those that are there already must be the same: a directory holds one demonstration,
/// and nothing of the user's is replaced.
fn files(context: &Context, args: &DemoArgs, dir: &Path, notes: u64) -> Result<Vec<notes::DemoFile>> {
    let (prompt, text) = demo::PROMPT;
    let mut files = vec![
        (dir.join("demo.toml"), config_text(args).into_bytes()),
        (dir.join("prompts").join(prompt), text.as_bytes().to_vec()),
    ];
    files.extend(demo::model_files()?.into_iter().map(|(name, bytes)| (dir.join("model").join(name), bytes)));
    files.extend(notes::files(&dir.join("data"), context.seed, notes)?);
    Ok(files)
}

/// Writes the files of the demonstration; the context that its commands run in.
fn prepare(context: &Context, args: &DemoArgs) -> Result<(Context, u64)> {
    let (notes, dir) = asked(context, args)?;
    notes::write_once(&files(context, args, &dir, notes)?)?;
    let config_path = dir.join("demo.toml");
    let mut config = config::load(Some(&config_path), &context.sets)?;
    config.train.seed = context.seed;
    Ok((Context { config, config_path: Some(config_path), run_dir: dir, ..context.clone() }, notes))
}

fn step(context: &Context, what: &str) {
    if !context.quiet {
        tracing::info!("── {what}");
    }
}
