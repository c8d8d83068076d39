//! Operating points, smooth calibration, subgroups: from prediction files to metrics, tables, figures, report and gate.

use super::*;

/// Predictions as of CliniFact: claims in groups of a trial, a probability that tells something, two columns.
fn claims(from: usize, n: usize) -> Vec<Value> {
    let claim = |i: usize| {
        let label = u8::from((i * 29) % 100 < 35);
        let noise = (i * 7919 % 1000) as f64 / 1000.0;
        let probability = 0.02 + 0.96 * (0.75 * noise + 0.25 * f64::from(label));
        let phase = if i.is_multiple_of(50) { Value::Null } else { json!(i % 3) };
        let sex = if i.is_multiple_of(5) { "<script>F" } else { "M" };
        json!({"id": format!("c{i}"), "label": label, "probability": probability, "group": format!("NCT{}", i / 2),
            "verbalized_label": u8::from(probability > 0.5), "phase": phase, "sex": sex})
    };
    (from..from + n).map(claim).collect()
}

fn jsonl(lines: &[Value]) -> String {
    lines.iter().map(|line| line.to_string() + "\n").collect()
}

const FILES: [&str; 4] = ["--predictions", "test.jsonl", "--dev-predictions", "dev.jsonl"];
const COLUMNS: [&str; 2] = ["--set", "eval.subgroups=sex,phase"];

fn bench() -> Bench {
    let bench = Bench::new();
    bench.file("dev.jsonl", &jsonl(&claims(1000, 300)));
    bench.file("test.jsonl", &jsonl(&claims(0, 400)));
    bench
}

fn rows(lines: &[Value]) -> Vec<(f64, bool)> {
    lines.iter().map(|line| (line["probability"].as_f64().unwrap(), line["label"] == 1)).collect()
}

/// Sensitivity, specificity, PPV, NPV, alerts per 100, number needed to evaluate.
fn follows(rows: &[(f64, bool)], threshold: f64) -> [f64; 6] {
    let count = |label: bool, called: bool| {
        rows.iter().filter(|(p, y)| *y == label && (*p >= threshold) == called).count() as f64
    };
    let [tp, fp, fneg, tn] = [count(true, true), count(false, true), count(true, false), count(false, false)];
    [
        tp / (tp + fneg),
        tn / (tn + fp),
        tp / (tp + fp),
        tn / (tn + fneg),
        100.0 * (tp + fp) / rows.len() as f64,
        (tp + fp) / tp,
    ]
}

const KEYS: [&str; 6] = ["sensitivity", "specificity", "ppv", "npv", "alerts_per_100", "number_needed_to_evaluate"];

#[test]
fn operating_points_are_frozen_on_dev_and_measured_on_test() {
    let bench = bench();
    bench.eval(&FILES).assert().success();
    let metrics = bench.json("metrics.json");
    let points = metrics["operating_points"].as_array().unwrap();
    let names: Vec<&str> = points.iter().map(|point| point["name"].as_str().unwrap()).collect();
    let all = ["sensitivity_0.8", "sensitivity_0.9", "specificity_0.9", "alert_rate_0.05", "alert_rate_0.1"];
    assert_eq!(names, all);
    let dev = rows(&claims(1000, 300));
    let test = rows(&claims(0, 400));
    let frozen = bench.json("thresholds.json")["operating_points"].clone();
    for (point, frozen) in points.iter().zip(frozen.as_array().unwrap()) {
        let at = point["at"].as_f64().unwrap();
        let aim = point["target"].as_str().unwrap();
        let reached = |threshold: f64| {
            let [sensitivity, specificity, _, _, alerts, _] = follows(&dev, threshold);
            match aim {
                "sensitivity" => sensitivity >= at,
                "specificity" => specificity >= at,
                _ => alerts / 100.0 <= at,
            }
        };
        let met = dev.iter().map(|(p, _)| *p).filter(|p| reached(*p));
        let want = if aim == "sensitivity" { met.fold(0.0, f64::max) } else { met.fold(1.0, f64::min) };
        let threshold = point["threshold"].as_f64().unwrap();
        assert_eq!((threshold, frozen["threshold"].as_f64()), (want, Some(want)), "{point}");
        for (key, want) in KEYS.into_iter().zip(follows(&test, threshold)) {
            let value = point[key]["value"].as_f64().unwrap();
            let [low, high] = [0, 1].map(|end| point[key]["ci95"][end].as_f64().unwrap());
            assert!((value - want).abs() < 1e-9 && low <= value && value <= high && low < high, "{key}: {point}");
        }
    }
    // Test's labels move no threshold.
    let mut turned = claims(0, 400);
    turned.iter_mut().for_each(|line| line["label"] = json!(1 - line["label"].as_u64().unwrap()));
    bench.file("test.jsonl", &jsonl(&turned));
    bench.eval(&FILES).assert().success();
    assert_eq!(bench.json("thresholds.json")["operating_points"], frozen);
    for extension in ["md", "tex", "csv", "json"] {
        assert!(bench.text(&format!("tables/operating_points.{extension}")).contains("Alerts per 100"));
    }
    assert!(bench.text("report.html").contains("Number needed to evaluate"));
}

