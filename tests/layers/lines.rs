//! Lines are short enough to stand beside each other: Rust, C++ and CUDA of `src/` and `tests/`.

use std::path::{Path, PathBuf};

/// Characters of a line at most.
const LONGEST: usize = 120;

const KINDS: [&str; 5] = ["rs", "cu", "cuh", "h", "cpp"];

/// Files of these kinds below `dir`, but for what builds leave.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            if !path.ends_with("target") {
                walk(&path, found);
            }
        } else if KINDS.iter().any(|kind| path.extension().is_some_and(|extension| extension == *kind)) {
            found.push(path);
        }
    }
}

#[test]
fn no_line_is_over_120_characters() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|dir| walk(&root.join(dir), &mut files));
    files.sort();
    for kind in KINDS {
        assert!(files.iter().any(|path| path.extension().unwrap() == kind), "no .{kind} was looked at");
    }
    let mut long = Vec::new();
    for path in files {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let lengths = text.lines().map(|line| line.chars().count()).enumerate();
        let over = lengths.filter(|(_, length)| *length > LONGEST);
        long.extend(over.map(|(at, length)| format!("{name}:{}: {length} characters", at + 1)));
    }
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}
