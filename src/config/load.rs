//! Reads the file, overlays `--set`, and collects every problem before giving up.

use std::{collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    Config, check,
    keys::{self, Kind},
    together::{Contradiction, contradictions},
};
use crate::{
    error::{Error, Result},
    foreign,
};

/// Where a value came from, and what is wrong with it.
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, place: &str, message: impl AsRef<str>) {
        self.0.push(format!("{place}: {}", message.as_ref()));
    }

    /// All of them as one error (exit 2), in file order, then in the order of `--set`.
    fn into_result(self) -> Result<()> {
        let error = match self.0.as_slice() {
            [] => return Ok(()),
            [one] => Error::usage(one.clone()),
            many => Error::usage(format!("{} problems in the configuration\n  {}", many.len(), many.join("\n  "))),
        };
        Err(error.hint("`clsgen train --dry-run --json` without --config prints every key with its default"))
    }
}

/// Reads a config file (none: all defaults), applies each `--set key.path=value`, and checks every key, type and
/// range; the error (exit 2) lists all that is wrong.
pub fn load(path: Option<&Path>, sets: &[String]) -> Result<Config> {
    let file = path.map(|path| read(path).map(|text| (path.display().to_string(), text))).transpose()?;
    let dir = path.and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let sets: Vec<String> = sets.iter().map(|set| from_here(set, &dir).unwrap_or_else(|| set.clone())).collect();
    let mut config = resolved(file.as_ref().map(|(name, text)| (name.as_str(), text.as_str())), &sets)?;
    config.dir = dir;
    Ok(config)
}

/// A `--set` of a path as an absolute one, where it leads to one thing from the working directory and to another from
/// the config's, where the config's own paths begin: who types it is here.
fn from_here(set: &str, dir: &Path) -> Option<String> {
    let (key, raw) = set.split_once('=')?;
    let named = Path::new(raw.trim().trim_matches(['"', '\'']));
    if !keys::paths().any(|path| path == key.trim()) || named.as_os_str().is_empty() || !dir.join(named).exists() {
        return None;
    }
    let here = named.canonicalize().ok()?;
    // A link stays as named.
    let whole = std::path::absolute(named).ok()?;
    (here != dir.join(named).canonicalize().ok()?).then(|| format!("{key}={}", whole.display()))
}

/// As [`load`], of a text that is not in a file; `name` is what messages call it.
pub fn parse(name: &str, text: &str, sets: &[String]) -> Result<Config> {
    resolved(Some((name, text)), sets)
}

fn resolved(file: Option<(&str, &str)>, sets: &[String]) -> Result<Config> {
    let mut problems = Problems(Vec::new());
    let mut table = Table::new();
    let mut lines = BTreeMap::new();
    let mut wrong = Vec::new();
    if let Some((file, text)) = file {
        lines = parse_toml(file, text, &mut problems);
        // Of a broken file nobody knows what it says.
        if !problems.0.is_empty() {
            return problems.into_result().map(|()| Config::default());
        }
        table = toml::from_str(text).map_err(|e| unread(&at(file, text, e.span()), &e))?;
        wrong = check_table(file, &table, &lines, &mut problems);
    }
    wrong.iter().for_each(|path| remove(&mut table, path));
    for set in sets {
        apply_set(set, &mut table, &mut problems);
    }
    let given = table.iter().filter_map(|(section, keys)| Some((section, keys.as_table()?)));
    let given = given.flat_map(|(section, keys)| keys.keys().map(move |key| format!("{section}.{key}"))).collect();
    let mut config: Config =
        Value::Table(table).try_into().map_err(|e: toml::de::Error| unread("configuration", &e))?;
    config.given = given;
    config.data.carried.clone_from(&config.eval.subgroups);
    config.data.labels.clone_from(&config.task.labels);
    let name = file.map_or("", |(name, _)| name);
    check_together(
        &config,
        &wrong,
        |key| lines.get(key).map(|line| (*line, format!("{name}:{line}: "))),
        &mut problems,
    );
    problems.into_result().map(|()| config)
}

