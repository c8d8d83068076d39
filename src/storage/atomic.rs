//! Directories and files that exist whole or not at all.
//!
//! Everything goes under a temporary name in the same parent, is synced, and is renamed into place; then the parent
//! is synced. A directory that replaces another swaps with it in one system call.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    Writer, check_output, check_tree, create, create_dir_all, error, fault, manifest, private, remove_dir_all, sync,
    temporary::{abandoned, aside_name, dead_process, is_aside, parent, prefix, sweep_of, whose},
};
use crate::error::{Error, Result};

/// A directory being written under a temporary name; [`AtomicDir::commit`] makes it appear. Dropped uncommitted, it is
/// removed.
#[derive(Debug)]
pub struct AtomicDir {
    temporary: PathBuf,
    destination: PathBuf,
    committed: bool,
}

impl AtomicDir {
    /// Begins a directory that will be `destination`, sweeping what killed processes left of earlier tries. One that
    /// was whole goes too: this one takes its place, and nobody has seen it there.
    pub fn create(destination: &Path) -> Result<Self> {
        let parent = parent(destination);
        check_tree(destination)?;
        create_dir_all(parent)?;
        put_back(destination)?;
        sweep_of(destination)?;
        let temporary = private::create_temporary_dir(parent, &prefix(destination)?)
            .map_err(|e| error("cannot create directory", destination, &e))?;
        fault("dir.create");
        Ok(Self { temporary, destination: destination.to_owned(), committed: false })
    }

