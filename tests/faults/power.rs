//! What a power failure could take: nothing that was renamed into place. The system calls of whole commands are read
//! (strace), and in them every rename must come after a sync of what it renames, and be followed by one of the
//! directory that it changes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{clusters::has_strace, common, work::Work};

/// What the disk may not have yet, as far as the calls tell.
#[derive(Default)]
struct Disk {
    /// Files written since they were synced.
    unsynced: BTreeSet<PathBuf>,
    /// Directories in which names were made or moved since they were synced.
    changed: BTreeSet<PathBuf>,
    /// Directories that a rename changed.
    renamed_in: BTreeSet<PathBuf>,
    renames: usize,
    faults: Vec<String>,
}

impl Disk {
    /// Takes a line of `strace -f -y`, whose descriptors have their paths beside them.
    fn take(&mut self, line: &str, root: &Path) {
        let call = line.split_once(' ').map_or(line, |(_, rest)| rest.trim_start());
        let Some((name, arguments)) = call.split_once('(') else { return };
        if call.contains("= -1") || call.contains("unfinished") {
            return;
        }
        let named = |path: &str| Some(PathBuf::from(path)).filter(|path| path.starts_with(root));
        let descriptor = || named(arguments.split_once('<')?.1.split_once('>')?.0);
        let quoted: Vec<PathBuf> = arguments.split('"').skip(1).step_by(2).map(|path| root.join(path)).collect();
        match name {
            "write" | "pwrite64" | "writev" | "ftruncate" => self.unsynced.extend(descriptor()),
            "fsync" | "fdatasync" => {
                let Some(path) = descriptor() else { return };
                self.unsynced.remove(&path);
                self.changed.remove(&path);
                self.renamed_in.remove(&path);
            }
            "openat" if arguments.contains("O_CREAT") => {
                let path = call.rsplit_once('<').and_then(|(_, path)| named(path.split_once('>')?.0));
                self.changed.extend(path.and_then(|path| path.parent().map(Path::to_owned)));
            }
            "mkdir" | "mkdirat" => {
                self.changed.extend(quoted.first().and_then(|path| path.parent().map(Path::to_owned)))
            }
            "rename" | "renameat" | "renameat2" => {
                if let [from, to] = &quoted[..] {
                    self.rename(from, to);
                }
            }
            _ => {}
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        self.renames += 1;
        let unsafe_yet = self.unsynced.iter().chain(&self.changed).filter(|path| path.starts_with(from));
        self.faults.extend(unsafe_yet.map(|path| format!("{} renamed before it was synced", path.display())));
        // A checkpoint that is there without the lines of its steps: nothing would write these any more.
        if to.parent().is_some_and(|parent| parent.ends_with("checkpoints")) {
            let logs = self.unsynced.iter().filter(|path| path.ends_with("metrics.jsonl"));
            self.faults.extend(logs.map(|path| format!("{} not synced before {}", path.display(), to.display())));
        }
        for of in [&mut self.unsynced, &mut self.changed] {
            of.retain(|path| !path.starts_with(from));
        }
        self.renamed_in.extend([from, to].iter().filter_map(|path| path.parent().map(Path::to_owned)));
    }
}

/// With a checkpoint within the epoch.
const TRAIN: [&str; 9] = [
    "train",
    "--config",
    "demo.toml",
    "--run",
    "run",
    "--set",
    "train.batch_size=2",
    "--set",
    "train.save_every_steps=1",
];

/// The calls of a command, looked through to its end.
fn watched(work: &Work, args: &[&str]) -> Disk {
    let elsewhere = tempfile::tempdir().unwrap();
    let log = elsewhere.path().join("strace.log");
    let calls = "trace=write,pwrite64,writev,ftruncate,fsync,fdatasync,openat,mkdir,mkdirat,rename,renameat,renameat2";
    let wrapper = ["strace", "-f", "-y", "-s", "4096", "-qq", "-o", log.to_str().unwrap(), "-e", calls];
    let told = common::outcome(&mut work.under(&wrapper, args));
    assert_eq!(told.code, Some(0), "{args:?}: {told:?}");
    let root = work.path("").canonicalize().unwrap();
    let mut disk = Disk::default();
    std::fs::read_to_string(&log).unwrap().lines().for_each(|line| disk.take(line, &root));
    disk
}

#[test]
fn everything_is_on_the_disk_before_it_has_its_name() {
    if !has_strace() {
        return;
    }
    let work = Work::new(8);
    let mut renames = 0;
    for args in [
        &["construct", "--config", "demo.toml", "--run", "run"][..],
        &TRAIN,
        &["eval", "--config", "demo.toml", "--run", "run"],
        &["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "out.jsonl"],
        &["export", "--model", "run", "--merged", "merged"],
    ] {
        let disk = watched(&work, args);
        assert!(disk.renames > 0 && disk.faults.is_empty(), "{args:?}: {:#?}", disk.faults);
        assert!(disk.renamed_in.is_empty(), "{args:?}: names in {:?} may be lost", disk.renamed_in);
        renames += disk.renames;
    }
    common::say(&format!("power: {renames} renames of 5 commands, each after its bytes, each before the end on disk"));
}

/// The watch sees what it looks for.
#[test]
fn a_rename_before_its_sync_would_be_seen() {
    let faults = |lines: &[&str]| {
        let mut disk = Disk::default();
        lines.iter().for_each(|line| disk.take(line, Path::new("/w")));
        (disk.faults.len(), disk.renamed_in.len())
    };
    let open = r#"7 openat(AT_FDCWD</w>, "t/a", O_WRONLY|O_CREAT|O_EXCL, 0600) = 3</w/t/a>"#;
    let write = r#"7 write(3</w/t/a>, "x", 1) = 1"#;
    let sync = "7 fsync(3</w/t/a>) = 0";
    let sync_names = "7 fsync(4</w/t>) = 0";
    let rename = r#"7 renameat2(AT_FDCWD</w>, "t", AT_FDCWD</w>, "d", RENAME_EXCHANGE) = 0"#;
    let sync_parent = "7 fsync(5</w>) = 0";
    assert_eq!(faults(&[open, write, sync, sync_names, rename, sync_parent]), (0, 0));
    assert_eq!(faults(&[open, write, sync, sync_names, rename]), (0, 1));
    assert_eq!(faults(&[open, sync, write, sync_names, rename, sync_parent]), (1, 0));
    assert_eq!(faults(&[open, write, sync, rename, sync_parent]), (1, 0));
    assert_eq!(faults(&[open, write, rename, sync_parent]), (2, 0));

    let log = r#"7 write(6</w/run/metrics.jsonl>, "x", 1) = 1"#;
    let sync_log = "7 fsync(6</w/run/metrics.jsonl>) = 0";
    let commit = r#"7 renameat(AT_FDCWD</w>, "run/checkpoints/t", AT_FDCWD</w>, "run/checkpoints/last") = 0"#;
    let sync_checkpoints = "7 fsync(5</w/run/checkpoints>) = 0";
    assert_eq!(faults(&[log, sync_log, commit, sync_checkpoints]), (0, 0));
    assert_eq!(faults(&[log, commit, sync_log, sync_checkpoints]), (1, 0));
}