/// Keys that contradict each other, where nothing is wrong with any of them alone; with the line of a file that gives
/// one of them.
fn check_together(
    config: &Config,
    wrong: &[String],
    place: impl Fn(&str) -> Option<(usize, String)>,
    problems: &mut Problems,
) {
    for Contradiction { keys, with, message } in contradictions(config) {
        let named = || keys.iter().map(String::as_str);
        if !named().chain(with.iter().copied()).any(|key| wrong.iter().any(|wrong| key == wrong)) {
            let line = named().filter_map(&place).min().or_else(|| with.iter().copied().filter_map(&place).min());
            let place = line.map(|(_, place)| place).unwrap_or_default();
            problems.add(&format!("{place}{}", keys.join(", ")), message);
        }
    }
}

/// TOML that is well-formed and still cannot be taken, such as an integer beyond 64 bits.
fn unread(place: &str, error: &toml::de::Error) -> Error {
    Error::usage(format!("{place}: {}", error.message()))
        .hint("`clsgen train --dry-run --json` without --config prints every key with its default")
}

fn line(text: &str, span: &Range<usize>) -> usize {
    1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|&&b| b == b'\n').count()
}

/// `FILE:LINE`, or the file alone.
fn at(file: &str, text: &str, span: Option<Range<usize>>) -> String {
    span.map_or_else(|| file.to_owned(), |span| format!("{file}:{}", line(text, &span)))
}

fn read(path: &Path) -> Result<String> {
    let file = path.display();
    let bytes = foreign::read(path, foreign::SMALL).map_err(|e| {
        Error::usage(format!("cannot read config {file}: {}", crate::storage::reason(&e)))
            .hint("--config takes a TOML file; see configs/")
    })?;
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        Error::usage(format!("{file}:{line}: not UTF-8")).hint("save the config file as UTF-8 text")
    })
}

/// Syntax: every error of the file; and the line of every key.
fn parse_toml(file: &str, text: &str, problems: &mut Problems) -> BTreeMap<String, usize> {
    let line = |span: Range<usize>| line(text, &span);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.add(&at(file, text, error.span()), error.message().trim().replace('\n', ", "));
    }
    let mut lines = BTreeMap::new();
    note_lines("", table.get_ref(), &line, &mut lines);
    lines
}

fn note_lines(
    prefix: &str,
    table: &DeTable<'_>,
    line: &dyn Fn(Range<usize>) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table.iter() {
        let path = format!("{prefix}{}", key.get_ref());
        lines.insert(path.clone(), line(key.span()));
        if let DeValue::Table(inner) = value.get_ref() {
            note_lines(&format!("{path}."), inner, line, lines);
        }
    }
}

/// Keys, types and ranges of a whole file, in the file's order; gives the keys that are wrong.
fn check_table(file: &str, table: &Table, lines: &BTreeMap<String, usize>, problems: &mut Problems) -> Vec<String> {
    let mut found = Vec::new();
    check_level("", table, &mut |path, message| {
        found.push((lines.get(path).copied().unwrap_or(1), message, path.to_owned()));
    });
    found.sort_by_key(|(line, ..)| *line);
    found.iter().for_each(|(line, message, _)| problems.add(&format!("{file}:{line}"), message));
    found.into_iter().map(|(.., path)| path).collect()
}

/// Takes a key out, so that the others can be looked at together.
fn remove(table: &mut Table, path: &str) {
    match path.split_once('.') {
        Some((head, rest)) if table.get(head).is_some_and(Value::is_table) => {
            if let Some(Value::Table(inner)) = table.get_mut(head) {
                remove(inner, rest);
            }
        }
        _ => _ = table.remove(path),
    }
}

fn check_level(prefix: &str, table: &Table, report: &mut dyn FnMut(&str, String)) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match (value, keys::is_table(&path)) {
            (Value::Table(inner), true) => check_level(&format!("{path}."), inner, report),
            (_, true) => report(&path, format!("{path} is a section: write [{path}]")),
            (_, false) => match keys::kind_of(&path) {
                Some(kind) => {
                    if let Some(problem) = check::problem(kind, value) {
                        report(&path, format!("{path} {problem}"));
                    }
                }
                None => report(&path, unknown(&path, prefix.is_empty() && value.is_table())),
            },
        }
    }
}

