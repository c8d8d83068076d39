//! `clsgen eval --card`: `model-card.md` and `tripod-llm.md` say what the run's files say, and nothing else.

mod common;
#[path = "evaluation/run.rs"]
mod run;

use std::collections::BTreeMap;

use run::{Fixture, eval, finished_run, json, json_of, notes, stderr, succeed};
use serde_json::Value;

const TEST: [&str; 4] = ["--set", "data.test=test.jsonl", "--set", "data.dev=dev.jsonl"];
const MARK: &str = "to be written by you: ";

fn page(fixture: &Fixture, name: &str) -> String {
    let page = String::from_utf8(fixture.read(&format!("run/eval/{name}"))).unwrap();
    assert!(!page.is_empty(), "{name}");
    page
}

/// Items of each guideline by number, each with what stands under it; no number stands twice.
fn items(page: &str) -> [BTreeMap<String, String>; 2] {
    ["\n## TRIPOD-LLM\n", "\n## TRIPOD+AI\n"].map(|heading| {
        let (_, rest) = page.split_once(heading).unwrap();
        let part = rest.split("\n## ").next().unwrap();
        let mut items = BTreeMap::new();
        for item in part.split("\n#### ").skip(1) {
            let (head, content) = item.split_once('\n').unwrap();
            let content = content.split("\n### ").next().unwrap().trim();
            let number = head.split(". ").next().unwrap().to_owned();
            assert!(items.insert(number, content.to_owned()).is_none(), "{head} stands twice");
        }
        items
    })
}

/// Every item is filled, or marked as the author's, and not both.
fn assert_filled_or_marked([llm, ai]: &[BTreeMap<String, String>; 2]) {
    assert_eq!((llm.len(), ai.len()), (61, 52));
    for (number, content) in llm.iter().chain(ai) {
        assert!(!content.is_empty(), "{number} is empty");
        assert!(content.starts_with(MARK) || !content.contains(MARK), "{number}: {content}");
        assert_eq!(content.matches(MARK).count(), usize::from(content.starts_with(MARK)), "{number}: {content}");
    }
}

fn marked(items: &BTreeMap<String, String>, number: &str) -> bool {
    items[number].starts_with(MARK)
}

/// The front matter of the card: `value`s by `name`.
fn scores(card: &str) -> BTreeMap<String, f64> {
    let (front, _) = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
    let mut names = Vec::new();
    let mut values = Vec::new();
    let (_, metrics) = front.split_once("    metrics:\n").unwrap();
    for line in metrics.lines() {
        if let Some(name) = line.trim().strip_prefix("name: ") {
            names.push(serde_json::from_str(name).unwrap());
        }
        if let Some(value) = line.trim().strip_prefix("value: ") {
            values.push(value.parse().unwrap());
        }
    }
    assert_eq!(names.len(), values.len());
    names.into_iter().zip(values).collect()
}

