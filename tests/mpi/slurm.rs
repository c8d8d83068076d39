//! The scripts of `configs/slurm`, with a stand-in for srun that starts the ranks by mpirun.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::json;

use super::{
    fixture::{Fixture, notes},
    infer_work::Work,
    job::{Job, PROGRAM, assert_failed, send},
};

/// Takes srun's own options away and starts as many ranks as the job has.
const SRUN: &str = r#"#!/bin/bash
echo "srun $*" >> srun.log
while [[ $1 == --* ]]; do shift; done
exec mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$SLURM_NTASKS" "$@"
"#;

/// The program, on a machine without a GPU.
const CLSGEN: &str = r#"#!/bin/bash
args=("$@")
for i in "${!args[@]}"; do [ "${args[i]}" = cuda ] && args[i]=cpu; done
exec "$PROGRAM" "${args[@]}"
"#;

/// The stand-ins, in `bin`.
fn write_tools(fixture: &Fixture) {
    let requeue = "#!/bin/bash\necho \"$*\" >> scontrol.log\n";
    for (tool, text) in [("srun", SRUN), ("clsgen", CLSGEN), ("scontrol", requeue)] {
        fixture.write(&format!("bin/{tool}"), text);
        let path = fixture.path(&format!("bin/{tool}"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn training(fixture: &Fixture, name: &str, limit: &str) -> Command {
    script(fixture, name, &["config.toml", "run", "--set", "train.epochs=500", "--set", limit])
}

fn script(fixture: &Fixture, name: &str, arguments: &[&str]) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/slurm").join(name);
    let mut command = Command::new("bash");
    command.arg(path).args(arguments);
    let bin = fixture.path("bin");
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command.env("PROGRAM", PROGRAM).envs([("SLURM_NTASKS", "2"), ("SLURM_JOB_ID", "77"), ("SLURM_CPUS_PER_TASK", "1")]);
    command.current_dir(fixture.path(".")).env_remove("CLSGEN_FAULT");
    command
}

#[test]
fn scripts_requeue_a_run_that_was_asked_to_stop_and_go_on_with_it() {
    for name in ["one-node.sh", "two-nodes.sh"] {
        let fixture = Fixture::new();
        fixture.write("train.jsonl", notes(11, true));
        write_tools(&fixture);
        let mut job = Job::start(&fixture, "first", &mut training(&fixture, name, "train.max_steps=900"));
        job.wait_for_lines(&fixture.path("run/metrics.jsonl"), 2);
        // Slurm signals what srun started.
        send("USR1", job.child("mpirun"));
        assert_failed(&job.end(), 138, &["nothing to resume in run: starting", "stopped by SIGUSR1", "state saved"]);
        assert_eq!(fixture.read("scontrol.log"), b"requeue 77\n");

        let done = fixture.log("run", "step").len();
        let limit = format!("train.max_steps={}", done + 1);
        let end = Job::start(&fixture, "second", &mut training(&fixture, name, &limit)).end();
        assert_failed(&end, 0, &["resuming from"]);
        assert_eq!(fixture.log("run", "step").last().unwrap()["step"], json!(done + 1));
        assert_eq!(fixture.read("scontrol.log"), b"requeue 77\n");
        let asked = String::from_utf8(fixture.read("srun.log")).unwrap();
        assert!(asked.starts_with("srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=1 clsgen train"), "{asked}");
    }
}

#[test]
fn ranks_of_a_node_write_the_output_of_one_process() {
    let work = Work::trained(9);
    write_tools(&work.0);
    work.one(&work.predict("one.jsonl", &[]));
    let flags = ["--config", "demo.toml", "--set", "model.max_output_tokens=48"];
    let files = ["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "ranks.jsonl"];
    let arguments = [&files[..], &flags].concat();
    let end = Job::start(&work.0, "node", &mut script(&work.0, "infer.sh", &arguments)).end();
    assert_failed(&end, 0, &["9 records, 0 errors"]);
    assert!(work.0.read("ranks.jsonl") == work.0.read("one.jsonl"));
    assert!(!work.0.path("scontrol.log").exists());
}
