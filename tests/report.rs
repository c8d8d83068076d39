//! `clsgen eval` as a reader meets it: figures, calibration, the curve, and `report.html` in a real browser.
//!
//! The browser is headless Chromium; without it those tests print `SKIP`.

#[path = "report/browser.rs"]
mod browser;
#[path = "report/classes.rs"]
mod classes;
mod common;

use std::{fmt::Write, os::unix::fs::PermissionsExt};

use browser::{HARNESS, browse, chromium};
use common::{Outcome, Scratch, assert_fails, clsgen, in_scratch, outcome};
use serde_json::{Value, json};

const FIGURES: [&str; 8] = [
    "roc",
    "precision-recall",
    "reliability",
    "calibration-curve",
    "decision-curve",
    "risk-coverage",
    "confusion",
    "histogram",
];

/// A directory with prediction files of some records.
struct Bench(Scratch);

in_scratch!(Bench);

impl Bench {
    fn new() -> Self {
        let bench = Self(Scratch::new());
        std::fs::write(bench.path("test.jsonl"), predictions(300, 1)).unwrap();
        std::fs::write(bench.path("dev.jsonl"), predictions(200, 2)).unwrap();
        bench
    }

    fn eval(&self, flags: &[&str]) -> Outcome {
        let files = ["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"];
        let mut command = clsgen();
        command
            .current_dir(self.path(""))
            .args(["eval", "--run", "run", "--set", "eval.bootstrap=300", "--overwrite"])
            .args(files)
            .args(flags);
        let told = outcome(&mut command);
        assert!(!told.stderr.contains("SECRET") && !told.stdout.contains("SECRET"), "{told:?}");
        told
    }

    fn succeed(&self, flags: &[&str]) -> Outcome {
        let told = self.eval(flags);
        assert_eq!(told.code, Some(0), "{told:?}");
        told
    }
}

/// Lines whose head mostly knows the label and whose text disagrees with it in every tenth; every 37th is unparsable.
fn predictions(n: usize, salt: usize) -> String {
    let mut lines = String::new();
    for i in 0..n {
        let draw = |k: usize| {
            let hash = blake3::hash(format!("{i} {salt} {k}").as_bytes());
            f64::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) / 65536.0
        };
        let label = usize::from(draw(1) < 0.35);
        let probability = (0.15 + 0.3 * label as f64 + 0.6 * draw(2)).clamp(0.001, 0.999);
        let said = (i % 37 != 0).then_some(usize::from((probability >= 0.5) ^ (i % 10 == 0)));
        let evidence = |field: Option<&str>, [start, end]: [usize; 2]| {
            let at = |place: usize| field.map(|_| place);
            json!({"field": field, "start": at(0), "end": at(6), "explanation_start": start, "explanation_end": end,
                "quoted": field.is_none(), "words": 1, "found": usize::from(field.is_some())})
        };
        let line = json!({"id": format!("r{i}"), "label": label, "probability": probability, "verbalized_label": said,
            "parsable": said.is_some(),
            "explanation": said.map(|_| format!("SECRET </script><b>reason</b> & {i}")), "text": "SECRET text",
            "evidence": said.map(|_| [evidence(Some("text"), [0, 6]), evidence(None, [19, 25])]),
            "group": format!("g{}", i / 2)});
        let _ = writeln!(lines, "{line}");
    }
    lines
}

/// The records the predictions are of.
fn records(n: usize) -> String {
    (0..n)
        .map(|i| {
            json!({"id": format!("r{i}"), "text": format!("SECRET note {i} {}", "long ".repeat(200)), "label": 0})
                .to_string()
                + "\n"
        })
        .collect()
}