#[test]
fn the_targets_are_the_configs_and_without_dev_there_is_a_reason() {
    let bench = bench();
    let targets =
        ["--set", "eval.sensitivities=0.75", "--set", "eval.specificities=[]", "--set", "eval.alert_rates=0.2,1"];
    bench.eval(&[&FILES[..2], &targets].concat()).assert().success();
    let points = bench.json("metrics.json")["operating_points"].clone();
    assert_eq!(points.as_array().unwrap().len(), 3);
    for point in points.as_array().unwrap() {
        assert!(point["threshold"].is_null());
        KEYS.iter().for_each(|key| {
            assert_eq!((&point[key]["value"], &point[key]["reason"]), (&Value::Null, &json!("no dev predictions")))
        });
    }
    // Everyone is an alert at a rate of 1: the interval of a proportion of 1 is exact.
    let lowest = json!({"id": "lowest", "label": 0, "probability": 0.001});
    bench.file("dev.jsonl", &jsonl(&[claims(1000, 300), vec![lowest]].concat()));
    bench.eval(&[&FILES[..], &targets].concat()).assert().success();
    let last = bench.json("metrics.json")["operating_points"][2].clone();
    assert_eq!((&last["name"], &last["alerts_per_100"]["value"]), (&json!("alert_rate_1"), &json!(100.0)));
    assert!(last["alerts_per_100"]["ci95"][1] == 100.0 && last["npv"]["reason"] == "nothing is predicted negative");
    for wrong in
        ["eval.sensitivities=1.5", "eval.alert_rates=0", "eval.specificities=high", "eval.sensitivities=[0.8, 0.8]"]
    {
        let told = bench.eval(&[&FILES[..], &["--set", wrong]].concat()).assert().code(2);
        let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
        assert!(told.contains("above 0, at most 1") || told.contains("twice"), "{told}");
    }
}

#[test]
fn the_smooth_curve_is_measured_and_drawn() {
    let bench = bench();
    bench.eval(&FILES).assert().success();
    let smooth = bench.json("metrics.json")["calibration"]["smooth"].clone();
    let value = |key: &str| smooth[key]["value"].as_f64().unwrap();
    assert!(value("e50") <= value("e90") && value("e90") <= value("emax") && value("ici") <= value("emax"));
    for key in ["ici", "e50", "e90", "emax"] {
        assert!(smooth[key]["ci95"].is_array() || smooth[key]["reason"].is_string(), "{smooth}");
    }
    let curve = bench.text("figures/calibration-curve.csv");
    assert!(
        curve.starts_with("series,probability,to,value,low,high") && curve.contains("share_of_class_1,"),
        "{curve}"
    );
    assert_eq!(curve.lines().filter(|line| line.starts_with("curve,")).count(), 101);
    assert!(bench.text("tables/calibration_smooth.csv").contains("ICI,"));
    assert!(bench.text("report.html").contains("figure-calibration-curve"));
}

