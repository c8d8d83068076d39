//! Real `mpirun` jobs in the fixture's folder, of `clsgen train` on its toy task or of others; every wait has an end.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::fixture::{Fixture, SECRET};

/// Longest that a job may take; on two busy cores none takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(240);

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_clsgen");

/// `mpirun` with what a container's root and more ranks than cores need.
pub fn mpirun(fixture: &Fixture) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]);
    command.current_dir(fixture.path(".")).env("RUST_BACKTRACE", "0").env_remove("CLSGEN_FAULT");
    command
}

/// `clsgen train` into `run`, as arguments of `mpirun` behind those of its own.
pub fn train<'a>(run: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&[PROGRAM, "train", "--config", "config.toml", "--run", run], flags].concat()
}

/// A job that was started.
pub struct Job {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    begun: Instant,
}

/// How it ended.
#[derive(Debug)]
pub struct End {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub seconds: f64,
}

impl Job {
    pub fn start(fixture: &Fixture, name: &str, command: &mut Command) -> Self {
        let stdout = fixture.path(&format!("{name}.stdout"));
        let stderr = fixture.path(&format!("{name}.stderr"));
        command.stdin(Stdio::null());
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let child = command.spawn().expect("mpirun is installed");
        Self { child, stdout, stderr, begun: Instant::now() }
    }

    /// The process of this rank.
    pub fn rank(&self, rank: usize) -> u32 {
        find_rank(self.mpirun(), rank).unwrap_or_else(|| panic!("no rank {rank} runs"))
    }

    /// The same, once it has been started.
    #[track_caller]
    pub fn wait_for_rank(&mut self, rank: usize) -> u32 {
        let mpirun = self.mpirun();
        let mut found = None;
        self.wait_for(&format!("rank {rank}"), || {
            found = find_rank(mpirun, rank);
            found.is_some()
        });
        found.unwrap()
    }

    /// The process of this name that the started one has started.
    pub fn child(&self, name: &str) -> u32 {
        let is = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        children(self.child.id()).into_iter().find(is).unwrap_or_else(|| panic!("no {name} runs"))
    }

    /// The process of `mpirun` itself.
    pub fn mpirun(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the run has logged so many lines.
    #[track_caller]
    pub fn wait_for_lines(&mut self, log: &Path, count: usize) {
        super::common::wait_for_lines(&mut self.child, log, count);
    }

    /// Waits until something has come about.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, reached: impl FnMut() -> bool) {
        super::common::wait_until(&mut self.child, what, reached);
    }

    /// Waits until the job ends; kills it and fails where it does not.
    #[track_caller]
    pub fn end(mut self) -> End {
        let status = self.wait(PATIENCE);
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        let seconds = self.begun.elapsed().as_secs_f64();
        let end = End { code: status.code(), stdout: read(&self.stdout), stderr: read(&self.stderr), seconds };
        assert!(
            !end.stdout.contains(SECRET) && !end.stderr.contains(SECRET),
            "a record's text is on a stream: {end:?}"
        );
        end
    }

    #[track_caller]
    fn wait(&mut self, patience: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > patience {
                self.child.kill().unwrap();
                panic!("no end within {patience:?}: {}", std::fs::read_to_string(&self.stderr).unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The process of this rank, if this `mpirun` has started it.
fn find_rank(mpirun: u32, rank: usize) -> Option<u32> {
    let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
    let is = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    children(mpirun).into_iter().find(is)
}

/// The processes that this one has started; none where it has ended.
fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Sends a process the signal of this name.
pub fn send(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

/// Runs `n` ranks to their end.
#[track_caller]
pub fn run(fixture: &Fixture, n: usize, run: &str, flags: &[&str]) -> End {
    let n = n.to_string();
    Job::start(fixture, run, mpirun(fixture).args(["-n", &n]).args(train(run, flags))).end()
}

/// The same, which must succeed.
#[track_caller]
pub fn succeed(fixture: &Fixture, n: usize, name: &str, flags: &[&str]) -> End {
    let end = run(fixture, n, name, flags);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    end
}

/// The same, which must fail with this code and say each of these texts.
#[track_caller]
pub fn fail(fixture: &Fixture, n: usize, name: &str, flags: &[&str], code: i32, texts: &[&str]) -> End {
    let end = run(fixture, n, name, flags);
    assert_failed(&end, code, texts);
    end
}

#[track_caller]
pub fn assert_failed(end: &End, code: i32, texts: &[&str]) {
    assert_eq!(end.code, Some(code), "{}", end.stderr);
    for text in texts {
        assert!(end.stderr.contains(text), "stderr lacks {text:?}: {}", end.stderr);
    }
}
