//! A scratch directory with the demonstration's model, prompt and config and a few notes, and the commands on it.

use std::{
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{self, Outcome, Scratch, in_scratch};

/// Settings that make every command short.
pub const SHORT: &str = "model.max_output_tokens=24 construct.max_output_tokens=24 construct.trials=1 \
                         construct.on_fail=label_only train.max_steps=2 train.epochs=1 train.objective=cls \
                         eval.bootstrap=200";

pub struct Work(Scratch);

in_scratch!(Work);

impl Work {
    /// `count` notes in each split.
    pub fn new(count: u64) -> Self {
        let work = Self(Scratch::new());
        common::write_demo(&work.path(""), &["train", "dev", "test"], count, 0.5);
        work
    }

    /// With a run that is trained.
    pub fn trained(count: u64) -> Self {
        let work = Self::new(count);
        let told = work.run(&["train", "--config", "demo.toml", "--run", "run"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        work
    }

    pub fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}")).permissions().mode() & 0o7777
    }

    /// When a file's content last changed, and which file it is.
    pub fn changed(&self, name: &str) -> (i64, i64, u64) {
        let meta = std::fs::metadata(self.path(name)).unwrap();
        (meta.mtime(), meta.mtime_nsec(), meta.ino())
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// The program with these arguments, made short.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = common::clsgen();
        command.current_dir(self.path("")).args(args);
        SHORT.split_whitespace().for_each(|set| _ = command.args(["--set", set]));
        command
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        common::outcome(&mut self.command(args))
    }

    /// The program begun by another program (`strace …`), or by a shell that does something first.
    pub fn under(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let inner = self.command(args);
        let mut outer = Command::new(wrapper[0]);
        outer.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args()).current_dir(self.path(""));
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }

    /// Everything in here becomes this user's, who can come in.
    pub fn give_to(&self, user: u32) {
        give(&self.path(""), user);
        self.set_mode("", 0o755);
    }

    /// The same command by another user. A copy of the program: where it was built may be closed to others.
    pub fn run_as(&self, user: u32, args: &[&str]) -> Outcome {
        let program = self.path("clsgen");
        if !program.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_clsgen"), &program).unwrap();
            self.set_mode("clsgen", 0o755);
        }
        let asked = self.command(args);
        let mut command = Command::new(&program);
        command.args(asked.get_args()).current_dir(self.path("")).uid(user).gid(user).env("HOME", "/nonexistent");
        common::outcome(&mut command)
    }

    /// Files below `dir`, from there.
    pub fn files(&self, dir: &str) -> Vec<String> {
        let mut files = Vec::new();
        walk(&self.path(dir), &mut |path| files.push(path.to_owned()));
        let root = self.path("");
        files.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect()
    }
}

/// Calls `visit` with every file and directory below `dir`.
pub fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        visit(&path);
        if path.symlink_metadata().unwrap().is_dir() {
            walk(&path, visit);
        }
    }
}

/// `path` and all below it become this user's; a link itself, not what it leads to.
pub fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    walk(path, &mut |path| std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap());
}

/// Whether files can be given to other users here; if not, a `SKIP:` line.
pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    let root = output.stdout == b"0\n";
    if !root {
        common::skip("only root can give files to other users");
    }
    root
}