#[test]
fn the_pages_say_what_the_runs_files_say() {
    let fixture = finished_run();
    succeed(&fixture, &TEST);
    let before = fixture.read("run/eval/test/metrics.json");
    let predictions = fixture.read("run/eval/test/predictions.jsonl");
    assert!(!fixture.path("run/eval/test/tripod-llm.md").exists());
    // Nothing is scored again: the model need not be there.
    std::fs::rename(fixture.path("base"), fixture.path("gone")).unwrap();
    succeed(&fixture, &[&TEST[..], &["--card"]].concat());
    assert_eq!(fixture.read("run/eval/test/metrics.json"), before);
    assert_eq!(fixture.read("run/eval/test/predictions.jsonl"), predictions);

    let card = page(&fixture, "test/model-card.md");
    let metrics = json(&fixture, "metrics.json");
    let found = scores(&card);
    let value = |path: &str| metrics.pointer(path).unwrap()["value"].as_f64();
    assert_eq!(found.get("AUROC").copied(), value("/auroc"));
    assert_eq!(found.get("Brier").copied(), value("/calibration/brier"));
    assert_eq!(found.get("F1 at 0.5").copied(), value("/default/f1"));

    let text = page(&fixture, "test/tripod-llm.md");
    let both = items(&text);
    assert_filled_or_marked(&both);
    let [llm, ai] = &both;
    for number in ["1", "2b", "3a", "5c", "8a", "13", "14a", "14e", "15", "19a", "19d", "8c", "7d", "7e"] {
        assert!(marked(llm, number), "TRIPOD-LLM {number}: {}", llm[number]);
    }
    for number in ["3c", "6a", "8a", "12d", "14", "17", "18c", "19", "27a"] {
        assert!(marked(ai, number), "TRIPOD+AI {number}: {}", ai[number]);
    }
    // Values of metrics.json, as tables show them.
    let row = |name: &str, path: &str| {
        let metric = metrics.pointer(path).unwrap();
        let shown = format!("{:.4}", metric["value"].as_f64().unwrap()).replace('-', "−");
        let rows = llm["17"].lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let rows: Vec<_> = rows.filter(|cells| cells.get(1) == Some(&name)).collect();
        assert_eq!(rows.len(), 1, "{name}: {}", llm["17"]);
        // Value, interval, records close the row.
        let [.., value, interval, n, _] = rows[0][..] else { panic!("{name}") };
        assert_eq!((value, n), (shown.as_str(), metric["n"].to_string().as_str()), "{name}");
        if let Some([low, high]) = metric["ci95"].as_array().map(|ci| [&ci[0], &ci[1]].map(|v| v.as_f64().unwrap())) {
            assert_eq!(interval.replace('−', "-"), format!("{low:.4} to {high:.4}"), "{name}");
        }
    };
    row("AUROC", "/auroc");
    row("AUPRC", "/auprc");
    row("Brier", "/calibration/brier");
    row("ICI", "/calibration/smooth/ici");
    // Hashes, counts, thresholds, prompts, seeds.
    for name in ["test.jsonl", "dev.jsonl"] {
        assert!(llm["5a"].contains(&blake3::hash(&fixture.read(name)).to_hex().to_string()), "{}", llm["5a"]);
    }
    assert!(llm["2e"].contains("- test: 12 records: 6 (50.0 %) `0:alive`, 6 (50.0 %) `1:death`"), "{}", llm["2e"]);
    let thresholds = json_of(&fixture, "thresholds.json");
    let f1 = thresholds["thresholds"]["f1"]["threshold"].to_string();
    assert!(llm["6e"].contains(&f1) && llm["6e"].contains(thresholds["dev"]["blake3"].as_str().unwrap()));
    assert!(llm["6c"].contains("Dead or alive?") && llm["6c"].contains("seed 42"), "{}", llm["6c"]);
    let cut = fixture.lines("run/eval/test/predictions.jsonl");
    let cut = cut.iter().filter(|line| line["truncated_tokens"].as_u64().unwrap() > 0).count();
    assert!(llm["5d"].contains(&format!("documents cut to the window: {cut} (")) || cut == 0, "{}", llm["5d"]);
    let shared = llm["2i"].lines().find(|line| line.starts_with("| dev and test ")).unwrap_or(&llm["2i"]);
    assert_eq!(shared.split('|').map(str::trim).collect::<Vec<_>>()[2..5], ["0", "10", "10 in text"], "{shared}");
    assert!(llm["12"].contains("energy: not recorded"), "{}", llm["12"]);
    // The run directory has no training of its own: none is claimed.
    assert!(
        llm["2g"].contains("not recorded in this run directory") && llm["2f"].contains("last trained: not recorded")
    );
    // No record's text.
    assert!(!text.contains("SECRET") && !card.contains("SECRET"));

    // A later command of the same settings keeps the pages up to date; another split has none.
    std::fs::remove_file(fixture.path("run/eval/test/model-card.md")).unwrap();
    succeed(&fixture, &TEST);
    page(&fixture, "test/model-card.md");
    std::fs::rename(fixture.path("gone"), fixture.path("base")).unwrap();
    succeed(&fixture, &["--split", "dev", "--set", "data.dev=dev.jsonl"]);
    assert!(!fixture.path("run/eval/dev/model-card.md").exists());
}

