//! `tripod-llm.md`: every item of TRIPOD-LLM and TRIPOD+AI, filled or marked.

use std::{collections::BTreeMap, fmt::Write};

use serde::Deserialize;

use super::{Facts, MARK, plain};
use crate::error::{Error, Result};

/// `items.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Items {
    tripod_llm: Vec<Item>,
    tripod_ai: Vec<Item>,
}

/// An item of a guideline.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    /// Where it is the first of a section, that section.
    section: Option<String>,
    /// As the guideline numbers it.
    number: String,
    /// What it is about.
    subject: String,
    /// Names of the facts that fill it.
    #[serde(default)]
    facts: Vec<String>,
    /// What the author is to write where there are none.
    wanted: String,
}

fn items() -> Result<Items> {
    toml::from_str(include_str!("items.toml"))
        .map_err(|e| Error::run(format!("the guidelines' items cannot be read: {}", e.message())))
}

/// The page: `title` says what was scored.
pub fn tripod(task: &str, title: &str, facts: &Facts) -> Result<String> {
    let items = items()?;
    let guidelines = [("TRIPOD-LLM", &items.tripod_llm), ("TRIPOD+AI", &items.tripod_ai)];
    let mut page = format!(
        "# Reporting checklist: {}\n\nTRIPOD-LLM (Gallifant et al., Nature Medicine 2025;31:60–69) and TRIPOD+AI \
         (Collins et al., BMJ 2024;385:e078378), item by item. What was scored: {}.\n\nA filled item repeats what the \
         files of this run state, and claims no more: compare it with the guideline's own words before you submit it. \
         An item that they say nothing of is marked “{} …”, with what is wanted.\n\n",
        plain(task),
        plain(title),
        MARK.trim_end()
    );
    page += "| Guideline | Items | Filled | Yours to write |\n| --- | ---: | ---: | ---: |\n";
    for (name, items) in guidelines {
        let filled = items.iter().filter(|item| item.facts.iter().any(|fact| facts.get(fact).is_some())).count();
        let _ = writeln!(page, "| {name} | {} | {filled} | {} |", items.len(), items.len() - filled);
    }
    // Where a fact of several lines stands; other items refer to it.
    let mut stands: BTreeMap<&str, String> = BTreeMap::new();
    for (name, items) in guidelines {
        let _ = write!(page, "\n## {name}\n");
        for item in items {
            if let Some(section) = &item.section {
                let _ = write!(page, "\n### {section}\n");
            }
            let _ = write!(page, "\n#### {}. {}\n\n", item.number, item.subject);
            let own = format!("{} of {name}", item.number);
            let content: Vec<String> =
                item.facts.iter().filter_map(|fact| Some(told(fact, facts.get(fact)?, &own, &mut stands))).collect();
            match &content[..] {
                [] => _ = writeln!(page, "{MARK}{}", item.wanted),
                content => page += &(content.join("\n\n") + "\n"),
            }
        }
    }
    Ok(page)
}

/// A fact, or where it stands already.
fn told<'a>(name: &'a str, fact: &str, own: &str, stands: &mut BTreeMap<&'a str, String>) -> String {
    if !fact.contains('\n') {
        return fact.to_owned();
    }
    match stands.get(name) {
        Some(place) => format!("What stands under {place} ({name})."),
        None => {
            stands.insert(name, own.to_owned());
            fact.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::NAMES, *};

    #[test]
    fn the_guidelines_have_their_numbers_once_each_and_name_facts_that_there_are() {
        let items = items().unwrap();
        let lettered = |number: &str, letters: &str| letters.chars().map(|c| format!("{number}{c}")).collect();
        let alone = |number: &str| vec![number.to_owned()];
        let llm: Vec<Vec<String>> = vec![
            alone("1"),
            alone("2"),
            lettered("2", "abcdefghijkl"),
            lettered("3", "ab"),
            alone("4"),
            lettered("5", "abcde"),
            lettered("6", "abcde"),
            lettered("7", "abcde"),
            lettered("8", "abc"),
            lettered("9", "ab"),
            ["10", "11", "12", "13"].map(String::from).to_vec(),
            lettered("14", "abcdef"),
            alone("15"),
            lettered("16", "abcd"),
            alone("17"),
            alone("18"),
            lettered("19", "abcdefg"),
        ];
        let ai: Vec<Vec<String>> = vec![
            alone("1"),
            alone("2"),
            lettered("3", "abc"),
            alone("4"),
            lettered("5", "ab"),
            lettered("6", "abc"),
            alone("7"),
            lettered("8", "abc"),
            lettered("9", "abc"),
            ["10", "11"].map(String::from).to_vec(),
            lettered("12", "abcdefg"),
            ["13", "14", "15", "16", "17"].map(String::from).to_vec(),
            lettered("18", "abcdef"),
            alone("19"),
            lettered("20", "abc"),
            ["21", "22"].map(String::from).to_vec(),
            lettered("23", "ab"),
            ["24", "25", "26"].map(String::from).to_vec(),
            lettered("27", "abc"),
        ];
        let numbers = |items: &[Item]| items.iter().map(|item| item.number.clone()).collect::<Vec<_>>();
        assert_eq!(numbers(&items.tripod_llm), llm.concat());
        assert_eq!(numbers(&items.tripod_ai), ai.concat());
        let all = || items.tripod_llm.iter().chain(&items.tripod_ai);
        let named: BTreeSet<&str> = all().flat_map(|item| item.facts.iter().map(String::as_str)).collect();
        assert_eq!(named, NAMES.into_iter().collect());
        assert!(all().all(|item| !item.wanted.is_empty() && !item.subject.is_empty()));
    }

    #[test]
    fn an_item_is_filled_or_marked_and_what_is_long_stands_once() {
        let mut facts = Facts::default();
        facts.set("model", "- a\n- b");
        facts.set("stages", "one line");
        let page = tripod("t", "x", &facts).unwrap();
        assert_eq!(page.matches("- a\n- b").count(), 1);
        assert!(
            page.contains("#### 6a. Model, version, last training\n\nWhat stands under 2f of TRIPOD-LLM (model).\n")
        );
        assert_eq!(page.matches("one line").count(), 3);
        assert!(page.contains("| TRIPOD+AI | 52 | 2 | 50 |"), "{page}");
    }
}
