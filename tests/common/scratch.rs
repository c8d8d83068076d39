//! A scratch directory, which goes when the test ends, and the files in it by name.

use std::path::PathBuf;

use serde_json::Value;

pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Where a file of this name is; `""` is the directory itself.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, in folders that are made for it; says where it is.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

/// A type over a [`Scratch`], in its field of this number or name, has the methods of one.
macro_rules! in_scratch {
    ($name:ident) => {
        $crate::common::in_scratch!($name, 0);
    };
    ($name:ident, $field:tt) => {
        impl std::ops::Deref for $name {
            type Target = $crate::common::Scratch;

            fn deref(&self) -> &Self::Target {
                &self.$field
            }
        }
    };
}
pub(crate) use in_scratch;
