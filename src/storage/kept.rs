//! What somebody else put into a directory that is replaced whole.

use std::{io, path::Path};

use super::{create_dir_all, error, sync};
use crate::error::Result;

/// Gives `to`, which will replace the directory `from`, everything in there whose name is not one of ours. Linked, it
/// is in both until the old one goes: a kill between loses nothing.
pub fn keep_others(from: &Path, to: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    let unread = |e: io::Error| error("cannot read", from, &e);
    let entries = match std::fs::read_dir(from) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(unread)?,
    };
    for entry in entries {
        let entry = entry.map_err(unread)?;
        if !entry.file_name().to_str().is_some_and(&is_ours) {
            keep(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn keep(from: &Path, to: &Path) -> Result<()> {
    let failed = |e: io::Error| error("cannot keep", from, &e);
    let kind = from.symlink_metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        create_dir_all(to)?;
        keep_others(from, to, |_| false)?;
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
            keep_others(&path, dir.path(), |name| name == "ours.md").unwrap();
            dir.commit(false).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
        assert_eq!([read("ours.md"), read("new.md")], [None, Some("anew".into())]);
        for name in ["mine.xlsx", "mine/deep/notes"] {
            assert_eq!(read(name).as_deref(), Some(name));
        }
        assert_eq!(path.join("link").read_link().unwrap(), Path::new("nowhere"));
        keep_others(&root.path().join("absent"), &path, |_| false).unwrap();
    }
}
