//! The tables of `configs/README.md` are what the program reads: its keys, their defaults, the values it asks for.

use std::collections::BTreeMap;

use clsgen::config::{self, Config};
use serde_json::{Map, Value};

const GUIDE: &str = include_str!("../configs/README.md");

/// One key of a table.
struct Documented<'a> {
    values: &'a str,
    default: &'a str,
    text: &'a str,
}

/// Rows of the tables behind "Every key".
fn documented() -> BTreeMap<&'static str, Documented<'static>> {
    let (_, tables) = GUIDE.split_once("\n## Every key\n").expect("configs/README.md has a section Every key");
    let mut keys = BTreeMap::new();
    for line in tables.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [key, values, default, text] = cells[..] else { panic!("not four cells: {line}") };
        let again = keys.insert(key.trim_matches('`'), Documented { values, default, text });
        assert!(again.is_none(), "{key} stands twice in configs/README.md");
    }
    keys
}

/// `section.key` of every leaf; a table without entries is one.
fn flatten(prefix: &str, table: &Map<String, Value>, into: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let path = format!("{prefix}{name}");
        match value.as_object().filter(|inner| !inner.is_empty()) {
            Some(inner) => flatten(&format!("{path}."), inner, into),
            None => _ = into.insert(path, value.clone()),
        }
    }
}

fn defaults() -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    let config = serde_json::to_value(Config::default()).unwrap();
    flatten("", config.as_object().unwrap(), &mut keys);
    keys
}

/// What the program asks for when a key is given nonsense: `one of a, b`, `a number from 0 to 1`, …; `None` where any
/// string will do.
fn asked_for(key: &str) -> Option<String> {
    let error = config::load(None, &[format!("{key}=\u{a7}")]).err()?.to_string();
    let (_, rule) = error.split_once(" must be ")?;
    Some(rule.split(", not ").next()?.to_owned())
}

#[test]
fn every_key_stands_in_the_guide_with_its_default() {
    let documented = documented();
    let program = defaults();
    let mut wrong = Vec::new();
    for (key, value) in &program {
        let Some(row) = documented.get(key.as_str()) else {
            wrong.push(format!("missing key {key}"));
            continue;
        };
        let default = match row.default {
            "–" => Ok(Value::Null),
            text => serde_json::from_str(text.trim_matches('`')),
        };
        if default.ok().as_ref() != Some(value) {
            wrong.push(format!("key {key}: its default is {value}, not {}", row.default));
        }
        if row.text.len() < 5 {
            wrong.push(format!("key {key}: nothing says what it does"));
        }
    }
    let stale = documented.keys().filter(|key| !program.contains_key(**key));
    wrong.extend(stale.map(|key| format!("stale key {key}: the program has none of this name")));
    assert!(wrong.is_empty(), "configs/README.md, Every key:\n{}", wrong.join("\n"));
}

#[test]
fn the_values_of_every_key_are_those_that_the_program_asks_for() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (key, row) in documented() {
        let Some(rule) = asked_for(key) else { continue };
        checked += 1;
        let right = match rule.strip_prefix("one of ") {
            Some(names) => row.values.trim_start_matches("a list of ").replace('`', "") == names,
            None => row.values == rule,
        };
        if !right {
            wrong.push(format!("key {key}: {rule}, not {}", row.values));
        }
    }
    assert!(checked > 60, "only {checked} keys say what they ask for");
    assert!(wrong.is_empty(), "configs/README.md, Every key:\n{}", wrong.join("\n"));
}