    /// Where the files are until the commit.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Writes a file whole. `name` may hold `/`.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut writer = self.writer(name)?;
        writer.put(bytes)?;
        writer.finish()
    }

    /// A file to stream into; call [`Writer::finish`] on it.
    pub fn writer(&self, name: &str) -> Result<Writer> {
        let path = self.temporary.join(name);
        create_dir_all(parent(&path))?;
        let writer = create(&path)?;
        fault("dir.write");
        Ok(writer)
    }

    /// Syncs every file, writes `manifest.json` last if asked, and renames the directory into place.
    pub fn commit(mut self, manifest: bool) -> Result<()> {
        if manifest {
            let described = manifest::describe(&self.temporary)?;
            self.write_file(manifest::MANIFEST, &super::json(&described)?)?;
            fault("dir.manifest");
        }
        sync_tree(&self.temporary)?;
        fault("dir.synced");
        let replaced = self.replace().map_err(|e| error("cannot commit", &self.destination, &e))?;
        self.committed = true;
        fault("dir.renamed");
        sync::dir(parent(&self.destination))?;
        if let Some(old) = replaced {
            remove_dir_all(&old)?;
        }
        fault("dir.done");
        Ok(())
    }

    /// Renames into place; returns where a replaced directory now is.
    fn replace(&self) -> io::Result<Option<PathBuf>> {
        if !self.destination.exists() {
            std::fs::rename(&self.temporary, &self.destination)?;
            return Ok(None);
        }
        // The fault point of the second way takes the first one away.
        let swapped = if fault::named("dir.aside") {
            Err(rustix::io::Errno::INVAL)
        } else {
            renameat_with(CWD, &self.temporary, CWD, &self.destination, RenameFlags::EXCHANGE)
        };
        match swapped {
            Ok(()) => Ok(Some(self.temporary.clone())),
            // File systems without the swap (NFS, some overlays): step aside first; `recover` undoes a kill between.
            Err(_) => {
                let name = aside_name(&self.destination).map_err(|e| io::Error::other(e.to_string()))?;
                let aside = parent(&self.destination).join(name);
                std::fs::rename(&self.destination, &aside)?;
                fault::fault("dir.aside");
                std::fs::rename(&self.temporary, &self.destination)?;
                Ok(Some(aside))
            }
        }
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.committed {
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Mends what a kill left beside `destination`: puts back a directory that had stepped aside; where there is none, ends
/// the commit of a temporary that is whole; removes its temporaries of processes that are gone.
pub fn recover(destination: &Path) -> Result<()> {
    put_back(destination)?;
    if !destination.exists()
        && let Some(whole) = whole_temporary(destination)
    {
        std::fs::rename(&whole, destination).map_err(|e| error("cannot recover", destination, &e))?;
        sync::dir(parent(destination))?;
    }
    sweep_of(destination)
}

/// Puts back a directory that had stepped aside, or removes it where a new one has its place.
fn put_back(destination: &Path) -> Result<()> {
    match aside(destination) {
        Some(aside) if destination.exists() => remove_dir_all(&aside),
        Some(aside) => std::fs::rename(&aside, destination).map_err(|e| error("cannot recover", destination, &e)),
        None => Ok(()),
    }
}

/// Where `destination` is while it has stepped aside, if it has.
pub(super) fn aside(destination: &Path) -> Option<PathBuf> {
    let mut asides = beside(destination).filter(|entry| is_aside(&entry.file_name())).map(|entry| entry.path());
    asides.find(|path| path.is_dir())
}

/// A temporary of `destination` that a process now gone had written to the end, manifest and all.
fn whole_temporary(destination: &Path) -> Option<PathBuf> {
    let left = beside(destination).filter(|entry| dead_process(&entry.file_name()) && !abandoned(&entry.file_name()));
    let mut dead = left.map(|entry| entry.path());
    dead.find(|path| manifest::is_whole(path))
}

/// What lies beside `destination` under dot names of it.
fn beside(destination: &Path) -> impl Iterator<Item = std::fs::DirEntry> {
    let entries = std::fs::read_dir(parent(destination)).into_iter().flatten().flatten();
    entries.filter(move |entry| whose(&entry.file_name()).as_deref() == destination.file_name())
}

/// Writes a file so that its path holds either the old bytes or all of the new ones.
pub fn write_file_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = parent(path);
    check_output(path)?;
    create_dir_all(parent)?;
    sweep_of(path)?;
    // Dropped before it is in its place, it is removed.
    let (file, temporary) =
        private::create_temporary(parent, &prefix(path)?).map_err(|e| error("cannot create", path, &e))?;
    let mut writer = Writer::of(path, file);
    fault("file.write");
    writer.put(bytes)?;
    writer.finish()?;
    fault("file.synced");
    temporary.persist(path).map_err(|e| error("cannot write", path, &e.error))?;
    fault("file.renamed");
    sync::dir(parent)
}

/// The same, but a file that is there already is left alone: these very bytes are fine, any others are not ours (exit
/// 2).
pub fn write_own_file(path: &Path, bytes: &[u8]) -> Result<()> {
    check_output(path)?;
    match std::fs::read(path) {
        Ok(there) if there == bytes => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => write_file_atomic(path, bytes),
        _ => Err(Error::usage(format!("{} is there already and was not made by this command", path.display()))
            .hint("move it away, or choose another directory with --run")),
    }
}

fn sync_tree(dir: &Path) -> Result<()> {
    manifest::walk(dir, "", &mut |_, path| {
        // What is kept of others may be a pipe, or a link to nowhere.
        if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            return Ok(());
        }
        let file = std::fs::File::open(path).map_err(|e| error("cannot sync", path, &e))?;
        sync::file(path, &file)
    })?;
    sync::dir(dir)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::storage::{MANIFEST, verify_manifest};

    pub fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_appears_at_the_commit_and_not_before() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("epoch-01");
        let dir = AtomicDir::create(&path).unwrap();
        dir.write_file("a", b"one").unwrap();
        assert!(!path.exists());
        dir.commit(true).unwrap();
        assert_eq!(names(root.path()), ["epoch-01"]);
        assert_eq!(names(&path), ["a", MANIFEST]);
        assert!(verify_manifest(&path).unwrap());
    }

    #[test]
    fn one_that_is_dropped_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = AtomicDir::create(&root.path().join("x")).unwrap();
        dir.write_file("a", b"one").unwrap();
        drop(dir);
        assert_eq!(names(root.path()), Vec::<String>::new());
    }

    #[test]
    fn a_commit_replaces_what_was_there_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("last");
        for name in ["old", "new"] {
            let dir = AtomicDir::create(&path).unwrap();
            dir.write_file(name, name.as_bytes()).unwrap();
            dir.commit(false).unwrap();
        }
        assert_eq!((names(&path), names(root.path())), (vec!["new".into()], vec!["last".into()]));
        assert!(!verify_manifest(&path).unwrap());
    }

    #[test]
    fn recovery_puts_back_a_directory_that_stepped_aside_and_sweeps_its_own_dead() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("last");
        std::fs::create_dir(root.path().join(".last.aside-4294967294.0123abcd")).unwrap();
        std::fs::create_dir(root.path().join(".last.old")).unwrap();
        std::fs::create_dir(root.path().join(".last.tmp-4294967294")).unwrap();
        // Perhaps another machine's, which is writing it; `.last.old` is its user's.
        std::fs::write(root.path().join(".best.json.tmp-4294967294"), "").unwrap();
        let alive = format!(".last.tmp-{}", std::process::id());
        std::fs::write(root.path().join(&alive), "").unwrap();
        recover(&path).unwrap();
        assert_eq!(names(root.path()), [".best.json.tmp-4294967294", ".last.old", &alive, "last"]);
    }

    #[test]
    fn damage_is_found_and_named() {
        let root = tempfile::tempdir().unwrap();
        type Damage = fn(&Path);
        let damage: [(&str, Damage); 3] = [
            ("1 bytes, 3 expected", |file| std::fs::write(file, "o").unwrap()),
            ("BLAKE3 differs", |file| std::fs::write(file, "two").unwrap()),
            ("not there", |file| std::fs::remove_file(file).unwrap()),
        ];
        for (told, spoil) in damage {
            let path = root.path().join("epoch");
            let dir = AtomicDir::create(&path).unwrap();
            dir.write_file("a", b"one").unwrap();
            dir.commit(true).unwrap();
            spoil(&path.join("a"));
            let error = verify_manifest(&path).unwrap_err();
            assert!(
                error.exit_code() == 4 && error.to_string().contains(told) && error.to_string().contains("epoch/a"),
                "{error}"
            );
        }
        std::fs::write(root.path().join("epoch").join(MANIFEST), "{").unwrap();
        assert_eq!(verify_manifest(&root.path().join("epoch")).unwrap_err().exit_code(), 4);
    }
}
