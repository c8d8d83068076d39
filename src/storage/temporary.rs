//! Names of what is being written, and what becomes of it when its writer is killed.
//!
//! A temporary of `NAME` is `.NAME.tmp-PID.WORD-RANDOM` in the same directory. One whose process is gone is swept by
//! the next that writes the same name or takes the run directory for itself. Those of other names in a shared place may
//! be another machine's or container's, whose processes cannot be seen from here. A directory that steps aside for a
//! new one is `.NAME.aside-PID.WORD` meanwhile, which no user calls a folder: `.NAME.old` may be somebody's own.

use std::{
    ffi::{OsStr, OsString},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::OnceLock,
};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{private, remove_tree};
use crate::error::{Error, Result};

/// Between a temporary's name and the process that writes it.
const TEMPORARY: &str = ".tmp-";
/// Between the name of a directory that stepped aside and the process that moved it.
const ASIDE: &str = ".aside-";
/// Hexadecimal digits of a process's own word.
const WORD: usize = 8;

/// The name behind a dot name: `last` of `.last.aside-PID…`, which stepped aside, and of `.last.tmp-PID…`, which is
/// being written; `None` for any other name.
pub fn whose(name: &OsStr) -> Option<OsString> {
    let (whose, ..) = mover(name).or_else(|| writer(name))?;
    Some(OsStr::from_bytes(whose).to_owned())
}

/// What a temporary will be, the process that writes it, and that process's own word (an older clsgen had none).
fn writer(name: &OsStr) -> Option<(&[u8], u32, &str)> {
    let (whose, process, word) = parts(name, TEMPORARY)?;
    Some((whose, process, word.split_once('-').map_or(word, |(word, _)| word)))
}

/// What a directory was that stepped aside, the process that moved it, and that process's own word.
fn mover(name: &OsStr) -> Option<(&[u8], u32, &str)> {
    parts(name, ASIDE).filter(|(_, _, word)| word.len() == WORD && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A dot name, taken apart: what stands before the marker, the process behind it, and what follows after a point.
fn parts<'a>(name: &'a OsStr, marker: &str) -> Option<(&'a [u8], u32, &'a str)> {
    let inner = name.as_bytes().strip_prefix(b".")?;
    let at = inner.windows(marker.len()).rposition(|part| part == marker.as_bytes())?;
    let behind = std::str::from_utf8(&inner[at + marker.len()..]).ok()?;
    let (process, rest) = behind.split_once('.').unwrap_or((behind, ""));
    Some((&inner[..at], process.parse().ok()?, rest))
}

/// Whether a name is that of a directory that stepped aside.
pub(super) fn is_aside(name: &OsStr) -> bool {
    mover(name).is_some()
}

/// Whether a name is that of a temporary whose process is gone.
pub(super) fn dead_process(name: &OsStr) -> bool {
    writer(name).is_some_and(|(_, process, word)| {
        if process == std::process::id() { !word.is_empty() && word != this_process() } else { !alive(process) }
    })
}

/// Removes temporaries that were to be `path`, of processes that are gone.
pub(super) fn sweep_of(path: &Path) -> Result<()> {
    sweep_those(parent(path), |name| whose(name).as_deref() == path.file_name())
}

fn sweep_those(dir: &Path, wanted: impl Fn(&OsStr) -> bool) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        if !dead_process(&entry.file_name()) || !wanted(&entry.file_name()) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                remove_tree(&entry.path())?;
            }
            Ok(_) => super::remove_file(&entry.path())?,
            Err(_) => {}
        }
    }
    Ok(())
}

/// Gives a directory that could not be removed whole the name of a temporary of process 0, which never is.
pub(super) fn abandon(path: &Path) -> io::Result<()> {
    // What was aside or a temporary itself is swept with those of the same name.
    let name = path.file_name().and_then(whose).map_or(path.to_owned(), |name| path.with_file_name(name));
    let prefix = dotted(&name, &format!("{TEMPORARY}0.{}-", this_process())).map_err(io::Error::other)?;
    let free = private::create_temporary_dir(parent(path), &prefix)?;
    std::fs::rename(path, &free).inspect_err(|_| drop(std::fs::remove_dir(&free)))
}

/// Whether a name is that of a directory that could not be removed.
pub(super) fn abandoned(name: &OsStr) -> bool {
    writer(name).is_some_and(|(_, process, _)| process == 0)
}

/// Removes what killed processes left in a run directory that this process holds alone: temporaries beside its files,
/// and those of files anywhere below. A temporary directory further down may be whole: [`super::recover`] decides.
pub(super) fn sweep_run(dir: &Path) -> Result<()> {
    sweep_those(dir, |_| true)?;
    sweep_files(dir)
}

