//! The command line: clap structs, and the one place where they become a [`Context`]. Layer 7.

use std::{io::Write, panic::AssertUnwindSafe, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    commands::{self, Context, args, output, ranks},
    config, device,
    error::{Error, Kind, Result},
    foreign,
    model::source,
    ops::cpu::allocator,
    parallel::{self, Collective},
    shard, signals,
    storage::run_record,
};

const EXAMPLES: &str = "\
Examples:
  clsgen demo
  clsgen train --config configs/clinifact.toml --dry-run
  clsgen construct --config configs/clinifact.toml
  clsgen train --config configs/clinifact.toml
  clsgen eval --config configs/clinifact.toml
  clsgen predict --model runs/clinifact --input notes.jsonl --output out.jsonl

Exit codes:
  0        ok
  1        the run failed, or a gate was not met
  2        usage or config
  3        input data
  4        model or checkpoint files
  5        resources: memory, disk, device
  128+n    stopped by signal n, state saved and resumable: HUP 129, INT 130,
           USR1 138, USR2 140, TERM 143, XCPU 152

Data goes to stdout, messages to stderr. No text of a record is ever logged.";

const DEMO_EXAMPLES: &str = "\
Examples:
  clsgen demo
  clsgen demo --out runs/collapse --objective cls
  clsgen demo --pretrain runs/pretrain

Synthetic notes with a known risk, so the best reachable AUROC is known too.
No patient's data, no network. DIR afterwards holds a config, data and model
to go on with, for instance to train on the explanations made there:
  clsgen train --config DIR/demo.toml --run runs/mine \\
      --set data.train=construct/train.jsonl";

const CONSTRUCT_EXAMPLES: &str = "\
Examples:
  clsgen construct --config configs/clinifact.toml
  clsgen construct --config configs/clinifact.toml --shard 2/8
  clsgen construct --config configs/clinifact.toml --merge

Writes RUN/construct/SPLIT.jsonl, stats.json (Table 7) and dropped.jsonl. With
--shard I/N one process makes SPLIT.part-I-of-N.jsonl, while others make the
other parts in the same RUN; --merge then writes what one process would have.
Stopped half-way, it goes on when the same command is given again.

The teacher may be on a server (construct.teacher=http://HOST:PORT/v1 and
construct.teacher_name, under --allow-network), or offline: --batch-out writes
requests for vllm run-batch, --batch-in reads its answers.";

const TRAIN_EXAMPLES: &str = "\
Examples:
  clsgen construct --config configs/clinifact.toml
  clsgen train --config configs/clinifact.toml
  clsgen train --config configs/clinifact.toml --resume
  clsgen train --config configs/lcd30.toml --set model.base=/models/llama-3.1-8b

Trains on what construct made in the same run directory, else on data.train,
whose records then hold explanations (or --set train.objective=cls).
Writes RUN/checkpoints/epoch-NN/, RUN/best.json, RUN/metrics.jsonl and
TensorBoard events. Ctrl-C saves and stops; --resume goes on from there. So do
SIGTERM, SIGUSR1, SIGUSR2, SIGHUP and SIGXCPU (Slurm: --signal=USR1@300);
a second signal stops at once.

Over several GPUs, by a build with --features mpi; scripts for Slurm lie in
configs/slurm:
  mpirun -n 4 clsgen train --config configs/lcd30.toml";

const EVAL_EXAMPLES: &str = "\
Examples:
  clsgen eval --config configs/clinifact.toml
  clsgen eval --config configs/clinifact.toml --split dev
  clsgen eval --predictions test.jsonl --dev-predictions dev.jsonl --json
  clsgen eval --config configs/clinifact.toml --curve --card --include-text
  clsgen eval --config configs/clinifact.toml --baselines verbalized,label

Thresholds and calibrators are fitted on dev and frozen before test is read.
Writes RUN/eval/SPLIT/ (`predictions` for --predictions): metrics.json, tables/,
figures/, report.html; under --card model-card.md and tripod-llm.md too. Other
settings than a folder's need --overwrite.";

const PREDICT_EXAMPLES: &str = "\
Examples:
  clsgen predict --model runs/clinifact --input notes.jsonl --output out.jsonl
  clsgen predict --model runs/lcd30/checkpoints/epoch-03 --input notes.csv \\
      --output - --set data.fields.text=note
  cat notes.jsonl | clsgen predict --model runs/lcd30 --input - --output -
  clsgen predict --model runs/lcd30 --input notes.jsonl --output part-2.jsonl \\
      --shard 2/8