fn unknown(path: &str, section: bool) -> String {
    if section {
        let near = keys::nearest_section(path).map(|near| format!("; did you mean [{near}]?")).unwrap_or_default();
        return format!("unknown section [{path}]{near}");
    }
    let near = match keys::nearest(path)[..] {
        [] => String::new(),
        [near] => format!("; did you mean {near}?"),
        [ref more @ .., last] => format!("; did you mean {} or {last}?", more.join(", ")),
    };
    format!("unknown key {path}{near}")
}

/// One `--set key.path=value` into the table, after the file's checks.
fn apply_set(set: &str, table: &mut Table, problems: &mut Problems) {
    let place = format!("--set {set}");
    let Some((path, raw)) = set.split_once('=') else {
        return problems.add(&place, "write it as key.path=value");
    };
    let path = path.trim();
    let raw = raw.trim();
    let kind = match keys::kind_of(path) {
        Some(Kind::Map) => {
            return problems.add(&place, format!("{path} is a table: set each of its keys, {path}.NAME=VALUE"));
        }
        Some(kind) => kind,
        None if keys::is_table(path) => {
            return problems.add(&place, format!("{path} is a section: set each of its keys, {path}.KEY=VALUE"));
        }
        None => return problems.add(&place, unknown(path, false)),
    };
    let value = set_value(kind, raw);
    match check::problem(kind, &value) {
        Some(problem) => problems.add(&place, format!("{path} {problem}")),
        None => insert(table, path, value),
    }
}

/// Reads a value as its key wants it: strings need no quotes, lists may be `a,b,c`.
fn set_value(kind: Kind, raw: &str) -> Value {
    let parsed = format!("value = {raw}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    let bare = || Value::String(raw.to_owned());
    match kind {
        Kind::Text(_) | Kind::Name | Kind::Path(_) | Kind::Model(_) | Kind::Server(_) | Kind::OneOf(_) => {
            parsed.filter(Value::is_str).unwrap_or_else(bare)
        }
        Kind::List(..) | Kind::Labels => parsed.filter(Value::is_array).unwrap_or_else(|| list_value(raw)),
        // A word, or the numbers of a list.
        Kind::Weights(..) => parsed.filter(|value| value.is_array() || value.is_str()).unwrap_or_else(|| {
            let list = raw.split(',').map(|item| item.trim().parse().map(Value::Float)).collect::<Result<_, _>>();
            list.map_or_else(|_| bare(), Value::Array)
        }),
        // As a list of strings is: `0.8,0.9`, or one number.
        Kind::Numbers(..) => match parsed {
            Some(list @ Value::Array(_)) => list,
            _ => format!("value = [{raw}]")
                .parse::<Table>()
                .ok()
                .and_then(|mut table| table.remove("value"))
                .unwrap_or_else(bare),
        },
        // TOML wants a digit on both sides of the point; a shell user's `.00002` and `2.e-5` are plain numbers all the
        // same.
        Kind::Number(..) | Kind::Above(..) | Kind::Below(..) => parsed.unwrap_or_else(|| {
            let plain = raw.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
            raw.parse().ok().filter(|_| plain).map_or_else(bare, Value::Float)
        }),
        _ => parsed.unwrap_or_else(bare),
    }
}

/// A list as a shell user writes it, `a,b,c` or `"a","b"`. A bracket means TOML, whose quotes the shell may have taken
/// away: that is no list.
fn list_value(raw: &str) -> Value {
    let items = || raw.split(',').map(str::trim).filter(|item| !item.is_empty());
    if raw.starts_with('[') {
        return Value::String(raw.to_owned());
    }
    if items().any(|item| item.starts_with(['"', '\''])) {
        let parsed = format!("value = [{raw}]").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        return parsed.unwrap_or_else(|| Value::String(raw.to_owned()));
    }
    Value::Array(items().map(|item| Value::String(item.to_owned())).collect())
}

fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            // A section that is no table was reported already; the config is refused, so what becomes of it is moot.
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