#[test]
fn figures_and_a_private_report_without_text_are_written() {
    let bench = Bench::new();
    bench.succeed(&[]);
    for name in FIGURES {
        assert!(bench.text(&format!("run/eval/predictions/figures/{name}.svg")).starts_with("<svg"), "{name}");
        assert!(
            std::fs::read(bench.path(&format!("run/eval/predictions/figures/{name}.png")))
                .unwrap()
                .starts_with(b"\x89PNG"),
            "{name}"
        );
    }
    for file in [
        "run/eval/predictions/report.html",
        "run/eval/predictions/calibration.json",
        "run/eval/predictions/figures/roc.svg",
        "run/eval/predictions/figures/roc.png",
    ] {
        assert_eq!(bench.path(file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let page = bench.text("run/eval/predictions/report.html");
    let metrics = bench.json("run/eval/predictions/metrics.json");
    let aurc = bench
        .text("run/eval/predictions/tables/metrics.csv")
        .lines()
        .find(|line| line.starts_with("AURC,"))
        .map(str::to_owned);
    let ci95 = metrics["aurc"]["ci95"].as_array().unwrap();
    assert!(aurc.is_some_and(|row| row.contains(&format!(
        "{:.4} to {:.4}",
        ci95[0].as_f64().unwrap(),
        ci95[1].as_f64().unwrap()
    ))));
    assert_eq!(bench.json("run/eval/predictions/tables/decision_curve.json")["rows"].as_array().unwrap().len(), 99);
    assert_eq!(bench.text("run/eval/predictions/tables/risk_coverage.csv").lines().count(), 101);
    assert!(
        page.contains(&format!("{:.4}", metrics["auroc"]["value"].as_f64().unwrap()))
            && page.contains(env!("CARGO_PKG_VERSION"))
    );
    let hash = blake3::hash(bench.text("test.jsonl").as_bytes()).to_hex().to_string();
    assert!(
        page.contains(&hash) && page.contains("train.seed") | page.contains("seeds · seed"),
        "the manifest names its inputs"
    );
    assert_eq!(page.matches("<figure ").count(), FIGURES.len());
    assert!(!page.contains("SECRET") && !page.contains("id=\"records\""), "no text without --include-text");
    assert!(!page.contains("http://") && !page.contains("https://"));
}

#[test]
fn the_page_says_what_was_fitted_on_the_scored_records_and_which_classes_there_are() {
    let bench = Bench::new();
    let page = |flags: &[&str]| {
        std::fs::copy(bench.path("test.jsonl"), bench.path("dev.jsonl")).unwrap();
        bench.succeed(flags);
        bench.text("run/eval/predictions/report.html")
    };
    let fitted = |page: &str| {
        let told = page.split_once(" were fitted on the very records scored here: ");
        told.map(|(before, after)| {
            let values = after.split_once(" are in-sample").unwrap().0;
            format!("{}: {values}", before.rsplit_once('>').unwrap().1)
        })
    };
    let both = "Thresholds and calibrators: tuned and calibrated values";
    let none = ["--set", "eval.calibrate=none"];
    let two = page(&[]);
    assert!(two.contains("Class 0 is “0:alive”, class 1 (positive) “1:death”. Intervals are"));
    assert_eq!(fitted(&two).as_deref(), Some(both));
    assert_eq!(fitted(&page(&none)).as_deref(), Some("Thresholds: tuned values"));

    let line = |i: usize| {
        let probabilities = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.5, 0.2, 0.3]][i % 4];
        let label = if i.is_multiple_of(5) { i % 3 } else { [0, 1, 2, 0][i % 4] };
        json!({"id": format!("r{i}"), "label": label, "probabilities": probabilities, "verbalized_label": i % 3})
            .to_string()
            + "\n"
    };
    std::fs::write(bench.path("test.jsonl"), (0..60).map(line).collect::<String>()).unwrap();
    let three = ["--set", r#"task.labels=["decreased","no difference","increased"]"#];
    let plain = page(&[&three[..], &none].concat());
    assert!(plain.contains("The classes are “decreased”, “no difference”, “increased”. Intervals are"));
    assert!(!plain.contains("(positive)") && !plain.contains("as the positive class"));
    assert_eq!(fitted(&plain), None);
    assert_eq!(fitted(&page(&three)).as_deref(), Some("Calibrators: calibrated values"));
    let positive = ["--set", "eval.positive=increased"];
    let named = page(&[&three[..], &positive].concat());
    assert!(named.contains("“increased” is measured against the rest too, as the positive class. Intervals are"));
    assert_eq!(fitted(&named).as_deref(), Some(both));
    assert_eq!(fitted(&page(&[&three[..], &positive, &none].concat())).as_deref(), Some("Thresholds: tuned values"));
}

#[test]
fn calibrators_come_from_dev_alone_and_the_metrics_after_stand_beside() {
    let bench = Bench::new();
    bench.succeed(&["--set", "eval.calibrate=platt"]);
    let saved = bench.json("run/eval/predictions/calibration.json");
    assert_eq!((saved["method"].as_str(), saved["n"].as_u64()), (Some("platt"), Some(200)));
    assert_eq!(saved["dev"]["blake3"], blake3::hash(bench.text("dev.jsonl").as_bytes()).to_hex().to_string());
    assert!(saved["checkpoint"].is_null() && saved["methods"]["isotonic"]["reason"].as_str().unwrap().contains("1000"));
    let calibration = &bench.json("run/eval/predictions/metrics.json")["calibration"];
    let value = |name: &str| calibration[name]["value"].as_f64().unwrap();
    assert!(value("brier_after") < value("brier") && calibration["slope_after"]["ci95"].is_array(), "{calibration}");
    assert!(bench.text("run/eval/predictions/tables/calibration.md").contains("Platt"));
    // Isotonic is not fitted to so few; every number of the others has its interval.
    for row in bench.json("run/eval/predictions/tables/calibration.json")["rows"].as_array().unwrap() {
        let cells = row.as_array().unwrap();
        assert!(cells[1..4].iter().all(|cell| cell.as_str().unwrap().contains(" to ")) && cells[4] == "–", "{row}");
    }
    bench.succeed(&["--gate", {
        std::fs::write(bench.path("gate.toml"), "calibration.brier_after = 0.9\n").unwrap();
        "gate.toml"
    }]);
    // Test labels move nothing: the file is the same when they are turned round.
    let turned = bench
        .text("test.jsonl")
        .replace("\"label\":0", "\"label\":9")
        .replace("\"label\":1", "\"label\":0")
        .replace("\"label\":9", "\"label\":1");
    std::fs::write(bench.path("test.jsonl"), turned).unwrap();
    bench.succeed(&["--set", "eval.calibrate=platt"]);
    assert_eq!(bench.json("run/eval/predictions/calibration.json"), saved);
}

#[test]
fn isotonic_wants_a_thousand_records_or_force_and_none_takes_the_file_away() {
    let bench = Bench::new();
    assert_fails(
        &bench.eval(&["--set", "eval.calibrate=isotonic"]),
        2,
        &["1000", "dev.jsonl holds 200", "hint: ", "force_isotonic"],
    );
    bench.succeed(&["--set", "eval.calibrate=isotonic", "--set", "eval.force_isotonic=true"]);
    assert_eq!(bench.json("run/eval/predictions/calibration.json")["method"], "isotonic");
    bench.succeed(&["--set", "eval.calibrate=none"]);
    assert!(!bench.path("run/eval/predictions/calibration.json").exists());
    assert!(bench.json("run/eval/predictions/metrics.json")["calibration"].get("brier_after").is_none());
}

/// What `dev.metrics.json` holds of the agreement figures, by way of `eval` itself.
fn write_epoch(bench: &Bench, run: &str, epoch: usize, salt: usize) {
    let dir = bench.path(&format!("{run}/checkpoints/epoch-{epoch:02}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("dev.predictions.jsonl"), predictions(100, salt)).unwrap();
    let mut command = clsgen();
    command.current_dir(bench.path("")).args([
        "eval",
        "--run",
        "scratch",
        "--overwrite",
        "--set",
        "eval.bootstrap=0",
        "--predictions",
    ]);
    let told = outcome(command.arg(dir.join("dev.predictions.jsonl")));
    assert_eq!(told.code, Some(0), "{told:?}");
    let mut metrics = bench.json("scratch/eval/predictions/metrics.json");
    metrics["loss"] = json!(1.0 / epoch as f64);
    std::fs::write(dir.join("dev.metrics.json"), metrics.to_string()).unwrap();
}

#[test]
fn the_curve_needs_no_model_and_no_test_split() {
    let bench = Bench::new();
    (1..=3).for_each(|epoch| write_epoch(&bench, "curved", epoch, epoch));
    let curve = |flags: &[&str]| {
        let mut command = clsgen();
        outcome(
            command
                .current_dir(bench.path(""))
                .args(["eval", "--curve", "--set", "eval.bootstrap=300", "--run"])
                .args(flags),
        )
    };
    let told = curve(&["curved"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let table = bench.json("curved/eval/curve/tables/curve.json");
    assert_eq!(table["columns"], json!(["Epoch", "Parsable", "AUROC", "κ at 0.5", "AUROC-Align"]));
    for row in table["rows"].as_array().unwrap() {
        assert!(
            row.as_array().unwrap()[1..].iter().all(|cell| cell.as_str().unwrap().contains(" to ")),
            "every number has its interval: {row}"
        );
    }
    assert!(
        told.stdout.contains("AUROC-Align") && bench.text("curved/eval/curve/figures/curve.svg").contains("Parsable")
    );
    assert!(bench.text("curved/eval/curve/report.html").contains("id=\"figure-curve\""));
    // With prediction files it stands beside everything else.
    let told = curve(&["curved", "--predictions", "test.jsonl"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(bench.text("curved/eval/predictions/report.html").matches("<figure ").count(), FIGURES.len() + 1);
    // What needs a split is not left out in silence: its checkpoint is looked for, and there is none here.
    bench.write("gate.toml", "auroc = 0.9");
    for asked in [&["--gate", "gate.toml"][..], &["--paper", "table2"], &["--compare-base"], &["--runs", "2"]] {
        assert_fails(&curve(&[&["curved"], asked].concat()), 4, &["curved is neither a checkpoint", "hint: "]);
    }
    assert_fails(&curve(&["empty"]), 4, &["no epoch of empty has dev metrics", "hint: "]);
}

#[test]
fn the_worst_errors_stand_in_the_report_and_only_with_text() {
    let bench = Bench::new();
    std::fs::write(bench.path("records.jsonl"), records(300)).unwrap();
    bench.succeed(&["--set", "data.test=records.jsonl"]);
    let page = bench.text("run/eval/predictions/report.html");
    assert!(!page.contains("id=\"worst\"") && page.contains("Where does it fail?"));
    bench.succeed(&["--include-text", "--set", "data.test=records.jsonl"]);
    let page = bench.text("run/eval/predictions/report.html");
    let (_, rest) = page.split_once("id=\"worst\">Surest and wrong: the 10 worst errors").unwrap();
    let (table, _) = rest.split_once("</table>").unwrap();
    let shown: Vec<&str> =
        table.split("<th scope=\"row\" class=\"wrap\">").skip(1).map(|row| row.split_once('<').unwrap().0).collect();
    let mut wrong: Vec<(f64, String)> = bench
        .text("test.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| {
            let off = (line["probability"].as_f64().unwrap() - line["label"].as_f64().unwrap()).abs();
            (off, line["id"].as_str().unwrap().to_owned())
        })
        .filter(|(off, _)| *off >= 0.5)
        .collect();
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert_eq!(shown, wrong.iter().take(10).map(|(_, id)| id).collect::<Vec<_>>());
    assert!(table.contains("&lt;b&gt;reason&lt;&#x2f;b&gt;") && !table.contains("<b>"), "{table}");
    // A file of other records, and a flag that a prediction file leaves nothing to: told.
    std::fs::write(bench.path("others.jsonl"), records(3).replace("\"id\":\"", "\"id\":\"other")).unwrap();
    let told = bench.succeed(&["--include-text", "--set", "data.test=others.jsonl", "--split", "dev"]).stderr;
    assert!(told.contains("no record of data.test has the id of one") && told.contains("--split dev says"), "{told}");
}

/// What is printed is one sheet: the question, the readings, four figures.
#[test]
fn the_report_prints_on_one_sheet() {
    let bench = Bench::new();
    std::fs::write(bench.path("records.jsonl"), records(300)).unwrap();
    bench.succeed(&["--include-text", "--set", "data.test=records.jsonl"]);
    let Some(mut browser) = chromium() else { return };
    let sheet = bench.path("sheet.pdf");
    let url = format!("file://{}", bench.path("run/eval/predictions/report.html").display());
    let profile = format!("--user-data-dir={}", bench.path("profile").display());
    let printed = browser.args([&profile, &format!("--print-to-pdf={}", sheet.display()), &url]).output().unwrap();
    let pdf = std::fs::read(&sheet).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&printed.stderr)));
    let pages = pdf.split(|&byte| byte == b'\n').filter(|line| line.ends_with(b"/Type /Page")).count();
    assert_eq!(pages, 1);
}

#[test]
fn the_report_works_in_a_browser_at_two_widths_light_and_dark() {
    let bench = Bench::new();
    std::fs::write(bench.path("records.jsonl"), records(300)).unwrap();
    std::fs::write(bench.path("harness.html"), HARNESS).unwrap();
    let lines: Vec<Value> = bench.text("test.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let disagree = lines.iter().filter(|line| {
        line["verbalized_label"]
            .as_u64()
            .is_some_and(|said| (line["probability"].as_f64().unwrap() >= 0.5) != (said == 1))
    });
    let disagree = disagree.count();
    let unparsable = lines.iter().filter(|line| line["verbalized_label"].is_null()).count();
    for flags in [&["--include-text", "--set", "data.test=records.jsonl"][..], &[]] {
        bench.succeed(flags);
        let Some(browser) = chromium() else { return };
        let (dom, console) = browse(browser, &bench.path("profile"), &bench.path("run/eval/predictions/report.html"));
        assert!(dom.contains("</html>") && console.is_empty(), "{console:?}");
        for (seen, [width, dark]) in [0, 1].into_iter().flat_map(|dark| looked(&bench, dark)) {
            assert_eq!((&seen["width"], &seen["dark"]), (&json!(width), &json!(dark == 1)));
            assert!(seen["contrast"].as_f64().unwrap() >= 4.5, "{seen}");
            let mut wanted = vec!["fits", "figures", "focusable"];
            if !flags.is_empty() {
                wanted.extend(["onlyDisagreeing", "paged", "opened", "noMarkup"]);
                assert_eq!(
                    (seen["all"].as_u64(), seen["disagree"].as_u64()),
                    (Some(300), Some(disagree as u64)),
                    "{seen}"
                );
                assert_eq!(seen["unparsable"].as_u64(), Some(unparsable as u64), "{seen}");
                assert_eq!(
                    (&seen["marks"], &seen["invented"]),
                    (&json!(["SECRET", "reason", "SECRET"]), &json!("reason"))
                );
            }
            assert!(wanted.iter().all(|name| seen[name] == true), "{width}: {seen}");
        }
    }
}

/// What the harness saw of the report at both widths; `dark` is 1 where the reader's screen is.
fn looked(bench: &Bench, dark: usize) -> Vec<(Value, [usize; 2])> {
    let Some(mut browser) = chromium() else { return Vec::new() };
    browser.arg(format!("--blink-settings=preferredColorScheme={}", 1 - dark));
    let (dom, console) = browse(browser, &bench.path("profile"), &bench.path("harness.html"));
    let seen =
        dom.split_once("<pre id=\"seen\">").and_then(|(_, rest)| rest.split_once("</pre>")).map(|(seen, _)| seen);
    let seen: Vec<Value> =
        serde_json::from_str(seen.unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {dom:.2000} {console:?}"));
    assert_eq!((seen.len(), console.len()), (2, 0), "{seen:?} {console:?}");
    seen.into_iter().zip([[1280, dark], [390, dark]]).collect()
}