#[test]
fn of_prediction_files_nothing_is_said_of_a_model() {
    let fixture = finished_run();
    fixture.write("run/metrics.jsonl", "{\"type\":\"step\",\"seconds\":7200,\"tokens\":1}\n");
    fixture.succeed("test.jsonl", "test.out", &[]);
    // The last is again without dev: nothing of the one before is said of it.
    for dev in [&[][..], &["--dev-predictions", "dev.out"][..], &[][..]] {
        succeed(&fixture, &[&["--predictions", "test.out", "--card", "--overwrite"], dev].concat());
        let text = page(&fixture, "predictions/tripod-llm.md");
        let both = items(&text);
        assert_filled_or_marked(&both);
        let [llm, ai] = &both;
        for number in ["2f", "2g", "2h", "5d", "6a", "6b", "6c", "6d", "8c"] {
            assert!(marked(llm, number), "{number}: {}", llm[number]);
        }
        assert!(marked(ai, "22") && marked(ai, "12c") && marked(ai, "16"));
        assert_eq!(marked(llm, "6e"), dev.is_empty(), "{}", llm["6e"]);
        for frozen in ["thresholds.json", "calibration.json"] {
            let there = fixture.path(&format!("run/eval/predictions/{frozen}")).exists();
            assert_eq!(there, !dev.is_empty(), "{frozen}");
        }
        assert!(llm["5e"].contains("none of 12"), "{}", llm["5e"]);
        assert!(!marked(llm, "17") && !llm["12"].contains("2.000 hours"));
        let card = page(&fixture, "predictions/model-card.md");
        assert!(!text.contains("SECRET") && !card.contains("SECRET") && !card.contains("library_name"));
        assert!(scores(&card).contains_key("AUROC"));
    }
}

#[test]
fn the_parts_that_were_asked_for_and_subgroups_are_in_it() {
    let fixture = finished_run();
    let grouped: String = notes(12)
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record["sex"] = ["F", "<b>*M*|x</b>"][usize::from(i % 3 == 0)].into();
            record["group"] = format!("p{}", i / 2).into();
            record.to_string() + "\n"
        })
        .collect();
    fixture.write("test.jsonl", grouped);
    let flags = ["--card", "--compare-base", "--set", "eval.subgroups=[\"sex\"]"];
    succeed(&fixture, &[&TEST[..], &flags].concat());
    let text = page(&fixture, "test/tripod-llm.md");
    let [llm, ai] = items(&text);
    assert!(llm["7e"].contains("the base model before tuning"), "{}", llm["7e"]);
    assert!(ai["14"].contains("`sex`") && ai["12e"].contains("What stands under 2i"), "{}", ai["12e"]);
    assert!(llm["2i"].contains("clustered by the 6 groups"), "{}", llm["2i"]);
    assert!(llm["17"].contains("| sex ") && llm["17"].contains("&lt;b>\\*M\\*\\|x&lt;/b>"), "{}", llm["17"]);
    assert!(!text.contains("<b>") && !text.contains("SECRET"));
    let refused = eval(&fixture, &["--card", "--over", "run"]);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("--card"), "{}", stderr(&refused));
}

#[test]
fn of_three_classes_all_of_them_are_told() {
    let fixture = Fixture::new();
    let line = |i: usize| {
        let shares = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]][(i + i / 10) % 3];
        serde_json::json!({"id": i.to_string(), "label": i % 3, "probabilities": shares, "text": "SECRET",
            "verbalized_label": (i + i / 7) % 3, "group": format!("g{}", i / 2)})
        .to_string()
            + "\n"
    };
    fixture.write("test.jsonl", (0..60).map(line).collect::<String>());
    fixture.write("dev.jsonl", (60..120).map(line).collect::<String>());
    let labels = ["--set", "task.labels=[\"worse\",\"the | same\",\"better\"]", "--set", "eval.positive=better"];
    let files = ["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl", "--card"];
    succeed(&fixture, &[&files[..], &labels].concat());
    let text = page(&fixture, "predictions/tripod-llm.md");
    let both = items(&text);
    assert_filled_or_marked(&both);
    let [llm, _] = &both;
    let metrics = json_of(&fixture, "predictions/metrics.json");
    let shown = format!("{:.4}", metrics["accuracy"]["value"].as_f64().unwrap());
    assert!(llm["17"].contains("| Accuracy ") && llm["17"].contains(&shown), "{}", llm["17"]);
    assert!(llm["17"].contains("the \\| same") && llm["7c"].contains("`better` is the one that thresholds are of"));
    assert!(llm["2e"].contains("60 records: 20 (33.3 %) `worse`, 20 (33.3 %) `the | same`"), "{}", llm["2e"]);
    let points = metrics["positive"]["operating_points"].as_array().unwrap();
    let threshold = points[0]["threshold"].as_f64().unwrap();
    assert!(llm["17"].contains("Operating points") && llm["17"].contains(&threshold.to_string()), "{}", llm["17"]);
    let card = page(&fixture, "predictions/model-card.md");
    assert_eq!(scores(&card).get("Accuracy").copied(), metrics["accuracy"]["value"].as_f64());
    assert!(!text.contains("SECRET") && !card.contains("SECRET"));
}
