//! The scripts of `configs/slurm`, with a stand-in for srun that starts the ranks by mpirun.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::json;

use super::{
    fixture::{Fixture, notes},
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

fn script(fixture: &Fixture, name: &str, limit: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/slurm").join(name);
    let mut command = Command::new("bash");
    command.arg(path).args(["config.toml", "run", "--set", "train.epochs=500", "--set", limit]);
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
        let requeue = "#!/bin/bash\necho \"$*\" >> scontrol.log\n";
        for (tool, text) in [("srun", SRUN), ("clsgen", CLSGEN), ("scontrol", requeue)] {
            fixture.write(&format!("bin/{tool}"), text);
            let path = fixture.path(&format!("bin/{tool}"));
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut job = Job::start(&fixture, "first", &mut script(&fixture, name, "train.max_steps=900"));
        job.wait_for_lines(&fixture.path("run/metrics.jsonl"), 2);
        // Slurm signals what srun started.
        send("USR1", job.child("mpirun"));
        assert_failed(&job.end(), 138, &["nothing to resume in run: starting", "stopped by SIGUSR1", "state saved"]);
        assert_eq!(fixture.read("scontrol.log"), b"requeue 77\n");

        let done = fixture.log("run", "step").len();
        let limit = format!("train.max_steps={}", done + 1);
        let end = Job::start(&fixture, "second", &mut script(&fixture, name, &limit)).end();
        assert_failed(&end, 0, &["resuming from"]);
        assert_eq!(fixture.log("run", "step").last().unwrap()["step"], json!(done + 1));
        assert_eq!(fixture.read("scontrol.log"), b"requeue 77\n");
        let asked = String::from_utf8(fixture.read("srun.log")).unwrap();
        assert!(asked.starts_with("srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=1 clsgen train"), "{asked}");
    }
}
