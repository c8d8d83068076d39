//! Reads the file, overlays `--set`, and collects every problem before giving up.

use std::{collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    Config, Init, LossSchedule, Parameters, check,
    keys::{self, Kind},
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
        Err(error.hint("`clsgen train --dry-run` without --config prints every key with its default"))
    }
}

/// Reads a config file (none: all defaults), applies each `--set key.path=value`, and checks every key, type and
/// range; the error (exit 2) lists all that is wrong.
pub fn load(path: Option<&Path>, sets: &[String]) -> Result<Config> {
    let file = path.map(|path| read(path).map(|text| (path.display().to_string(), text))).transpose()?;
    let mut config = resolved(file.as_ref().map(|(name, text)| (name.as_str(), text.as_str())), sets)?;
    config.dir = path.and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    Ok(config)
}

/// As [`load`], of a text that is not in a file; `name` is what messages call it.
pub fn parse(name: &str, text: &str, sets: &[String]) -> Result<Config> {
    resolved(Some((name, text)), sets)
}

fn resolved(file: Option<(&str, &str)>, sets: &[String]) -> Result<Config> {
    let mut problems = Problems(Vec::new());
    let mut table = Table::new();
    if let Some((file, text)) = file {
        let lines = parse_toml(file, text, &mut problems);
        if problems.0.is_empty() {
            table = toml::from_str(text).map_err(|e| unread(&at(file, text, e.span()), &e))?;
            check_table(file, &table, &lines, &mut problems);
        }
    }
    for set in sets {
        apply_set(set, &mut table, &mut problems);
    }
    problems.into_result()?;
    let given = table.iter().filter_map(|(section, keys)| Some((section, keys.as_table()?)));
    let given = given.flat_map(|(section, keys)| keys.keys().map(move |key| format!("{section}.{key}"))).collect();
    let mut config: Config =
        Value::Table(table).try_into().map_err(|e: toml::de::Error| unread("configuration", &e))?;
    config.given = given;
    config.data.carried.clone_from(&config.eval.subgroups);
    config.data.labels.clone_from(&config.task.labels);
    check_together(&config)?;
    Ok(config)
}

/// TOML that is well-formed and still cannot be taken, such as an integer beyond 64 bits.
fn unread(place: &str, error: &toml::de::Error) -> Error {
    Error::usage(format!("{place}: {}", error.message()))
        .hint("`clsgen train --dry-run` without --config prints every key with its default")
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

/// Keys, types and ranges of a whole file, in the file's order.
fn check_table(file: &str, table: &Table, lines: &BTreeMap<String, usize>, problems: &mut Problems) {
    let mut found = Vec::new();
    check_level("", table, &mut |path, message| found.push((lines.get(path).copied().unwrap_or(1), message)));
    found.sort_by_key(|(line, _)| *line);
    for (line, message) in found {
        problems.add(&format!("{file}:{line}"), message);
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
    let near = keys::nearest(path).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
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
    let Some(kind) = keys::kind_of(path).filter(|kind| *kind != Kind::Map) else {
        return problems.add(&place, unknown(path, false));
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
        Kind::List(..) | Kind::Labels => parsed.filter(Value::is_array).unwrap_or_else(|| {
            Value::Array(
                raw.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Value::String(item.into()))
                    .collect(),
            )
        }),
        // TOML wants a digit on both sides of the point; a shell user's `.00002` and `2.e-5` are plain numbers all the
        // same.
        Kind::Number(..) | Kind::Above(..) | Kind::Below(..) => parsed.unwrap_or_else(|| {
            let plain = raw.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
            raw.parse().ok().filter(|_| plain).map_or_else(bare, Value::Float)
        }),
        _ => parsed.unwrap_or_else(bare),
    }
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

/// What no key can say alone.
/// The keys of a prediction line, which no column of `eval.subgroups` may take.
const PREDICTION_KEYS: [&str; 20] = [
    "id",
    "label",
    "probability",
    "calibrated_probability",
    "logits",
    "probabilities",
    "calibrated_probabilities",
    "predicted",
    "verbalized_label",
    "parsable",
    "explanation",
    "text",
    "agreement",
    "group",
    "prompt_tokens",
    "truncated_tokens",
    "generated_tokens",
    "finish",
    "error",
    "record",
];

fn check_together(config: &Config) -> Result<()> {
    let mut problems = Problems(Vec::new());
    if let Some(name) = config.eval.subgroups.iter().find(|name| PREDICTION_KEYS.contains(&name.as_str())) {
        problems
            .add("eval.subgroups", format!("`{name}` is a key of every prediction line: give the column another name"));
    }
    let train = &config.train;
    let ends = [train.w_gen_end.unwrap_or(train.w_gen), train.w_cls_end.unwrap_or(train.w_cls)];
    let always_zero =
        train.w_gen == 0.0 && train.w_cls == 0.0 && (train.loss_schedule == LossSchedule::Constant || ends == [0.0; 2]);
    if always_zero && train.objective == super::Objective::Joint {
        problems.add("train.w_gen, train.w_cls", "both are 0: nothing would be trained");
    }
    match (train.loss_schedule, train.w_gen_end.or(train.w_cls_end)) {
        (LossSchedule::Linear, None) => {
            problems.add("train.loss_schedule", "\"linear\" needs train.w_gen_end or train.w_cls_end")
        }
        (LossSchedule::Constant, Some(_)) => {
            problems.add("train.w_gen_end, train.w_cls_end", "are read under train.loss_schedule = \"linear\" alone");
        }
        _ => {}
    }
    if train.w_consistency > 0.0 && train.objective != super::Objective::Joint {
        problems
            .add("train.w_consistency", "compares head and text, which train.objective = \"joint\" alone trains both");
    }
    if let Some(effective) = train.effective_batch.filter(|effective| effective % train.batch_size != 0) {
        problems.add(
            "train.effective_batch",
            format!("{effective} is not a multiple of train.batch_size = {}", train.batch_size),
        );
    }
    if train.init == Init::Random && train.parameters != Parameters::Full {
        problems.add(
            "train.init",
            "\"random\" leaves nothing for an adapter to adapt: it needs train.parameters = \"full\"",
        );
    }
    for (key, model, name) in config.servers() {
        if model.is_some_and(super::is_server) && name.is_none() {
            problems.add(key, format!("names a server, so {key}_name must be the model's name there (GET /v1/models)"));
        }
    }
    if train.init == Init::Random && train.init_from.is_some() {
        problems.add("train.init, train.init_from", "weights come from one place: leave one of the two out");
    }
    problems.into_result()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
