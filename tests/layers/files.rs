//! Which source file imports which, from its `use` items and its paths that begin with `crate` or `super`.
//!
//! A file and one below it (`ops/linear/mod.rs`, `ops/linear/cpu.rs`) share a module and may name each other; between
//! any two others an import goes one way, so that every file can be understood after those that it stands on.

use std::collections::{BTreeMap, BTreeSet};

use super::{code_only, shipped};

/// A file by its module path: `["ops", "linear", "cpu"]`.
type Module = Vec<String>;

/// File → files that it imports, those above and below it left out.
pub fn graph(sources: &[(String, String)]) -> BTreeMap<Module, BTreeSet<Module>> {
    let files: BTreeMap<Module, &str> = sources.iter().map(|(path, source)| (module(path), source.as_str())).collect();
    let imports = |own: &Module, source: &str| {
        let code = code_only(source);
        let named = paths(shipped(&code)).into_iter().filter_map(|path| resolve(own, &path, &files));
        named.filter(|other| !other.starts_with(own) && !own.starts_with(other)).collect()
    };
    files.iter().map(|(own, source)| (own.clone(), imports(own, source))).collect()
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

/// The longest part of a path, as seen from `own`, that is a file.
fn resolve(own: &Module, path: &[String], files: &BTreeMap<Module, &str>) -> Option<Module> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let (mut at, rest) = match path.first()?.as_str() {
        "crate" => (Module::new(), &path[1..]),
        "super" => (own[..own.len().checked_sub(supers)?].to_vec(), &path[supers..]),
        _ => return None,
    };
    let mut found = files.contains_key(&at).then(|| at.clone());
    for name in rest {
        at.push(name.clone());
        if !files.contains_key(&at) {
            break;
        }
        found = Some(at.clone());
    }
    found
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
    paths
}

/// Reads one path; returns how many bytes it took.
fn spread(code: &str, before: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
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
    let name: String = code[begin..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let end = begin + name.len();
    if name.is_empty() {
        return end;
    }
    before.push(name);
    if code[end..].starts_with("::") {
        return end + 2 + spread(&code[end + 2..], before, paths);
    }
    paths.push(before.clone());
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
}
