//! One value against its key: the message says what would be right.

use toml::Value;

use super::{
    is_server,
    keys::{Kind, closest},
};
use crate::labels::Labels;

/// `None` when the value suits; else what is wrong with it, to follow the key's name.
pub(super) fn problem(kind: Kind, value: &Value) -> Option<String> {
    match kind {
        Kind::Text(may_be_empty) | Kind::Path(may_be_empty) => text(value, may_be_empty).err(),
        Kind::Model(may_be_empty) => text(value, may_be_empty).and_then(model).err(),
        Kind::Server(may_be_empty) => text(value, may_be_empty).and_then(server).err(),
        Kind::Name => text(value, false).and_then(name).err(),
        Kind::Bool => (!value.is_bool()).then(|| wanted("true or false", value)),
        Kind::Integer(low, high) => {
            let right = value.as_integer().is_some_and(|i| (low..=high).contains(&i));
            (!right).then(|| wanted(&integer_range(low, high), value))
        }
        Kind::IntegerOf(list) => {
            let right = value.as_integer().is_some_and(|i| list.iter().any(|one| i64::from(*one) == i));
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            (!right).then(|| wanted(&one_of(&list), value))
        }
        Kind::Number(low, high) => number(value, &format!("from {low} to {high}"), |x| (low..=high).contains(&x)),
        Kind::Above(low, high) => number(value, &format!("above {low}, at most {high}"), |x| x > low && x <= high),
        Kind::Below(low, high) => number(value, &format!("from {low}, below {high}"), |x| x >= low && x < high),
        Kind::Numbers(low, high) => numbers(value, low, high),
        Kind::Weights(words, high) => weights(value, words, high),
        Kind::OneOf(list) => choice(value, list),
        Kind::List(of, least) => list(value, of, least),
        Kind::Labels => labels(value),
        Kind::Map => (!value.is_table()).then(|| wanted("a table of name = \"column\"", value)),
    }
}

fn wanted(what: &str, value: &Value) -> String {
    format!("must be {what}, not {}", display(value))
}

/// A value as the user wrote it, cut where long.
fn display(value: &Value) -> String {
    let text = match value {
        Value::Table(_) => "a table".into(),
        other => other.to_string(),
    };
    if text.chars().count() <= 60 { text } else { format!("{}…", text.chars().take(60).collect::<String>()) }
}

fn text(value: &Value, may_be_empty: bool) -> Result<&str, String> {
    match value.as_str() {
        Some(text) if may_be_empty || !text.trim().is_empty() => Ok(text),
        Some(_) => Err("must not be empty".into()),
        None => Err(wanted("a string", value)),
    }
}

fn name(text: &str) -> Result<&str, String> {
    let fits = text != "."
        && text != ".."
        && text.len() <= 200
        && !text.contains(|c: char| c == '/' || c == '\\' || c.is_control());
    if fits { Ok(text) } else { Err("names a directory: no slashes, no control characters, at most 200 bytes".into()) }
}

fn model(text: &str) -> Result<&str, String> {
    if is_server(text) {
        return Err("names a server, but its weights are read here: give a directory, a hub id (owner/name) or a \
                    .gguf file; servers may be construct.teacher, eval.judge and eval.baseline_model"
            .into());
    }
    Ok(text)
}

/// A model's place here, or the address of a server: one that holds no password, since it is logged and recorded.
fn server(text: &str) -> Result<&str, String> {
    if !is_server(text) {
        return Ok(text);
    }
    let wanted = "must be http(s)://HOST[:PORT]/v1";
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').ok_or_else(|| format!("{wanted}: the path is missing"))?;
    if authority.contains('@') {
        return Err("holds a name or password: give the key in the variable that remote.key_env names".into());
    }
    if text.contains(['?', '#']) || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("{wanted}, without ? or # or spaces"));
    }
    // `[::1]:8000` has colons of its own.
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        None => (authority, true),
    };
    let known = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
    if host.is_empty() || !port || !known || path.trim_matches('/').is_empty() {
        return Err(wanted.into());
    }
    Ok(text)
}

