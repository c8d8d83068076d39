//! What somebody else put into a directory that is replaced whole.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::Path,
};

use super::{create_dir_all, error, remove_file, sync};
use crate::error::{Error, Result};

/// Gives `to`, which will replace the directory `from`, everything in there whose name is not one of ours. Linked, it
/// is in both until the old one goes: a kill between loses nothing.
///
/// # Errors
/// `to` holds a name that is not one of ours: the next directory would be given it as somebody else's.
pub fn keep_others(from: &Path, to: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    let is_ours = |name: &OsStr| name.to_str().is_some_and(&is_ours);
    if let Some(name) = names(to)?.into_iter().find(|name| !is_ours(name)) {
        let message = format!("{} is no name that clsgen knows for its own", to.join(name).display());
        return Err(Error::run(message).hint("this is a fault of clsgen, not of the input: please report it"));
    }
    for name in names(from)?.into_iter().filter(|name| !is_ours(name)) {
        keep(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Removes the files of a directory whose names are ours, if it is there.
pub fn remove_ours(directory: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    let ours = names(directory)?.into_iter().filter(|name| name.to_str().is_some_and(&is_ours));
    let files = ours.map(|name| directory.join(name)).filter(|path| !path.is_dir());
    files.into_iter().try_for_each(|path| remove_file(&path))
}

/// The names in a directory; none where it is not there.
fn names(directory: &Path) -> Result<Vec<OsString>> {
    let unread = |e: io::Error| error("cannot read", directory, &e);
    match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(unread)?.map(|entry| Ok(entry.map_err(unread)?.file_name())).collect(),
    }
}

fn keep(from: &Path, to: &Path) -> Result<()> {
    let failed = |e: io::Error| error("cannot keep", from, &e);
    let kind = from.symlink_metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        create_dir_all(to)?;
        names(from)?.into_iter().try_for_each(|name| keep(&from.join(&name), &to.join(&name)))?;
        return sync::dir(to);
    }
    match std::fs::hard_link(from, to) {
        // Written anew, it is ours.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without hard links.
        Err(_) if kind.is_file() => std::fs::copy(from, to).map(drop).map_err(failed),
        linked => linked.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::AtomicDir;

    #[test]
    fn whatever_is_not_ours_outlives_the_directory_it_lies_in() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tables");
        std::fs::create_dir_all(path.join("mine/deep")).unwrap();
        for name in ["ours.md", "new.md", "mine.xlsx", "mine/deep/notes"] {
            std::fs::write(path.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", path.join("link")).unwrap();
        for _ in 0..2 {
            let dir = AtomicDir::create(&path).unwrap();
            dir.write_file("new.md", b"anew").unwrap();
            let is_ours = |name: &str| ["ours.md", "new.md"].contains(&name);
            assert!(keep_others(&path, dir.path(), |name| name == "ours.md").is_err(), "nobody knows new.md");
            keep_others(&path, dir.path(), is_ours).unwrap();
            dir.commit(false).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
        assert_eq!([read("ours.md"), read("new.md")], [None, Some("anew".into())]);
        for name in ["mine.xlsx", "mine/deep/notes"] {
            assert_eq!(read(name).as_deref(), Some(name));
        }
        assert_eq!(path.join("link").read_link().unwrap(), Path::new("nowhere"));
        keep_others(&root.path().join("absent"), &root.path().join("none"), |_| false).unwrap();
        remove_ours(&path, |name| ["new.md", "mine"].contains(&name)).unwrap();
        assert!(read("new.md").is_none() && read("mine/deep/notes").is_some());
        remove_ours(&root.path().join("absent"), |_| true).unwrap();
    }
}
