//! Baselines, the base before tuning and gates of three classes.

use clsgen::metrics::significance::holm_defined;

use super::*;

/// A folder as BERT's over the words of the notes.
fn word_embeddings(fixture: &Fixture) {
    use candle_core::{Device, Tensor, safetensors};
    let words = ["[UNK]", "[SEP]", "fell", "ill", "rested", "walked", "far"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().zip(0..).map(|(word, id)| (word.to_string(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null, "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    fixture.write("bert/tokenizer.json", tokenizer.to_string());
    let table: Vec<f32> = (0..7 * 5).map(|i| ((i * 37) % 11) as f32 / 11.0 - 0.5).collect();
    let table = Tensor::from_vec(table, (7, 5), &Device::Cpu).unwrap();
    let tensors = std::collections::HashMap::from([("embeddings.word_embeddings.weight".to_owned(), table)]);
    safetensors::save(&tensors, fixture.path("bert/model.safetensors")).unwrap();
}

const EVAL: [&str; 11] = [
    "eval",
    "--config",
    "config.toml",
    "--run",
    "run",
    "--split",
    "dev",
    "--set",
    "eval.bootstrap=300",
    "--set",
    "generate.constrain=true",
];

/// The prompt that asks for a probability a class is longer than the notes' own.
const WINDOW: [&str; 4] = ["--set", "model.max_input_tokens=1200", "--set", "model.allow_long=true"];

/// What a first run of `verbalized` said of record i: nothing of two, another class of four, the right one of twelve.
fn said(i: usize) -> Option<usize> {
    (i % 9 != 4).then_some(if i.is_multiple_of(5) { (i + 1) % 3 } else { i % 3 })
}

/// The log of `verbalized` with these answers in the place of the model's, which has not learned to give any.
fn tell(fixture: &Fixture) {
    let log = "run/eval/dev/baselines/verbalized.jsonl";
    let text: String = lines(fixture, log)
        .into_iter()
        .enumerate()
        .map(|(i, mut line)| {
            let shares = |class: usize| (0..3).map(|k| if k == class { 0.5 } else { 0.25 }).collect::<Vec<f64>>();
            line["runs"] = json!([
                {"probabilities": said(i).map(shares), "verbalized_label": said(i)},
                {"probabilities": [0.5, 0.3, 0.2], "verbalized_label": 0},
            ]);
            line.to_string() + "\n"
        })
        .collect();
    let hash = |line: &str| format!("\"{}\"\n", &blake3::hash(line.as_bytes()).to_hex()[..32]);
    let hashes: String = text.lines().map(hash).collect();
    fixture.write(log, text);
    fixture.write("run/eval/dev/baselines/verbalized.hashes", hashes);
}

#[test]
fn every_baseline_is_measured_and_compared_with_the_model() {
    let fixture = trained_under(&WINDOW);
    word_embeddings(&fixture);
    let mut flags: Vec<&str> = EVAL.into_iter().chain(WINDOW).collect();
    flags.extend(["--baselines", "verbalized,label,self_consistency,token_probability,cnn", "--runs", "2", "--json"]);
    for set in ["cnn.embeddings=bert", "cnn.filters=4", "cnn.projection=4", "cnn.epochs=2", "cnn.seeds=2"] {
        flags.extend(["--set", set]);
    }
    let first = run(&fixture, &flags);
    let verbalized = &first["baselines"]["methods"][0];
    assert_eq!(verbalized["metrics"]["parsable"]["value"], 0.0, "random weights write no probabilities");
    assert_eq!(verbalized["metrics"]["auroc"]["reason"], "no answer could be parsed");
    let asked = fixture.json("run/eval/dev/baselines/verbalized.meta.json")["eval.verbalized_prompt"].clone();
    let question = asked["question"].as_str().unwrap();
    assert!(question.starts_with("Worse, the same or better?\n\n"), "{question}");
    assert!(question.contains("\nProbability of the same: <integer>\n"), "{question}");

    tell(&fixture);
    let metrics = run(&fixture, &flags);
    let methods = metrics["baselines"]["methods"].as_array().unwrap();
    let names: Vec<&str> = methods.iter().map(|method| method["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["verbalized", "label", "self_consistency", "token_probability", "cnn"]);
    let told = &methods[0];
    assert_eq!((&told["runs"]["accuracy"]["runs"], &told["metrics"]["auroc"]["n"]), (&json!(2), &json!(18)));
    let close = |value: &Value, want: f64| assert!((value.as_f64().unwrap() - want).abs() < 1e-12, "{value}: {want}");
    // Of two runs one is right of 12 of 18, the other of the 6 of class 0; their SD is that of two numbers.
    close(&told["metrics"]["accuracy"]["value"], (12.0 / 18.0 + 6.0 / 18.0) / 2.0);
    close(&told["runs"]["accuracy"]["sd"], (12.0 - 6.0) / 18.0 / 2f64.sqrt());
    close(&told["metrics"]["parsable"]["value"], (16.0 / 18.0 + 1.0) / 2.0);
    let recall: f64 = (0..18).filter(|i| i % 3 == 1 && said(*i) == Some(1)).count() as f64 / 6.0;
    close(&told["metrics"]["per_class"][1]["recall"]["value"], recall / 2.0);
    // Against the model by the first run, AUROC on what it answers.
    let of = |method: &Value, metric: &str| {
        let comparisons = method["comparisons"].as_array().unwrap().clone();
        comparisons.into_iter().find(|comparison| comparison["metric"] == metric).unwrap()
    };
    close(&of(told, "accuracy")["difference"]["value"], metrics["accuracy"]["value"].as_f64().unwrap() - 12.0 / 18.0);
    assert_eq!(of(told, "auroc")["difference"]["n"], 16);
    for (method, tested) in methods.iter().zip([5, 4, 4, 4, 4]) {
        assert_eq!(method["comparisons"].as_array().unwrap().len(), tested, "{method}");
        assert_eq!(of(method, "accuracy")["test"], "sign-flip over groups, exact");
        assert_eq!(of(method, "macro.f1")["test"], "paired bootstrap");
    }
    let p = |value: &Value| value["p_value"].as_f64();
    let all: Vec<Option<f64>> =
        methods.iter().flat_map(|method| method["comparisons"].as_array().unwrap().iter().map(p)).collect();
    let holm: Vec<Option<f64>> =
        methods.iter().flat_map(|method| method["holm"].as_array().unwrap().iter().map(Value::as_f64)).collect();
    assert_eq!(holm, holm_defined(&all));
    let table = fixture.json("run/eval/dev/tables/comparisons.json");
    assert_eq!(table["rows"].as_array().unwrap().len(), all.len());
    assert_eq!(table["rows"][3][1], "F1, macro");
    // The shares of the votes are scores, and the CNN's probabilities are one a class.
    for line in lines(&fixture, "run/eval/dev/baselines/self_consistency.jsonl") {
        assert!(line["probability"].is_null() && line["votes"].is_array() == line["probabilities"].is_array());
    }
    let cnn = lines(&fixture, "run/eval/dev/baselines/cnn/seed-1.jsonl");
    let right = |line: &&Value| {
        let shares: Vec<f64> = line["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        assert!(shares.len() == 3 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        shares[line["label"].as_u64().unwrap() as usize] == shares.iter().copied().fold(0.0, f64::max)
    };
    let seeds = [0, 1].map(|seed| lines(&fixture, &format!("run/eval/dev/baselines/cnn/seed-{seed}.jsonl")));
    let accuracy = |seed: &Vec<Value>| seed.iter().filter(right).count() as f64 / 18.0;
    close(&methods[4]["metrics"]["accuracy"]["value"], (accuracy(&seeds[0]) + accuracy(&seeds[1])) / 2.0);
    assert_eq!((cnn.len(), &methods[4]["metrics"]["parsable"]["value"]), (18, &Value::Null));
    let grid = lines(&fixture, "run/eval/dev/baselines/cnn/grid.jsonl");
    assert_eq!(grid.len(), 6);
    assert!(grid.iter().all(|line| (0.0..=1.0).contains(&line["score"].as_f64().unwrap())));

    // Names of the classes decide how records are read.
    let meta = fixture.json("run/eval/dev/baselines/cnn/meta.json");
    assert_eq!(meta["labels"], json!(["worse", "the same", "better"]));
}

#[test]
fn every_difference_from_the_base_has_its_test() {
    let fixture = trained();
    let metrics = run(&fixture, &[&EVAL[..], &["--compare-base", "--json"]].concat());
    let table = &metrics["compare"]["table"];
    assert_eq!(table["columns"], json!(["Metric", "Base", "Tuned", "Difference", "p", "p, Holm"]));
    let rows = table["rows"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap();
    assert_eq!(rows.len(), 11);
    for name in ["AUROC, macro", "Accuracy", "Balanced accuracy", "F1, macro", "Brier"] {
        assert!(row(name)[4] != "–" && row(name)[5] != "–", "{}", row(name));
    }
    // The toy's texts name two of the three classes: nothing to compare, and no p.
    assert_eq!([&row("AUROC-Align, macro")[3], &row("AUROC-Align, macro")[4]], ["–", "–"]);
    let base = fixture.json("run/eval/dev/base.metrics.json");
    let value = |of: &Value| of["macro"]["f1"]["value"].as_f64().unwrap();
    let shown = row("F1, macro")[3].as_str().unwrap().replace('−', "-");
    let difference: f64 = shown.split(' ').next().unwrap().parse().unwrap();
    assert!((difference - (value(&metrics) - value(&base))).abs() <= 0.5001e-4, "{shown}");
    assert!(fixture.path("run/eval/dev/tables/compare_base.csv").is_file());
}

/// Eight records of each of three classes: of "worse" all are called, of "the same" half, of "better" three quarters.
fn predictions() -> String {
    let line = |i: usize| {
        let class = i % 3;
        let called = if i / 3 < [8, 4, 6][class] { class } else { (class + 1) % 3 };
        let shares: Vec<f64> = (0..3).map(|k| if k == called { 0.6 } else { 0.2 }).collect();
        json!({"id": format!("n{i}"), "label": class, "probabilities": shares}).to_string() + "\n"
    };
    (0..24).map(line).collect()
}

#[test]
fn a_class_is_gated_by_its_name_or_its_number() {
    let fixture = Fixture::new();
    fixture.write("p.jsonl", predictions());
    let gated = |name: &str, gate: &str, labels: &str| {
        fixture.write(name, gate);
        // Other labels are another evaluation.
        let run = if labels == LABELS { "r" } else { "other" };
        clsgen(&fixture, &["eval", "--predictions", "p.jsonl", "--run", run, "--gate", name, "--set", labels])
    };
    let told = |gate: &str, code: i32| {
        let output = gated("gate.toml", gate, LABELS);
        assert_eq!(output.status.code(), Some(code), "{gate}: {}", stderr(&output));
        stderr(&output)
    };
    // What is refused is refused before any work.
    for (gate, want) in [
        ("per_class.best.recall = 0.5", "\"best\" is none of task.labels"),
        ("per_class.3.recall = 0.5", "\"3\" is none of task.labels"),
        ("per_class.better.recal = 0.5", "did you mean `per_class.CLASS.recall`"),
        ("per_class.recall = 0.5", "did you mean `per_class.CLASS.recall`"),
        ("per_class.better = 0.5", "no metric is called `per_class.better`"),
    ] {
        let stderr = told(gate, 2);
        assert!(stderr.contains(want), "{gate}: {stderr}");
    }
    assert!(!fixture.path("r").exists());
    told("[per_class]\nworse.recall = 1.0\n\"the same\".recall = 0.5\n2.recall = 0.75\n0.auroc = 0.5", 0);
    let missed = told(
        "per_class.\"the same\".recall = 0.51\nper_class.2.recall = { max = 0.7 }\nper_class.better.auroc_align = 0.1\n\
        per_class.worse.recall = 0.9\nmacro.f1 = 0.1\npositive.auroc = 0.1",
        1,
    );
    for want in [
        "per_class.the same.recall = 0.5000, below 0.51",
        "per_class.2.recall = 0.7500, above 0.7",
        "per_class.better.auroc_align is undefined: ",
        "positive.auroc is undefined: eval.positive names no class",
    ] {
        assert!(missed.contains(want), "{want}: {missed}");
    }
    assert!(!missed.contains("worse") && !missed.contains("macro"), "{missed}");
    // JSON has the same paths, and a name may hold a dot.
    let dotted = r#"task.labels=["v1.0","v1.5","v2.0"]"#;
    let gate = r#"{"per_class": {"v1.5": {"recall": {"max": 0.6}}, "0": {"recall": 1}}}"#;
    let output = gated("gate.json", gate, dotted);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = gated("gate.json", r#"{"per_class.v2.0.recall": 0.8}"#, dotted);
    assert!(stderr(&output).contains("per_class.v2.0.recall = 0.7500, below 0.8"), "{}", stderr(&output));
    // Two classes have no others to be told apart from.
    let two = ["--set", r#"task.labels=["no","yes"]"#, "--gate", "two.toml"];
    fixture.write("two.toml", "per_class.0.recall = 0.5");
    let output = clsgen(&fixture, &[&["eval", "--predictions", "p.jsonl", "--run", "two"][..], &two].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("more than two classes"), "{}", stderr(&output));
}
