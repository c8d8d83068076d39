//! What an evaluation says of itself: of dev's records among the scored, of what did not fit, of lines that contradict
//! themselves, of files that are not its own.

use super::*;

#[test]
fn some_records_of_dev_are_counted_wherever_tuned_values_stand() {
    let bench = Bench::new();
    let test = counted(200, 50, 30, 70);
    bench.file("test.jsonl", &test);
    let other = (0..100).map(|i| line(1000 + i, u8::from(i % 3 == 0), 0.2 + 0.005 * i as f64, Some(0)));
    bench.file("dev.jsonl", &test.lines().take(40).map(|line| line.to_owned() + "\n").chain(other).collect::<String>());
    bench.eval(&["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"]).assert().success();
    let metrics = bench.json("metrics.json");
    assert_eq!(metrics["dev_overlap"], 40);
    assert!(metrics["tuned"]["f1"]["f1"]["reason"].is_null());
    let table = bench.text("tables/metrics.md");
    assert!(
        table.contains("40 of the 200 scored records are dev's too") && !table.contains("frozen before"),
        "{table}"
    );
    assert!(bench.text("tables/calibration.md").contains("holds 40 of these 200 records"));
    assert!(bench.text("report.html").contains("40 of the records scored here are dev"));
    // Without shared records there is nothing to tell.
    bench.file("dev.jsonl", &(0..100).map(|i| line(1000 + i, u8::from(i % 3 == 0), 0.3, Some(0))).collect::<String>());
    bench.eval(&["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"]).assert().success();
    assert!(bench.json("metrics.json").get("dev_overlap").is_none());
    assert!(bench.text("tables/metrics.md").contains("frozen before test labels were read"));
}

#[test]
fn a_calibrator_that_did_not_fit_leaves_nulls_with_its_reason() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(200, 50, 30, 70));
    bench.file("dev.jsonl", &(0..50).map(|i| line(1000 + i, 1, 0.3 + 0.01 * i as f64, Some(1))).collect::<String>());
    bench.file("gate.toml", "calibration.brier_after = 0.9\n");
    let both = ["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl", "--gate", "gate.toml"];
    let told = bench.eval(&both).assert().code(1);
    let stderr = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    let reason = "no calibrator fits dev: dev has only one class";
    assert!(stderr.contains(&format!("calibration.brier_after is undefined: {reason}")), "{stderr}");
    let after = bench.json("metrics.json")["calibration"]["slope_after"].clone();
    assert_eq!((&after["value"], &after["reason"], &after["n"]), (&Value::Null, &json!(reason), &json!(200)));
    let told = bench.eval(&[&both[..], &["--set", "eval.calibrate=none"]].concat()).assert().code(1);
    let stderr = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(stderr.contains("brier_after is undefined: eval.calibrate asks for no calibrator"), "{stderr}");
}

#[test]
fn an_intercept_that_only_rounding_moves_has_no_interval() {
    for positives in [10, 5] {
        let bench = Bench::new();
        let row = |i: usize| json!({"id": i, "label": u8::from(i < positives), "probability": u8::from(i < positives)});
        bench.file("test.jsonl", &(0..20).map(|i| row(i).to_string() + "\n").collect::<String>());
        bench.eval(&["--predictions", "test.jsonl"]).assert().success();
        let intercept = bench.json("metrics.json")["calibration"]["intercept"].clone();
        assert_eq!((&intercept["ci95"], &intercept["reason"]), (&Value::Null, &json!("no interval: no variation")));
        // n₊(1 − q₊) = n₋ q₋ of probabilities that are 10⁻¹² from their ends: half the log of the ratio.
        let want = (positives as f64 / (20 - positives) as f64).ln() / 2.0;
        assert!((intercept["value"].as_f64().unwrap() - want).abs() < 1e-4, "{intercept}");
    }
}

#[test]
fn lines_that_contradict_themselves_are_told_and_scored() {
    let bench = Bench::new();
    let line = |i: usize, logits: [f64; 2], parsable: bool| {
        json!({"id": i, "label": i % 2, "probability": 0.5, "logits": logits, "verbalized_label": 1,
            "parsable": parsable})
        .to_string()
            + "\n"
    };
    bench.file(
        "test.jsonl",
        &[line(0, [1.0, 1.0], true), line(1, [0.0, 1.0], true), line(2, [1.0, 1.0], false)].concat(),
    );
    let told = bench.eval(&["--predictions", "test.jsonl"]).assert().success();
    let stderr = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(stderr.contains("2 of 3 predictions contradict themselves; the first, "), "{stderr}");
    assert!(stderr.contains("record 2: the probability is not the softmax"), "{stderr}");
    bench.file("test.jsonl", &[line(0, [1.0, 1.0], true), line(1, [1.0, 1.0 + 1e-7], true)].concat());
    let told = bench.eval(&["--predictions", "test.jsonl"]).assert().success();
    assert!(!String::from_utf8_lossy(&told.get_output().stderr).contains("contradict"));
}

#[test]
fn foreign_files_under_an_evaluations_names_are_kept() {
    let names = ["thresholds.json", "calibration.json", "settings.json", "predictions.meta.json", "predictions.hashes"];
    for name in names {
        let bench = Bench::new();
        bench.file("test.jsonl", &counted(60, 20, 12, 25));
        bench.file("dev.jsonl", &(0..60).map(|i| line(900 + i, u8::from(i % 3 == 0), 0.4, None)).collect::<String>());
        let folder = bench.path("run/eval/predictions");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), "mine").unwrap();
        let eval = ["eval", "--run", "run", "--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"];
        let mut command = Command::cargo_bin("clsgen").unwrap();
        command.current_dir(bench.path("")).args(eval).assert().code(2);
        assert_eq!(bench.text(name), "mine");
        command.arg("--overwrite").assert().success();
        assert!(
            std::fs::read_to_string(folder.join(name)).is_ok_and(|text| text != "mine") || !folder.join(name).exists()
        );
    }
}