#[test]
fn every_figure_has_its_numbers_beside_it() {
    let bench = bench();
    bench.eval(&[&FILES[..], &COLUMNS].concat()).assert().success();
    let names = std::fs::read_dir(bench.path("run/eval/predictions/figures")).unwrap();
    let names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let figures: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".svg")).collect();
    assert!(figures.len() >= 9, "{names:?}");
    for figure in figures {
        let text = bench.text(&format!("figures/{figure}.csv"));
        let widths: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert!(widths.len() > 1 && widths.iter().all(|width| *width == widths[0]), "{figure}: {text}");
    }
    // The curve's area is the metric: the trapezoids of its points are within the grid's width of it.
    let roc = bench.text("figures/roc.csv");
    let points: Vec<[f64; 2]> = roc
        .lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split(',').map(|cell| cell.parse().unwrap_or(f64::NAN));
            [cells.next().unwrap(), cells.next().unwrap()]
        })
        .collect();
    let area: f64 = points.windows(2).map(|pair| (pair[1][0] - pair[0][0]) * (pair[0][1] + pair[1][1]) / 2.0).sum();
    let auroc = bench.json("metrics.json")["auroc"]["value"].as_f64().unwrap();
    assert!((area - auroc).abs() < 0.01, "{area} {auroc}");
}

#[test]
fn subgroups_are_measured_against_the_rest_and_few_are_counted() {
    let bench = bench();
    bench.eval(&[&FILES[..], &COLUMNS].concat()).assert().success();
    let metrics = bench.json("metrics.json");
    let lines = claims(0, 400);
    let sex = &metrics["subgroups"]["sex"];
    for (value, records) in [("<script>F", 80), ("M", 320)] {
        let own: Vec<Value> = lines.iter().filter(|line| line["sex"] == value).cloned().collect();
        let group = &sex[value];
        assert_eq!((group["n"].as_u64(), own.len()), (Some(records), records as usize));
        let rows = rows(&own);
        assert_eq!(group["events"].as_u64().unwrap() as usize, rows.iter().filter(|row| row.1).count());
        let threshold = metrics["tuned"]["f1"]["threshold"].as_f64().unwrap();
        let [sensitivity, _, ppv, ..] = follows(&rows, threshold);
        for (key, want) in [("sensitivity", sensitivity), ("ppv", ppv)] {
            assert!((group[key]["value"].as_f64().unwrap() - want).abs() < 1e-12, "{key}: {group}");
        }
        for key in ["auroc", "slope", "observed_expected", "sensitivity", "ppv"] {
            let apart = &group["difference"][key];
            assert!(group[key]["ci95"].is_array() && apart["ci95"].is_array(), "{key}: {group}");
        }
    }
    let apart = |value: &str| sex[value]["difference"]["auroc"]["value"].as_f64().unwrap();
    assert!((apart("M") + apart("<script>F")).abs() < 1e-12);
    // Eight claims have no phase: counted, not measured.
    let missing = &metrics["subgroups"]["phase"]["(missing)"];
    assert_eq!(missing["n"], 8);
    assert!(missing["events"].is_u64() && missing["auroc"]["value"].is_null());
    assert!(missing["slope"]["reason"].as_str().unwrap().starts_with("fewer than 10 "), "{missing}");
    // Its own file alone gives the same numbers as the subgroup.
    bench.file("f.jsonl", &jsonl(&lines.iter().filter(|line| line["sex"] != "M").cloned().collect::<Vec<_>>()));
    let table = bench.text("tables/subgroups.md");
    let report = bench.text("report.html");
    bench.eval(&["--predictions", "f.jsonl", "--dev-predictions", "dev.jsonl"]).assert().success();
    let alone = bench.json("metrics.json");
    assert_eq!(alone["auroc"], sex["<script>F"]["auroc"]);
    assert!(
        (alone["calibration"]["slope"]["value"].as_f64().unwrap()
            - sex["<script>F"]["slope"]["value"].as_f64().unwrap())
        .abs()
            < 1e-9
    );
    assert!(alone.get("subgroups").is_none() && table.contains("AUROC, difference"));
    assert!(report.contains("figure-subgroups") && !report.contains("<script>F"), "a value is text, never markup");
}

#[test]
fn a_column_of_many_values_is_carried_and_not_measured() {
    let bench = Bench::new();
    let many: Vec<Value> = claims(0, 120)
        .into_iter()
        .map(|mut line| {
            line["age"] = line["id"].clone();
            line
        })
        .collect();
    bench.file("test.jsonl", &jsonl(&many));
    let told = bench.eval(&["--predictions", "test.jsonl", "--set", "eval.subgroups=age"]).assert().success();
    let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(told.contains("age has 120 values, over 50"), "{told}");
    assert!(bench.json("metrics.json").get("subgroups").is_none());
}

