//! Which source file imports which, from its `use` items and its paths that begin with `crate` or `super`.
//!
//! A file and one below it (`ops/linear/mod.rs`, `ops/linear/cpu.rs`) share a module and may name each other; between
//! any two others an import goes one way, so that every file can be understood after those that it stands on. What a
//! module has from another by `pub use` is imported from there.

use std::collections::{BTreeMap, BTreeSet};

use super::{code_only, shipped};

/// A file by its module path: `["ops", "linear", "cpu"]`.
type Module = Vec<String>;

/// What of a file counts here.
#[derive(Default)]
struct File {
    /// Paths that begin with `crate` or `super`.
    paths: Vec<Vec<String>>,
    /// What it has from elsewhere under a name of its own: `pub use b::B` is B from `b::B`.
    exports: BTreeMap<String, Vec<String>>,
}

type Files = BTreeMap<Module, File>;

/// File → files that it imports, those above and below it left out.
pub fn graph(sources: &[(String, String)]) -> BTreeMap<Module, BTreeSet<Module>> {
    let read = |source: &str| {
        let code = code_only(source);
        File { paths: paths(shipped(&code)), exports: exports(shipped(&code)) }
    };
    let files: Files = sources.iter().map(|(path, source)| (module(path), read(source))).collect();
    let imports = |own: &Module, file: &File| {
        let named = file.paths.iter().flat_map(|path| resolve(own, path, &files));
        named.filter(|other| !other.starts_with(own) && !own.starts_with(other)).collect()
    };
    files.iter().map(|(own, file)| (own.clone(), imports(own, file))).collect()
}

/// The groups of files that reach each other, each by its paths.
pub fn circles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = graph.keys().map(|from| (from, reach(graph, from))).collect();
    let mut circles = BTreeSet::new();
    for from in graph.keys().filter(|from| reached[from].contains(from)) {
        let circle = reached[from].iter().filter(|other| reached[**other].contains(from));
        circles.insert(circle.map(|module| module.join("/")).collect::<Vec<_>>());
    }
    circles.into_iter().collect()
}

/// Everything that `from` imports, imports of imports included.
fn reach<'g>(graph: &'g BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<&'g Module> {
    let mut seen = BTreeSet::new();
    let mut next = graph[from].iter().collect::<Vec<_>>();
    while let Some(module) = next.pop() {
        if seen.insert(module) {
            next.extend(&graph[module]);
        }
    }
    seen
}

fn module(path: &str) -> Module {
    let mut names: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if names.last().is_some_and(|last| last == "mod") {
        names.pop();
    }
    names
}

/// The longest part of a path, as seen from `own`, that is a file; and where that has the rest from, if it exports it.
fn resolve(own: &Module, path: &[String], files: &Files) -> Vec<Module> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let (mut at, rest) = match path.first().map(String::as_str) {
        Some("crate") => (Module::new(), &path[1..]),
        Some("super") if supers <= own.len() => (own[..own.len() - supers].to_vec(), &path[supers..]),
        Some("self") => (own.clone(), &path[1..]),
        // A module below, in `pub use b::B`.
        Some(name) if files.contains_key(&[&own[..], &[name.to_owned()]].concat()) => (own.clone(), path),
        _ => return Vec::new(),
    };
    let mut found = files.contains_key(&at).then(|| (at.clone(), rest.first()));
    for (i, name) in rest.iter().enumerate() {
        at.push(name.clone());
        if !files.contains_key(&at) {
            break;
        }
        found = Some((at.clone(), rest.get(i + 1)));
    }
    let Some((module, item)) = found else { return Vec::new() };
    let exported = item.and_then(|name| files[&module].exports.get(name));
    let mut all = exported.map_or_else(Vec::new, |path| resolve(&module, path, files));
    all.push(module);
    all
}

/// Paths that begin with `crate` or `super`, groups spread out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let starts = ["crate::", "super::"]
        .iter()
        .flat_map(|start| code.match_indices(start))
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | ':')));
    let mut paths = Vec::new();
    for (at, _) in starts {
        spread(&code[at..], &mut Vec::new(), &mut paths);
    }
    paths.into_iter().map(|(path, _)| path).collect()
}

/// What `pub use`, `pub(crate) use` and the like name.
fn exports(code: &str) -> BTreeMap<String, Vec<String>> {
    let mut paths = Vec::new();
    for (at, word) in code.match_indices("use ") {
        let item = code[..at].rsplit([';', '}', ']']).next().unwrap_or_default().trim();
        if item == "pub" || item.starts_with("pub(") && item.ends_with(')') {
            spread(&code[at + word.len()..], &mut Vec::new(), &mut paths);
        }
    }
    paths.into_iter().map(|(path, name)| (name, path)).collect()
}

/// Reads one path, with the name that it is given; returns how many bytes it took.
fn spread(code: &str, before: &mut Vec<String>, paths: &mut Vec<(Vec<String>, String)>) -> usize {
    let begin = code.len() - code.trim_start().len();
    if code[begin..].starts_with('{') {
        let mut at = begin + 1;
        while !code[at..].trim_start().starts_with('}') && at < code.len() {
            at += spread(&code[at..], &mut before.clone(), paths);
            at += code[at..].find([',', '}']).unwrap_or(code.len() - at);
            at += usize::from(code[at..].starts_with(','));
        }
        return at + code[at..].find('}').map_or(0, |end| end + 1);
    }
    let identifier = |code: &str| code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let name = identifier(&code[begin..]);
    let end = begin + name.len();
    if name.is_empty() {
        return end;
    }
    before.push(name);
    if code[end..].starts_with("::") {
        return end + 2 + spread(&code[end + 2..], before, paths);
    }
    let renamed = code[end..].trim_start().strip_prefix("as ").map(|rest| identifier(rest.trim_start()));
    let own = if before.last().is_some_and(|last| last == "self") { before.iter().nth_back(1) } else { before.last() };
    paths.push((before.clone(), renamed.or_else(|| own.cloned()).unwrap_or_default()));
    end
}

#[test]
fn a_circle_is_found_through_groups_and_supers() {
    let file = |path: &str, source: &str| (path.to_owned(), source.to_owned());
    let mut sources = vec![
        file("a/mod.rs", "mod b; mod c; pub use b::B;"),
        file("a/b.rs", "use super::{A, c::{self, d::D}};"),
        file("a/c.rs", "fn f() { crate::e::g(); }"),
        file("e.rs", "#[cfg(test)]\nmod tests { use crate::a::b::B; }"),
    ];
    assert!(circles(&graph(&sources)).is_empty());
    sources[3].1 = "use crate::{f, a::b::B};".into();
    assert_eq!(circles(&graph(&sources)), [["a/b", "a/c", "e"]]);
    // By what the module above has from `a/b`, under another name.
    sources[0].1 = "mod b; mod c; pub(crate) use self::{b::{B as Named}, c::C};".into();
    sources[3].1 = "use crate::a::Named;".into();
    assert_eq!(circles(&graph(&sources)), [["a/b", "a/c", "e"]]);
    sources[3].1 = "use crate::a::Other;".into();
    assert!(circles(&graph(&sources)).is_empty());
}