#[test]
fn values_tuned_on_the_scored_records_are_labelled_in_every_table() {
    let bench = Bench::new();
    let lines = counted(200, 50, 30, 70);
    let with_sex =
        |(i, line): (usize, &str)| format!("{},\"sex\":\"{}\"}}\n", &line[..line.len() - 1], ["f", "m"][i % 2]);
    let test: String = lines.lines().enumerate().map(with_sex).collect();
    bench.file("test.jsonl", &test);
    let others: String =
        (0..100).map(|i| line(1000 + i, u8::from(i % 3 == 0), 0.2 + 0.005 * i as f64, Some(0))).collect();
    let half = test.lines().take(40).map(|line| line.to_owned() + "\n").collect::<String>() + &others;
    let files = ["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"];
    let more = ["--paper", "table2,table3", "--set", "task.name=clinifact", "--set", "eval.subgroups=[\"sex\"]"];
    for (dev, told) in [
        (&test, "Tuned values are in-sample: their thresholds were chosen on these very records."),
        (&half, "40 of the 200 scored records are dev's too: tuned and calibrated values are in-sample for these."),
        (&others, ""),
    ] {
        bench.file("dev.jsonl", dev);
        bench.eval(&[&files[..], &more].concat()).assert().success();
        for table in ["metrics", "operating_points", "subgroups", "table2", "table3"] {
            let table = bench.text(&format!("tables/{table}.md"));
            assert!(table.contains(told) && table.contains("in-sample") != told.is_empty(), "{told}: {table}");
        }
    }
}

#[test]
fn calibrated_values_of_more_classes_are_labelled_where_dev_is_what_is_scored() {
    let bench = Bench::new();
    let lines = |id: &str| -> String {
        let line = |i: usize| {
            let mut probabilities = [0.2; 3];
            probabilities[i * 7 % 3] = 0.6;
            let label = if i.is_multiple_of(4) { (i * 7 + 1) % 3 } else { i * 7 % 3 };
            json!({"id": format!("{id}{i}"), "label": label, "probabilities": probabilities}).to_string() + "\n"
        };
        (0..120).map(line).collect()
    };
    bench.file("test.jsonl", &lines("t"));
    let files = ["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl", "--set", "eval.positive=c"];
    let labels = ["--set", r#"task.labels=["a","b","c"]"#];
    for (id, in_sample) in [("t", true), ("d", false)] {
        bench.file("dev.jsonl", &lines(id));
        bench.eval(&[&files[..], &labels].concat()).assert().success();
        let table = bench.text("tables/metrics.md");
        assert!(table.contains("Brier, temperature"), "{table}");
        let told = "Values after the temperature are in-sample: it was fitted on these very records.";
        assert_eq!(table.contains(told), in_sample, "{table}");
        for name in ["metrics_positive", "operating_points"] {
            let table = bench.text(&format!("tables/{name}.md"));
            assert_eq!(table.contains("Tuned values are in-sample"), in_sample, "{table}");
        }
    }
}

#[test]
fn what_somebody_put_beside_tables_and_figures_is_kept() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(60, 20, 12, 25));
    let eval = |flags: &[&str]| {
        let mut command = Command::cargo_bin("clsgen").unwrap();
        command.current_dir(bench.path("")).args(["eval", "--run", "run", "--set", "eval.bootstrap=200"]);
        command.args(["--predictions", "test.jsonl"]).args(flags).assert().success();
    };
    eval(&[]);
    let theirs = ["tables/mine.csv", "tables/slides/notes.txt", "tables/metrics.xlsx", "figures/mine.svg"];
    let ours = ["tables/against.md", "figures/subgroups.png"];
    for name in theirs.iter().chain(&ours) {
        bench.write(&format!("run/eval/predictions/{name}"), "mine");
    }
    eval(&[]);
    theirs.iter().for_each(|name| assert_eq!(bench.text(name), "mine", "{name}"));
    // Those of an earlier command, which this one does not make, are gone.
    for name in ours {
        assert!(!bench.path(&format!("run/eval/predictions/{name}")).exists(), "{name}");
    }
    assert!(bench.text("tables/metrics.md").contains("AUROC") && bench.text("figures/roc.svg").starts_with("<svg"));
    // The same predictions measured otherwise replace what was measured, and nothing else.
    bench.write("run/eval/predictions/tables/against.md", "mine");
    eval(&["--set", "eval.bootstrap=300", "--overwrite"]);
    theirs.iter().for_each(|name| assert_eq!(bench.text(name), "mine", "{name}"));
    assert!(!bench.path("run/eval/predictions/tables/against.md").exists());
}

/// Nobody is shown a record: the prompt only says how the verdict is written.
#[test]
fn predictions_are_scored_whatever_their_prompt_showed() {
    let bench = Bench::new();
    bench.file("test.jsonl", &counted(60, 20, 12, 25));
    bench.write("leak.toml", "user = \"{document} {explanation}\"\n");
    let mut command = Command::cargo_bin("clsgen").unwrap();
    command.current_dir(bench.path("")).args(["eval", "--run", "run", "--set", "eval.bootstrap=200"]);
    command.args(["--predictions", "test.jsonl", "--set", "task.prompt=leak.toml"]).assert().success();
}
