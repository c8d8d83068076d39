//! A config with slips of the finger: every one is refused, all at once, each with its line and what was meant.

use std::collections::BTreeMap;

use clsgen::config::Config;
use serde_json::Value;

use super::work::Work;
use crate::common;

/// Slips in all, and how many must be told what was meant.
const TYPOS: usize = 100;
const RIGHT: usize = 95;

/// Every key that stands in a section.
fn keys() -> Vec<(String, String)> {
    let sections = serde_json::to_value(Config::default()).unwrap();
    let sections = sections.as_object().unwrap();
    let keys = sections.iter().flat_map(|(section, keys)| {
        let keys = keys.as_object().into_iter().flatten().filter(|(_, value)| !matches!(value, Value::Object(_)));
        keys.map(move |(key, _)| (section.clone(), key.clone()))
    });
    keys.collect()
}

/// The `n`-th way to write a key wrong.
fn slip(n: usize, (section, key): &(String, String), all: &[(String, String)]) -> (String, String) {
    let letters: Vec<char> = key.chars().collect();
    // Not the first letter: that one is seldom missed.
    let at = 1 + n / 5 * 7 % (letters.len() - 1).max(1);
    let at = at.min(letters.len() - 1);
    let mut wrong = letters.clone();
    let mut elsewhere = section.clone();
    match n % 5 {
        0 => _ = wrong.remove(at),
        1 => {
            let swap = (1..letters.len() - 1).cycle().skip(at - 1).take(letters.len());
            let differ = swap.into_iter().find(|&i| letters[i] != letters[i + 1]).unwrap_or(0);
            wrong.swap(differ, differ + 1);
        }
        2 => wrong.insert(at, letters[at]),
        3 if n.is_multiple_of(2) => wrong.iter_mut().for_each(|letter| letter.make_ascii_uppercase()),
        3 => wrong[0].make_ascii_uppercase(),
        _ => {
            let sections = all.iter().map(|(section, _)| section).filter(|other| *other != section);
            let lacks = |other: &&String| !all.contains(&((*other).clone(), key.clone()));
            elsewhere = sections.filter(lacks).cycle().nth(n * 3).unwrap().clone();
        }
    }
    (elsewhere, wrong.into_iter().collect())
}

#[test]
fn a_hundred_typos_are_all_told_at_once() {
    let all = keys();
    let mut typos: Vec<((String, String), String)> = Vec::new();
    for n in 0.. {
        let meant = &all[n * 37 % all.len()];
        if meant.1.len() < 3 {
            continue;
        }
        let wrong = slip(n, meant, &all);
        if all.contains(&wrong) || typos.iter().any(|(other, _)| *other == wrong) {
            continue;
        }
        typos.push((wrong, format!("{}.{}", meant.0, meant.1)));
        if typos.len() == TYPOS {
            break;
        }
    }
    let mut text = String::new();
    let mut lines: BTreeMap<usize, (String, String)> = BTreeMap::new();
    for section in all.iter().map(|(section, _)| section).collect::<std::collections::BTreeSet<_>>() {
        text.push_str(&format!("[{section}]\n"));
        for ((_, key), meant) in typos.iter().filter(|((at, _), _)| at == section) {
            text.push_str(&format!("{key} = 1\n"));
            lines.insert(text.lines().count(), (format!("{section}.{key}"), meant.clone()));
        }
    }
    // And three more of other kinds, which the same command tells.
    let rest = "[trian]\nepochs = 1\n[data.fields]\ntext = 3\n";
    text.push_str(rest);
    let work = Work::new(2);
    work.write("c.toml", &text);
    let told =
        common::outcome(common::clsgen().current_dir(work.path("")).args(["train", "--dry-run", "--config", "c.toml"]));
    common::assert_fails(
        &told,
        2,
        &["102 problems in the configuration", "unknown section [trian]; did you mean [train]?"],
    );
    let mut right = 0;
    for (line, (written, meant)) in &lines {
        let wanted = format!("c.toml:{line}: unknown key {written}");
        let found = told.stderr.lines().find(|told| told.trim_start().starts_with(&wanted));
        let found = found.unwrap_or_else(|| panic!("{wanted}: not told\n{}", told.stderr));
        let suggested = found.split_once("did you mean ").map_or("", |(_, suggested)| suggested);
        let is_right = suggested.trim_end_matches('?').split([',', ' ']).any(|key| key == meant);
        right += usize::from(is_right);
        if !is_right {
            common::say(&format!("{written} (meant {meant}): {found}"));
        }
    }
    common::say(&format!("typos: {right} of {} right", lines.len()));
    assert!(lines.len() == TYPOS && right >= RIGHT, "{right}");
}

/// Keys that contradict each other are told beside those that are wrong alone, each with its line.
#[test]
fn contradictions_are_told_with_the_rest() {
    let work = Work::new(2);
    work.write(
        "c.toml",
        "[train]\nepochs = 0\nw_gen = 0\nw_cls = 0\nbatch_size = 3\neffective_batch = 32\n\
         loss_schedule = \"liner\"\n[eval]\nsubgroups = [\"id\"]\n",
    );
    let told =
        common::outcome(common::clsgen().current_dir(work.path("")).args(["train", "--dry-run", "--config", "c.toml"]));
    let texts = [
        "4 problems in the configuration",
        "c.toml:2: train.epochs must be",
        "c.toml:7: train.loss_schedule must be one of constant, linear",
        "c.toml:6: train.effective_batch: 32 is not a multiple of train.batch_size = 3",
        "c.toml:9: eval.subgroups: `id` is a key of every prediction line",
    ];
    common::assert_fails(&told, 2, &texts);
    // What follows from a value that is wrong is not told: who knows what was meant.
    assert!(!told.stderr.contains("both are 0"), "{told:?}");
}
