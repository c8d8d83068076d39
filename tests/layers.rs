//! The shape of the house (see `lib.rs`): imports go downward, files, functions and lines stay short, `unsafe` and
//! writing to disk stay in their rooms.

use std::path::{Path, PathBuf};

#[path = "layers/files.rs"]
mod files;
#[path = "layers/functions.rs"]
mod functions;
#[path = "layers/lines.rs"]
mod lines;

const LAYERS: &[(&str, u32)] = &[
    ("error", 0),
    ("foreign", 0),
    ("labels", 0),
    ("rng", 0),
    ("shard", 0),
    ("signals", 0),
    ("storage", 1),
    ("config", 1),
    ("device", 1),
    ("fingerprint", 1),
    ("metrics", 1),
    ("parallel", 1),
    ("progress", 1),
    ("context", 2),
    ("data", 2),
    ("ops", 2),
    ("prompt", 2),
    ("demo", 2),
    ("model", 3),
    ("remote", 3),
    ("train", 4),
    ("generate", 4),
    ("baselines", 5),
    ("report", 5),
    ("selftest", 5),
    ("evaluation", 5),
    ("commands", 6),
    ("cli", 7),
];

/// Rooms of one layer that know nothing of each other: what is scored, and what is drawn of its metrics.
const APART: [[&str; 2]; 1] = [["evaluation", "report"]];

fn apart(a: &str, b: &str) -> bool {
    APART.contains(&[a, b]) || APART.contains(&[b, a])
}

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Every source file with its path below `src/`.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        (path.strip_prefix(&root).unwrap().display().to_string(), std::fs::read_to_string(path).unwrap())
    };
    paths.iter().map(read).collect()
}

/// The source with comments and the insides of string and char literals blanked, line breaks kept.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    while i < chars.len() {
        let rest = |n: usize| chars.get(i + n).copied().unwrap_or('\0');
        let end = match (chars[i], rest(1)) {
            ('/', '/') => (i..chars.len()).find(|&j| chars[j] == '\n').unwrap_or(chars.len()),
            ('/', '*') => {
                (i + 2..chars.len()).find(|&j| chars[j] == '/' && chars[j - 1] == '*').map_or(chars.len(), |j| j + 1)
            }
            ('r', '"' | '#') if i == 0 || !(chars[i - 1].is_alphanumeric() || chars[i - 1] == '_') => {
                raw_string_end(&chars, i)
            }
            ('"', _) => quoted_end(&chars, i, '"'),
            ('\'', '\\') => quoted_end(&chars, i, '\''),
            ('\'', _) if rest(2) == '\'' => i + 3,
            _ => i,
        };
        if end == i {
            out.push(chars[i]);
            i += 1;
        }
        while i < end {
            blank(&mut out, chars[i]);
            i += 1;
        }
    }
    out
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut j = start + 1;
    while j < chars.len() && chars[j] != quote {
        j += if chars[j] == '\\' { 2 } else { 1 };
    }
    (j + 1).min(chars.len())
}

/// The end of `r#"…"#` at `start`, or `start` when none begins there (`r#type`).
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let closes =
        |j: usize| chars[j] == '"' && chars[j + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
    (start + 2 + hashes..chars.len()).find(|&j| closes(j)).map_or(chars.len(), |j| j + 1 + hashes)
}

/// The modules that `crate::…` paths name, groups (`crate::{a, b::{c, d}}`) included.
fn imported(code: &str) -> Vec<String> {
    let identifier =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.trim_start().strip_prefix('{') else {
            modules.push(identifier(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (i, c) in group.char_indices() {
            if begins && depth == 0 && !c.is_whitespace() {
                modules.push(identifier(&group[i..]));
                begins = false;
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                _ => {}
            }
        }
    }
    modules.retain(|module| !module.is_empty());
    modules
}

/// The part of a file that ships: what comes before its tests. `mod tests;` may stand above it.
fn shipped(code: &str) -> &str {
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]\n") {
        let at = from + found;
        let declared = code[at..].lines().skip(1).find(|line| !line.trim_start().starts_with("#["));
        let is_module = declared.is_some_and(|line| line.contains("mod "));
        let behind = declared.map_or("", |line| code[at..].split_once(line).map_or("", |(_, behind)| behind));
        if is_module && (declared.is_some_and(|line| line.ends_with('{')) || behind.trim().is_empty()) {
            return &code[..at];
        }
        from = at + 1;
    }
    code
}

#[test]
fn imports_go_downward() {
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        let module = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(own) = layer(&module) else {
            wrong.push(format!("src/{path}: module {module} has no layer: give it one in tests/layers.rs and lib.rs"));
            continue;
        };
        for target in imported(&code_only(&source)) {
            if apart(&module, &target) {
                wrong.push(format!("src/{path} imports crate::{target}: the two stay apart"));
            }
            match layer(&target) {
                Some(layer) if layer <= own => {}
                Some(layer) => wrong.push(format!("src/{path} (layer {own}) imports crate::{target} (layer {layer})")),
                None => wrong.push(format!("src/{path} imports crate::{target}, which has no layer")),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let graph = files::graph(&sources());
    let circles: Vec<String> = files::circles(&graph).into_iter().map(|circle| circle.join(" → ")).collect();
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn no_file_is_over_400_lines() {
    let long: Vec<_> =
        sources().into_iter().map(|(path, source)| (source.lines().count(), path)).filter(|(n, _)| *n > 400).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn unsafe_stays_in_ops_and_the_memory_map() {
    for (path, source) in sources() {
        if path.starts_with("ops/") || path.starts_with("model/mmap") {
            continue;
        }
        let code = code_only(&source).replace("unsafe_code", "");
        assert!(!code.contains("unsafe"), "src/{path} holds `unsafe`");
    }
}

#[test]
fn only_storage_writes_files() {
    let writes = [
        "File::create",
        "fs::write",
        "OpenOptions",
        "fs::create_dir",
        "fs::rename",
        "fs::remove_",
        "fs::copy",
        "File::options",
    ];
    for (path, source) in sources() {
        if path.starts_with("storage/") || path.ends_with("tests.rs") {
            continue;
        }
        let code = code_only(&source);
        for call in writes {
            assert!(!shipped(&code).contains(call), "src/{path} calls {call}: use crate::storage");
        }
    }
}

#[test]
fn the_scanner_sees_through_comments_strings_and_groups() {
    let code = code_only(
        "// crate::a\n/* crate::b */ let s = \"crate::c\"; let r = r#\"crate::d \"\"#; use crate::{e::{f, g}, \
        h};\nlet q = '\"'; crate::i::j();",
    );
    assert_eq!(imported(&code), ["e", "h", "i"]);
    assert_eq!(code.lines().count(), 3);
}
