//! `--shard auto`, and the script of `configs/slurm` under stand-ins for Slurm's own commands.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use super::{
    BRIEF, common,
    fixture::{Fixture, notes, stderr},
};

/// The variables of task `id` of an array of `count` that begins at `first`.
fn array_task(command: &mut Command, [id, first, count]: [usize; 3]) {
    for (name, value) in [("ID", id), ("MIN", first), ("COUNT", count), ("MAX", first + count - 1), ("STEP", 1)] {
        command.env(format!("SLURM_ARRAY_TASK_{name}"), value.to_string());
    }
    command.env("SLURM_ARRAY_JOB_ID", "4711");
}

/// No task of an array, whatever these tests are run by.
fn no_array_task(command: &mut Command) {
    for name in ["ID", "MIN", "COUNT", "MAX", "STEP"] {
        command.env_remove(format!("SLURM_ARRAY_TASK_{name}"));
    }
}

#[test]
fn a_task_of_an_array_takes_its_part_and_elsewhere_there_is_none() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(7));
    fixture.succeed("in.jsonl", "whole.jsonl", &[BRIEF]);
    for first in [0, 1, 10] {
        let mut all = Vec::new();
        for id in first..first + 3 {
            let output = format!("{first}-{id}.jsonl");
            let mut command = fixture.command("in.jsonl", &output, &[BRIEF, "--shard", "auto"]);
            array_task(&mut command, [id, first, 3]);
            assert!(command.output().unwrap().status.success());
            all.extend(fixture.read(&output));
        }
        assert!(all == fixture.read("whole.jsonl"), "--array={first}-{}", first + 2);
    }
    let refused = |change: &dyn Fn(&mut Command)| {
        let mut command = fixture.command("in.jsonl", "out.jsonl", &[BRIEF, "--shard", "auto"]);
        no_array_task(&mut command);
        change(&mut command);
        common::outcome(&mut command)
    };
    common::assert_fails(&refused(&|_| {}), 2, &["SLURM_ARRAY_TASK_ID is not set", "hint: ", "--array=1-8"]);
    let gaps = |command: &mut Command| {
        array_task(command, [3, 1, 4]);
        command.env("SLURM_ARRAY_TASK_MAX", "7");
    };
    common::assert_fails(&refused(&gaps), 2, &["gaps", "hint: "]);
    assert!(!fixture.path("out.jsonl").exists());
}

/// The script as task `id` of two runs it; `srun` is what stands in for Slurm's.
fn script(fixture: &Fixture, srun: &str, id: usize, more: &[&str]) -> Output {
    for (name, text) in [("srun", srun), ("scontrol", "#!/bin/bash\necho \"$@\" >> requeued\n")] {
        let path = fixture.write(&format!("bin/{name}"), text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_clsgen")).parent().unwrap();
    let path = format!("{}:{}:{}", fixture.path("bin").display(), program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.current_dir(fixture.path("")).env("PATH", path);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/slurm/predict-array.sh"));
    command.args(["run/checkpoints/epoch-01", "in.jsonl", "parts"]).args(more);
    array_task(&mut command, [id, 1, 2]);
    command.env("SLURM_CPUS_PER_TASK", "1");
    command.output().unwrap()
}

/// Starts its task, on a CPU where the script says cuda, and waits for it.
const SRUN: &str = "#!/bin/bash\nshift 2\nexec \"${@/#cuda/cpu}\"\n";
/// The same, and sends it USR1 when its first line is written.
const OUT_OF_TIME: &str = "#!/bin/bash
shift 2
\"${@/#cuda/cpu}\" & task=$!
until [ -s parts/part-00001.jsonl ]; do sleep 0.01; done
kill -USR1 $task
wait $task
";

#[test]
fn the_script_for_an_array_predicts_every_part_and_asks_for_another_turn_when_its_time_is_up() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(400));
    let one_by_one = [BRIEF, "--set", "generate.batch_tokens=1"];
    let stopped = script(&fixture, OUT_OF_TIME, 1, &one_by_one);
    assert_eq!(stopped.status.code(), Some(138), "{}", stderr(&stopped));
    assert_eq!(fixture.read("requeued"), b"requeue 4711_1\n");
    assert!((1..200).contains(&fixture.lines("parts/part-00001.jsonl").len()));
    for id in [1, 2] {
        let done = script(&fixture, SRUN, id, &one_by_one);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    }
    fixture.succeed("in.jsonl", "whole.jsonl", &one_by_one);
    let parts = ["parts/part-00001.jsonl", "parts/part-00002.jsonl"].map(|name| fixture.read(name));
    assert!(parts.concat() == fixture.read("whole.jsonl"));
    assert_eq!(fixture.read("requeued"), b"requeue 4711_1\n");
}
