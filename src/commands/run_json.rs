//! What a command writes into `run.json` ([`run_record`]): the config, its inputs, this program and machine.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Context, machine};
use crate::{
    error::Result,
    generate::scoring,
    storage::{
        RunLock,
        run_record::{self, Begun, Used},
    },
};

pub use run_record::{ended_well, finish};

/// Takes the run directory for this command.
///
/// # Errors
/// Another process has it; or it is a checkpoint (exit 2).
pub fn lock(run: &Path) -> Result<RunLock> {
    scoring::refuse_checkpoint(run)?;
    run_record::lock(run)
}

/// Writes `RUN/run.json` for `command`, with the hash of every input (a directory: of every file in it) and of every
/// model used. The config and prompt files are added by themselves. [`finish`] completes it when the command ends;
/// until then the record keeps the run directory's `lock`. A process that shares the run under `--shard` has a file of
/// its own.
pub fn write(context: &Context, command: &str, inputs: &[&Path], models: &[Used<'_>], lock: RunLock) -> Result<()> {
    write_with_shards(context, command, (inputs, models), lock, Vec::new())
}

/// The same of a command that puts together what processes under `--shard` made, with what their records say.
pub fn write_with_shards(
    context: &Context,
    command: &str,
    (inputs, models): (&[&Path], &[Used<'_>]),
    lock: RunLock,
    shards: Vec<Value>,
) -> Result<()> {
    let prompt = Some(context.config.resolve(&context.config.task.prompt)).filter(|path| path.is_file());
    let all = context.config_path.iter().chain(&prompt).map(PathBuf::as_path).chain(inputs.iter().copied());
    let begun = Begun {
        command,
        started: context.started,
        versions: machine::versions(),
        hardware: machine::hardware(context),
        seed: context.seed,
        prompt_date: context.prompt_date(),
        inputs: all.collect(),
        models,
        config: json!(context.config),
        shards,
    };
    run_record::begin(&run_record::path(&context.run_dir, context.shard), begun, lock)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        error::{Error, Kind},
        storage,
    };

    #[test]
    fn a_second_command_keeps_the_first_under_earlier() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("data.jsonl");
        std::fs::write(&input, "{}\n").unwrap();
        let mut context = Context::for_test(dir.path());
        write(
            &context,
            "train",
            &[&input, dir.path().join("absent").as_path()],
            &[("model.base", Path::new("base"), "00ff")],
            lock(dir.path()).unwrap(),
        )
        .unwrap();
        assert!(lock(dir.path()).is_err(), "the record holds it");
        finish::<()>(&Err(Error::new(Kind::Signal(15), "stopped"))).unwrap();
        context.started += Duration::from_secs(5);
        write(&context, "eval", &[], &[], lock(dir.path()).unwrap()).unwrap();
        finish(&Ok(())).unwrap();

        let record = run_record::read(dir.path()).unwrap();
        assert_eq!((record["command"].as_str(), record["outcome"].as_str()), (Some("eval"), Some("ok")));
        assert_eq!(record["versions"]["clsgen"], env!("CARGO_PKG_VERSION"));
        assert_eq!(record["config"]["lora"]["rank"], 8);
        let first = &record["earlier"][0];
        assert_eq!(
            (first["command"].as_str(), first["outcome"].as_str()),
            (Some("train"), Some("stopped by signal 15"))
        );
        assert_eq!(first["inputs"][0]["blake3"], storage::hash_bytes(b"{}\n"));
        assert!(first["inputs"][1]["blake3"].is_null());
        assert_eq!(first["inputs"][2], json!({ "path": "base", "role": "model.base", "blake3": "00ff" }));
        assert_eq!((record["exit_code"].as_i64(), first["exit_code"].as_i64()), (Some(0), Some(143)));
        assert_eq!(record["prompt_date"], first["prompt_date"]);
        assert_eq!((&record["hardware"]["device"], &record["hardware"]["dtype"]), (&json!("cpu"), &json!("f32")));
        assert!(first.get("earlier").is_none());
    }
}