#[test]
fn a_gate_names_operating_points_subgroups_and_the_curve() {
    let bench = bench();
    let gate = |text: &str| {
        bench.file("gate.toml", text);
        let told = bench.eval(&[&FILES[..], &COLUMNS, &["--gate", "gate.toml"]].concat()).assert();
        (told.get_output().status.code(), String::from_utf8_lossy(&told.get_output().stderr).into_owned())
    };
    let met = [
        "operating_points.sensitivity_0.8.ppv = 0.01",
        "operating_points.0.npv = 0.1",
        "calibration.smooth.ici = 0.9",
        "operating_points.\"alert_rate_0.05\".alerts_per_100 = 50",
        "[subgroups.sex.M]",
        "auroc = 0.2",
        "difference.auroc = { min = -0.9, max = 0.9 }",
    ];
    let (code, told) = gate(&met.join("\n"));
    assert_eq!(code, Some(0), "{told}");
    let missed = [
        "operating_points.sensitivity_0.8.ppv = 0.999",
        "subgroups.phase.\"(missing)\".auroc = 0.5",
        "subgroups.sex.X.auroc = 0.5",
        "perplexity.ratio = 1.5",
    ];
    let (code, told) = gate(&missed.join("\n"));
    assert_eq!(code, Some(1));
    for missed in [
        "operating_points.sensitivity_0.8.ppv = 0",
        "subgroups.phase.(missing).auroc is undefined: fewer than 10",
        "subgroups.sex.X.auroc is undefined: no such subgroup",
        "perplexity.ratio is undefined: eval.language_text names no text",
    ] {
        assert!(told.contains(missed), "{missed}: {told}");
    }
    for (text, want) in [
        ("operating_points.sensitivity_0.85.ppv = 0.1", "is no operating point"),
        ("subgroups.ward.a.auroc = 0.1", "has no column of eval.subgroups"),
        ("operating_points.sensitivity_0.8.pvp = 0.1", "no metric is called"),
        ("subgroups.sex.M.difference.auroc = 0.1", "is best at 0"),
        ("auroc = {}", "an empty table bounds nothing"),
    ] {
        let (code, told) = gate(text);
        assert!(code == Some(2) && told.contains(want), "{text}: {told}");
    }
}

#[test]
fn of_more_than_two_classes_they_are_of_the_one_that_is_named() {
    let bench = Bench::new();
    let line = |i: usize| {
        let label = i * 7 % 3;
        let noise = (i * 7919 % 1000) as f64 / 1000.0;
        let share = 0.2 + 0.6 * noise;
        let probabilities: Vec<f64> = (0..3).map(|k| if k == label { share } else { (1.0 - share) / 2.0 }).collect();
        let sex = ["f", "m"][i % 2];
        json!({"id": i, "label": label, "probabilities": probabilities, "sex": sex})
    };
    bench.file("test.jsonl", &jsonl(&(0..200).map(line).collect::<Vec<_>>()));
    bench.file("dev.jsonl", &jsonl(&(500..700).map(line).collect::<Vec<_>>()));
    let flags =
        [&FILES[..], &["--set", "task.labels=[\"worse\", \"same\", \"better\"]", "--set", "eval.subgroups=sex"]]
            .concat();
    bench.eval(&flags).assert().success();
    let metrics = bench.json("metrics.json");
    for leaf in [&metrics["operating_points"], &metrics["subgroups"], &metrics["calibration"]["smooth"]] {
        assert_eq!((&leaf["value"], &leaf["reason"]), (&Value::Null, &json!("eval.positive names no class")), "{leaf}");
    }
    bench.eval(&[&flags[..], &["--set", "eval.positive=better"]].concat()).assert().success();
    let metrics = bench.json("metrics.json");
    assert!(metrics.get("operating_points").is_none());
    let positive = &metrics["positive"];
    assert_eq!(positive["operating_points"][0]["name"], "sensitivity_0.8");
    assert!(positive["operating_points"][0]["ppv"]["ci95"].is_array());
    assert!(positive["calibration"]["smooth"]["ici"]["value"].is_f64());
    assert!(positive["subgroups"]["sex"]["f"]["auroc"]["value"].is_f64());
    let text = bench.text("figures/subgroups.csv");
    assert!(text.contains("sex,f,100,") && bench.text("figures/confusion-classes.csv").contains("better,"), "{text}");
}