The parts 1/8 to 8/8, one after another, are the whole output: on a CPU byte
for byte, on GPUs with numbers within rounding. So is the output of several
GPUs, by a build with --features mpi:
  mpirun -n 4 clsgen predict --model runs/lcd30 --input notes.jsonl \\
      --output out.jsonl
Stopped half-way, a prediction goes on when the same command is given again.";

/// Fine-tune a Llama-architecture model so that one pass over a document gives a probability, and the same model writes
/// the explanation (CLSGen, arXiv 2604.11801).
#[derive(Debug, Parser)]
#[command(name = "clsgen", version, after_help = EXAMPLES, arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Config file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key of the config, as if the file said so (repeatable)
    #[arg(long, global = true, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Run directory [default: runs/<task.name>]
    #[arg(long, global = true, value_name = "DIR")]
    run: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, global = true, value_name = "DEVICE", default_value = "auto", value_parser = parse_device)]
    device: String,
    /// Worker threads [default: one a core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// Seed of everything random [default: train.seed]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Part I of N of the records, for predict and construct (auto: by the Slurm array task)
    #[arg(long, global = true, value_name = "I/N")]
    shard: Option<shard::ShardArgument>,
    /// Results on stdout as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Warnings and errors only
    #[arg(long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// More messages (-vv: more still)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Check everything, print the resolved config and the plan, write nothing
    #[arg(long, global = true)]
    dry_run: bool,
    /// Let models be downloaded and servers be asked (otherwise only local files are opened)
    #[arg(long, global = true)]
    allow_network: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole pipeline on synthetic notes and the embedded tiny model
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(args::DemoArgs),
    /// Let a teacher explain the records (Algorithm 1)
    #[command(after_help = CONSTRUCT_EXAMPLES)]
    Construct(args::ConstructArgs),
    /// Fine-tune: probability and explanation together
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(args::TrainArgs),
    /// Score a run, or prediction files
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(args::EvalArgs),
    /// Predict a file of records
    #[command(after_help = PREDICT_EXAMPLES)]
    Predict(args::PredictArgs),
    /// Merge a checkpoint into one Hugging Face folder
    #[command(after_help = args::EXPORT_EXAMPLES)]
    Export(args::ExportArgs),
    /// Make the records of a benchmark out of its source
    #[command(subcommand)]
    Data(DataCommand),
    /// Check every op, forward and backward, against its reference on the device
    Selftest(args::SelftestArgs),
    /// Print shell completions
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page (roff)
    Man,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// The LCD benchmark out of MIMIC-IV-Note 2.2
    #[command(after_help = args::LCD_EXAMPLES)]
    Lcd(args::LcdArgs),
}

