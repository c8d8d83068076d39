//! `tripod-llm.md` and `model-card.md`: what journals and Hugging Face ask to be told of a run.
//!
//! Both are written from [`Facts`]: what the run's own files state, under names of ours. An item of a guideline
//! (`items.toml`) is filled with the facts that it names, or, where the run has none of them, marked as the author's
//! to write. So nothing is claimed that no file says. Text of records is no fact.

mod checklist;
mod model_card;

use std::collections::BTreeMap;

pub use checklist::tripod;
pub use model_card::{Card, Score};

use super::Table;

/// What stands where the run's files say nothing.
pub const MARK: &str = "to be written by you: ";

/// Every name that a fact may have.
pub const NAMES: [&str; 34] = [
    "building",
    "calibrated",
    "calibration",
    "comparators",
    "compute",
    "counts",
    "decoding",
    "fairness",
    "fields",
    "flow",
    "headline",
    "imbalance",
    "judge",
    "leakage",
    "limits",
    "measures",
    "missing",
    "model",
    "operating",
    "output",
    "program",
    "prompt",
    "reading",
    "results",
    "selection",
    "shares",
    "smooth",
    "sources",
    "stages",
    "subgroups",
    "task",
    "teacher",
    "text",
    "thresholds",
];

/// What the files of a run state, each fact as Markdown under one of [`NAMES`].
#[derive(Debug, Clone, Default)]
pub struct Facts(BTreeMap<&'static str, String>);

impl Facts {
    /// States a fact; an empty one is none.
    pub fn set(&mut self, name: &'static str, fact: impl Into<String>) {
        let fact = fact.into();
        if !fact.trim().is_empty() {
            self.0.insert(name, fact.trim_end().to_owned());
        }
    }

    /// States a fact as a list, a line each; without lines it is none.
    pub fn list(&mut self, name: &'static str, lines: impl IntoIterator<Item = String>) {
        let lines: Vec<String> = lines.into_iter().map(|line| format!("- {line}")).collect();
        self.set(name, lines.join("\n"));
    }

    /// A fact, where the run states it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Text of others (a path, a label, a value of a column) that no Markdown or HTML begins in.
pub fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' => safe.extend(['\\', letter]),
            letter if letter.is_control() => safe.push(' '),
            letter => safe.push(letter),
        }
    }
    safe
}

/// The same as code, which shows it as it is.
pub fn code(text: &str) -> String {
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // Beside a backtick the fence needs a blank, which is not shown.
    let blank = if longest > 0 { " " } else { "" };
    format!("{fence}{blank}{text}{blank}{fence}")
}

/// Lines of a text as a block of code.
pub fn block(text: &str) -> String {
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{}\n{fence}", text.trim_end_matches('\n'))
}

/// These columns of a table, its cells as plain text: narrow enough for a page.
pub fn columns(table: &Table, keep: &[usize]) -> String {
    let pick = |row: &Vec<String>| keep.iter().filter_map(|&at| row.get(at)).map(|cell| plain(cell)).collect();
    Table {
        title: plain(&table.title),
        columns: pick(&table.columns),
        rows: table.rows.iter().map(pick).collect(),
        notes: table.notes.iter().map(|note| plain(note)).collect(),
        ..Table::default()
    }
    .markdown()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_no_markup() {
        assert_eq!(plain("a_b <i>\n*c* [x](y)"), "a\\_b &lt;i> \\*c\\* \\[x\\](y)");
        assert_eq!([code("a_b"), code("a`b")], ["`a_b`", "`` a`b ``"]);
        assert_eq!(block("x\n```\n"), "````text\nx\n```\n````");
    }

    #[test]
    fn an_empty_fact_is_none() {
        let mut facts = Facts::default();
        facts.set("model", " ");
        facts.list("flow", []);
        facts.list("sources", ["a".into(), "b".into()]);
        assert_eq!([facts.get("model"), facts.get("flow"), facts.get("sources")], [None, None, Some("- a\n- b")]);
    }
}