fn integer_range(low: i64, high: i64) -> String {
    match (low, high) {
        (0, i64::MAX) => "an integer of 0 or more".into(),
        _ => format!("an integer from {low} to {high}"),
    }
}

fn number(value: &Value, range: &str, fits: impl Fn(f64) -> bool) -> Option<String> {
    let number = value.as_float().or_else(|| value.as_integer().map(|i| i as f64));
    (!number.is_some_and(|x| x.is_finite() && fits(x))).then(|| wanted(&format!("a number {range}"), value))
}

fn numbers(value: &Value, low: f64, high: f64) -> Option<String> {
    let range = format!("above {low}, at most {high}");
    let Some(items) = value.as_array() else { return Some(wanted(&format!("a list of numbers {range}"), value)) };
    let mut seen = Vec::new();
    for item in items {
        if let Some(problem) = number(item, &range, |x| x > low && x <= high) {
            return Some(format!("holds an item that {problem}"));
        }
        let number = item.as_float().or_else(|| item.as_integer().map(|i| i as f64));
        if seen.contains(&number) {
            return Some(format!("holds {} twice", display(item)));
        }
        seen.push(number);
    }
    None
}

fn weights(value: &Value, words: &[&str], high: f64) -> Option<String> {
    let range = format!("above 0, at most {high}");
    match value {
        Value::String(word) if words.contains(&word.as_str()) => None,
        Value::Array(items) => items
            .iter()
            .find_map(|item| number(item, &range, |x| x > 0.0 && x <= high))
            .map(|problem| format!("holds an item that {problem}")),
        _ => Some(wanted(&format!("{}, or a list of a number {range} for each class", one_of(words)), value)),
    }
}

fn one_of<S: AsRef<str>>(list: &[S]) -> String {
    let names: Vec<&str> = list.iter().map(AsRef::as_ref).collect();
    format!("one of {}", names.join(", "))
}

fn choice(value: &Value, list: &[&str]) -> Option<String> {
    let Some(text) = value.as_str() else { return Some(wanted(&one_of(list), value)) };
    if list.contains(&text) {
        return None;
    }
    if list.contains(&"joint") && ["dpo", "grpo", "ppo", "orpo", "kto", "rlhf"].contains(&text.to_lowercase().as_str())
    {
        return Some(format!(
            "must be {}: preference and reinforcement training ({text}) is out of scope",
            one_of(list)
        ));
    }
    let near = closest(&text.to_lowercase(), list.iter().copied())
        .map(|near| format!("; did you mean {near:?}?"))
        .unwrap_or_default();
    Some(format!("{}{near}", wanted(&one_of(list), value)))
}

fn list(value: &Value, of: Option<&[&str]>, least: usize) -> Option<String> {
    let Some(items) = value.as_array() else { return Some(wanted("a list of strings", value)) };
    if items.len() < least {
        return Some("must not be empty".into());
    }
    let mut seen = Vec::new();
    for item in items {
        if let Some(problem) = of.map_or_else(|| text(item, false).err(), |of| choice(item, of)) {
            return Some(format!("holds an item that {problem}"));
        }
        if seen.contains(&item) {
            return Some(format!("holds {} twice", display(item)));
        }
        seen.push(item);
    }
    None
}

fn labels(value: &Value) -> Option<String> {
    let names: Option<Vec<String>> =
        value.as_array().and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect());
    let Some(names) = names else { return Some(wanted("a list of strings, class 0 then class 1 and so on", value)) };
    // In a file it would be taken for the number of another class.
    let misleading = |(k, name): &(usize, &String)| name.parse::<usize>().is_ok_and(|number| number != *k);
    if let Some((k, name)) = names.iter().enumerate().find(misleading) {
        return Some(format!("names class {k} {name:?}: classes are numbered from 0, so a number may only be its own"));
    }
    Labels::new(names).err()
}