fn parse_device(text: &str) -> Result<String, String> {
    device::parse(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// Parses the command line, runs the command, and maps what came of it to messages and an exit code.
pub fn main() -> ExitCode {
    signals::outlive_file_limit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ranks = match join(&cli.command) {
        Ok(ranks) => ranks,
        Err(error) => return report(&error),
    };
    commands::logging::start(&ranks, cli.global.quiet, cli.global.verbose);
    // A panic is a defect of ours; its hook has already said where. It must not look like success.
    let Ok(result) = std::panic::catch_unwind(AssertUnwindSafe(|| run(&cli, &ranks))) else {
        signals::claim_the_end();
        let _ = run_record::complete(1, "ended by an internal error");
        ranks.abort(1);
        return ExitCode::from(1);
    };
    // What one rank failed at is every rank's error by now, and rank 0 says it.
    let result = ranks.close(result);
    signals::claim_the_end();
    // The command's own failure matters more than one to note it.
    let noted = run_record::finish(&result);
    let code = match result.and(noted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if ranks.is_root() => report(&error),
        Err(error) => ExitCode::from(error.exit_code()),
    };
    ranks.leave();
    code
}

/// The ranks that a command was started on; only what writes nothing of a run may be started on any.
fn join(command: &Command) -> Result<Collective> {
    match command {
        Command::Train(_) => Collective::join("train", true),
        Command::Demo(_) => Collective::join("demo", false),
        Command::Construct(_) => Collective::join("construct", true),
        Command::Eval(_) => Collective::join("eval", true),
        Command::Predict(_) => Collective::join("predict", true),
        Command::Data(_) | Command::Export(_) | Command::Selftest(_) | Command::Completions { .. } | Command::Man => {
            Ok(Collective::one())
        }
    }
}

/// `error: …` and `hint: …` on stderr; a reader that closed our stdout hears nothing.
fn report(error: &Error) -> ExitCode {
    if error.kind() != Kind::Signal(output::SIGPIPE) {
        let rank = parallel::prefix();
        let hint = error.hint_text().or_else(|| error.general_hint());
        let hint = hint.map(|hint| format!("{rank}hint: {hint}\n")).unwrap_or_default();
        let told = format!("{rank}error: {error}\n{hint}");
        // In one piece: ranks share a terminal. Names of files and tensors are not its commands.
        let _ = std::io::stderr().write_all(foreign::printable(&told).as_bytes());
    }
    ExitCode::from(error.exit_code())
}

fn run(cli: &Cli, ranks: &Collective) -> Result<()> {
    match &cli.command {
        Command::Completions { shell } => return completions(*shell),
        Command::Man => return commands::man::print(Cli::command()),
        _ => {}
    }
    let context = context(&cli.global, ranks)?;
    if context.shard.is_some() && !matches!(cli.command, Command::Predict(_) | Command::Construct(_)) {
        return Err(
            Error::usage("--shard takes a part of the records of predict and construct alone").hint("leave it out")
        );
    }
    if let (Command::Demo(_), Some(dir)) = (&cli.command, &cli.global.run) {
        return Err(Error::usage("`clsgen demo` takes its run directory by --out, not by --run")
            .hint(format!("clsgen demo --out {}", dir.display())));
    }
    if context.dry_run {
        return dry_run(&cli.command, &context);
    }
    allocator::keep_freed_memory();
    signals::watch_signals(|signal| {
        let _ = run_record::complete(128 + signal as u8, &format!("ended by a second signal, {signal}"));
    })?;
    device::on_a_worker(|| run_command(&cli.command, &context))
}

/// The config, then the command's own checks and its plan. Where neither config nor model is named there is nothing to
/// check.
fn dry_run(command: &Command, context: &Context) -> Result<()> {
    let unnamed = context.config_path.is_none() && context.config.model.base.is_empty();
    let alone = unnamed && matches!(command, Command::Train(_) | Command::Construct(_));
    // Under `--json` the plan and the config are one document; `demo` brings a config of its own, `data` reads none.
    if alone || !(context.json || matches!(command, Command::Demo(_) | Command::Data(_))) {
        commands::dry_run::print_config(context)?;
    }
    if alone { Ok(()) } else { device::on_a_worker(|| run_command(command, context)) }
}

fn run_command(command: &Command, context: &Context) -> Result<()> {
    match command {
        Command::Demo(args) => commands::demo::run(context, args),
        Command::Construct(args) => ranks::share(context, args, || commands::construct::run(context, args)),
        Command::Train(args) => commands::train::run(context, args),
        Command::Eval(args) => ranks::share(context, args, || commands::eval::run(context, args)),
        Command::Predict(args) => ranks::share(context, args, || commands::predict::run(context, args)),
        Command::Export(args) => commands::export::run(context, args),
        Command::Data(DataCommand::Lcd(args)) => commands::lcd::run(context, args),
        Command::Selftest(args) => commands::selftest::run(context, args),
        Command::Completions { .. } | Command::Man => Ok(()),
    }
}

fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "clsgen", &mut script);
    output::write(&script)
}

/// Resolves the global flags: config file, then `--set`, then `--seed`; defaults of the rest.
fn context(global: &Global, ranks: &Collective) -> Result<Context> {
    let mut config = config::load(global.config.as_deref(), &global.set)?;
    // Whatever the command reads of it: no option replaces what it names.
    config.named_paths().iter().chain(&global.config).for_each(|path| source::protect(path));
    if let Some(seed) = global.seed {
        config.train.seed = seed;
    }
    device::share_memory(ranks.on_this_host());
    let seed_set = global.seed.map(|seed| format!("train.seed={seed}"));
    Ok(Context {
        seed: config.train.seed,
        shard: global.shard.map(shard::ShardArgument::resolve).transpose()?,
        run_dir: global.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(&config.task.name)),
        config,
        sets: global.set.iter().cloned().chain(seed_set).collect(),
        config_path: global.config.clone(),
        device: global.device.clone(),
        json: global.json,
        quiet: global.quiet,
        verbose: global.verbose,
        dry_run: global.dry_run,
        allow_network: global.allow_network,
        threads: device::threads(global.threads.map(|n| n as usize), ranks.on_these_cores())?,
        ranks: ranks.clone(),
        started: std::time::SystemTime::now(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seed_threads_and_run_are_resolved() {
        let cli =
            Cli::try_parse_from(["clsgen", "train", "--seed", "7", "--set", "task.name=x", "--set", "train.seed=3"])
                .unwrap();
        let context = context(&cli.global, &Collective::one()).unwrap();
        assert_eq!((context.seed, context.config.train.seed), (7, 7));
        assert_eq!(context.run_dir, PathBuf::from("runs/x"));
        assert!(context.threads >= 1);
    }
}
