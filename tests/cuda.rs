//! The build with the feature `cuda` on machines without a GPU: what is missing is said, exit 5, and `auto` does
//! without it.
//!
//! The driver and the libraries beside it are small fakes, found by LD_LIBRARY_PATH before any real one; they answer as
//! the environment says.
#![cfg(feature = "cuda")]

mod common;
#[path = "../src/ops/cuda/functions.rs"]
mod functions;

use std::{path::Path, process::Command};

use common::{Outcome, assert_fails, clsgen, outcome};
use functions::LIBRARIES;

const DRIVER: &str = "#include <stdlib.h>
static int from(const char *name) { const char *value = getenv(name); return value ? atoi(value) : 0; }
int cuDriverGetVersion(int *version) { *version = from(\"FAKE_VERSION\"); return 0; }
int cuInit(unsigned flags) { (void)flags; return from(\"FAKE_INIT\"); }
int cuDeviceGetCount(int *count) { *count = from(\"FAKE_COUNT\"); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int capability = from(\"FAKE_CAPABILITY\");
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
  return (void)device, 0;
}
";

/// The files of [`LIBRARIES`].
const FILES: [&str; 4] = ["libcuda.so.1", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"];

/// Libraries in `dir`, all with the fake driver's functions.
fn fake(dir: &Path, files: &[&str]) {
    files.iter().for_each(|file| fake_of(dir, file, DRIVER));
}

fn fake_of(dir: &Path, file: &str, code: &str) {
    let source = dir.join("fake.c");
    std::fs::write(&source, code).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(dir.join(file)).arg(&source).status();
    assert!(built.unwrap().success(), "cc makes {file}");
}

/// `selftest --device DEVICE` with libraries from `dir` and a driver that answers (version, cuInit's result, devices).
fn selftest(device: &str, dir: &Path, answers: (i32, i32, i32)) -> Outcome {
    outcome(&mut selftest_command(device, dir, answers))
}

fn selftest_command(device: &str, dir: &Path, (version, init, count): (i32, i32, i32)) -> Command {
    let mut command = clsgen();
    command.args(["selftest", "--device", device]).env("LD_LIBRARY_PATH", dir);
    for (name, value) in [("FAKE_VERSION", version), ("FAKE_INIT", init), ("FAKE_COUNT", count)] {
        command.env(name, value.to_string());
    }
    command
}

#[test]
fn each_missing_part_is_told_apart() {
    let driver = tempfile::tempdir().unwrap();
    let all = tempfile::tempdir().unwrap();
    fake(driver.path(), &FILES[..1]);
    fake(all.path(), &FILES);
    let run = |device, answers| selftest(device, all.path(), answers);
    assert_fails(
        &run("cuda", (12_040, 0, 1)),
        5,
        &["the NVIDIA driver knows CUDA 12.4, clsgen needs 13.0", "hint: install driver 580"],
    );
    assert_fails(
        &run("cuda", (13_000, 100, 0)),
        5,
        &["the NVIDIA driver finds no CUDA device", "hint: see nvidia-smi"],
    );
    assert_fails(&run("cuda", (13_000, 0, 0)), 5, &["the NVIDIA driver finds no CUDA device"]);
    assert_fails(&run("cuda:3", (13_010, 0, 1)), 5, &["there is no CUDA device 3: this machine has 1"]);
    // Where the machine has the real libraries, none is missing.
    let told = selftest("cuda", driver.path(), (12_040, 0, 1));
    if !told.stderr.contains("knows CUDA 12.4") {
        assert_fails(
            &told,
            5,
            &[
                "CUDA 13 is incomplete",
                "cannot be loaded",
                "hint: put the directory that holds them on LD_LIBRARY_PATH",
            ],
        );
    }
}

/// A folder that is searched first may hold another CUDA's libraries, or stubs to link with.
#[test]
fn other_versions_are_passed_over() {
    let all = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    fake(all.path(), &FILES);
    for file in ["libcuda.so", "libcublas.so", "libcublas.so.12", "libcublasLt.so", "libcurand.so"] {
        fake_of(other.path(), file, "int nothing;");
    }
    let paths = std::env::join_paths([other.path(), all.path()]).unwrap();
    let mut command = selftest_command("cuda", all.path(), (12_040, 0, 1));
    let told = outcome(command.env("LD_LIBRARY_PATH", paths));
    assert_fails(&told, 5, &["the NVIDIA driver knows CUDA 12.4"]);
}

/// A way that no kernel has is not taken for another.
#[test]
fn a_switch_of_another_word_is_refused() {
    for (variable, device) in
        [("ATTENTION", "cuda"), ("ATTENTION_BACKWARD", "auto"), ("DECODE", "cuda"), ("LORA", "auto"), ("GRAPH", "cuda")]
    {
        let variable = format!("CLSGEN_{variable}");
        let mut command = clsgen();
        let told = outcome(command.args(["selftest", "--device", device]).env(&variable, "fast"));
        assert_fails(&told, 2, &[&format!("{variable} is neither `"), "hint: set it to one of these"]);
    }
}

#[test]
fn graphs_of_steps_that_no_graph_holds_are_refused() {
    let mut command = clsgen();
    let asked = [("CLSGEN_GRAPH", "on"), ("CLSGEN_DECODE", "shared")];
    let told = outcome(command.args(["selftest", "--device", "cuda"]).envs(asked));
    assert_fails(&told, 2, &["CLSGEN_GRAPH=on does not go with CLSGEN_DECODE=shared", "hint: unset one of them"]);
}

/// Those of an old driver are told by its version, before.
#[test]
fn functions_that_a_library_lacks_are_named() {
    let all = tempfile::tempdir().unwrap();
    fake(all.path(), &FILES);
    let told = selftest("cuda", all.path(), (13_010, 0, 1));
    assert_fails(
        &told,
        5,
        &["libcuda.so.1 is not that of CUDA 13.0: it lacks functions: cuCtxDestroy_v2, ", "hint: install driver 580"],
    );
}

/// Libraries that have every function: what the driver answers is heard, and of the others, which all say "out of
/// memory" here, the first that opens a device. A jump that leads nowhere would say "not initialized".
#[test]
fn calls_reach_the_libraries() {
    let all = tempfile::tempdir().unwrap();
    for (file, (_, functions)) in FILES.iter().zip(LIBRARIES) {
        let others = functions.iter().filter(|function| !DRIVER.contains(&format!("{function}(")));
        let others: String = others.map(|function| format!("int {function}(void) {{ return 2; }}\n")).collect();
        fake_of(all.path(), file, &(DRIVER.to_owned() + &others));
    }
    let told = |capability: &str| {
        let mut command = selftest_command("cuda", all.path(), (13_010, 0, 1));
        outcome(command.env("FAKE_CAPABILITY", capability))
    };
    assert_fails(
        &told("75"),
        5,
        &["CUDA device 0 has compute capability 7.5, clsgen's kernels need 8.0", "hint: use an A100"],
    );
    assert_fails(
        &told("90"),
        5,
        &["CUDA device 0 cannot be opened", "CUDA_ERROR_OUT_OF_MEMORY", "hint: see nvidia-smi"],
    );
}

#[test]
fn auto_computes_on_the_cpu_and_says_nothing_of_it() {
    let all = tempfile::tempdir().unwrap();
    fake(all.path(), &FILES);
    let told = selftest("auto", all.path(), (13_000, 100, 0));
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stderr.contains("on cpu") && !told.stderr.to_lowercase().contains("cuda"), "{}", told.stderr);
}

/// Nothing of CUDA, nor the C++ library its kernels' launchers would want, is needed to start.
#[test]
fn the_program_is_linked_with_none_of_cuda() {
    let Ok(listed) = Command::new("ldd").arg(env!("CARGO_BIN_EXE_clsgen")).output() else { return };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in ["libcu", "libnv", "libstdc++"] {
        assert!(!listed.contains(library), "{listed}");
    }
}