fn sweep_files(dir: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && abandoned(&entry.file_name()) => {
                remove_tree(&entry.path())?;
            }
            Ok(kind) if kind.is_dir() => sweep_files(&entry.path())?,
            Ok(kind) if kind.is_file() && dead_process(&entry.file_name()) => super::remove_file(&entry.path())?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether a process of this machine has this number and has not ended: a zombie waits for its parent alone. Another
/// user's may be hidden from `/proc`, but not from signals.
pub(super) fn alive(process: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state comes behind the name, which stands in brackets and may hold some itself.
    let name_ends = stat.iter().rposition(|&byte| byte == b')');
    if let Some(state) = name_ends.and_then(|end| stat.get(end + 2)) {
        return !matches!(state, b'Z' | b'X');
    }
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| test_kill_process(process) != Err(Errno::SRCH))
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// How the name of a temporary begins: `.NAME.tmp-PID.OURS-`, behind which it is random.
pub(super) fn prefix(path: &Path) -> Result<OsString> {
    dotted(path, &format!("{TEMPORARY}{}.{}-", std::process::id(), this_process()))
}

/// The name that a directory steps aside to: `.NAME.aside-PID.OURS`.
pub(super) fn aside_name(path: &Path) -> Result<OsString> {
    dotted(path, &format!("{ASIDE}{}.{}", std::process::id(), this_process()))
}

/// What tells this process from an earlier one of the same number: in containers numbers recur.
fn this_process() -> &'static str {
    static OURS: OnceLock<String> = OnceLock::new();
    OURS.get_or_init(|| format!("{:0WORD$x}", RandomState::new().build_hasher().finish() as u32))
}

/// `.NAME` + `suffix`; a name is bytes, UTF-8 or not.
pub(super) fn dotted(path: &Path, suffix: &str) -> Result<OsString> {
    let name =
        path.file_name().ok_or_else(|| Error::usage(format!("{} names no file or directory", path.display())))?;
    let mut dotted = OsString::from(".");
    dotted.push(name);
    dotted.push(suffix);
    Ok(dotted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{atomic::tests::names, write_file_atomic};

    #[test]
    fn a_file_written_again_sweeps_its_own_dead_only() {
        let root = tempfile::tempdir().unwrap();
        for name in [".a.json.tmp-4294967294.0f-xyz", ".b.json.tmp-4294967294.0f-xyz"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        write_file_atomic(&root.path().join("a.json"), b"{}").unwrap();
        assert_eq!(names(root.path()), [".b.json.tmp-4294967294.0f-xyz", "a.json"]);
    }

    #[test]
    fn names_tell_whose_they_are_and_nobody_elses_is_taken_for_ours() {
        let told = |name: &str| whose(OsStr::new(name)).map(|name| name.into_string().unwrap());
        let aside = aside_name(Path::new("runs/last")).unwrap();
        let temporary = prefix(Path::new("runs/last")).unwrap().into_string().unwrap() + "xyz";
        assert!(is_aside(&aside) && !is_aside(OsStr::new(&temporary)));
        for name in [aside.to_str().unwrap(), &temporary, ".last.tmp-7"] {
            assert_eq!(told(name).as_deref(), Some("last"), "{name}");
        }
        for name in ["last", ".last", ".last.old", ".last.aside", ".last.aside-7", ".last.aside-7.old", ".last.tmp-x"] {
            assert_eq!(told(name), None, "{name}");
        }
    }

    #[test]
    fn a_process_is_gone_once_it_has_ended() {
        assert!(alive(std::process::id()) && alive(1) && !alive(u32::MAX - 1) && !alive(0));
        // Nobody has asked how it ended.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut waited = 0;
        while alive(child.id()) {
            assert!(waited < 1000, "it has not ended");
            std::thread::sleep(std::time::Duration::from_millis(10));
            waited += 1;
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_run_is_swept_to_its_depth_but_for_directories_that_may_be_whole() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("eval/test");
        std::fs::create_dir_all(deep.join(".last.tmp-4294967294")).unwrap();
        std::fs::write(deep.join(".metrics.json.tmp-4294967294.0f-xyz"), "").unwrap();
        std::fs::write(deep.join("metrics.json"), "").unwrap();
        std::fs::create_dir(root.path().join(".checkpoints.tmp-4294967294")).unwrap();
        sweep_run(root.path()).unwrap();
        assert_eq!(names(root.path()), ["eval"]);
        assert_eq!(names(&deep), [".last.tmp-4294967294", "metrics.json"]);
    }
}
