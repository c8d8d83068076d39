use super::*;
use crate::config::keys::KEYS;

fn from_text(text: &str, sets: &[&str]) -> Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    load(Some(&path), &sets).map_err(|e| {
        let mut told = Error::new(e.kind(), e.to_string().replace(&format!("{}/", dir.path().display()), ""));
        if let Some(hint) = e.hint_text() {
            told = told.hint(hint);
        }
        told
    })
}

fn full() -> Config {
    let mut config = Config::default();
    for path in [&mut config.data.train, &mut config.data.dev, &mut config.data.test, &mut config.train.init_from] {
        *path = Some("x".into());
    }
    config.data.expect = super::super::Expect { train: Some(1), dev: Some(1), test: Some(1) };
    config.train.effective_batch = Some(1);
    config.train.max_steps = Some(1);
    config.train.loss_schedule = super::super::LossSchedule::Linear;
    (config.train.w_gen_end, config.train.w_cls_end) = (Some(0.5), Some(2.0));
    config.generate.batch_tokens = Some(1);
    let eval = &mut config.eval;
    for name in [
        &mut config.construct.teacher_name,
        &mut config.construct.teacher_tokenizer,
        &mut eval.judge,
        &mut eval.judge_name,
        &mut eval.judge_tokenizer,
        &mut eval.baseline_model,
        &mut eval.baseline_model_name,
        &mut eval.baseline_model_tokenizer,
    ] {
        *name = Some("x".into());
    }
    config.eval.positive = Some("1:death".into());
    let eval = &mut config.eval;
    let evals = [&mut eval.judge_prompt, &mut eval.verbalized_prompt, &mut eval.language_text];
    for path in evals.into_iter().chain([&mut config.cnn.embeddings]) {
        *path = Some("x".into());
    }
    config.cnn.learning_rate = Some(0.5);
    config.data.fields.insert("text".into(), "note".into());
    config
}

#[test]
fn a_label_that_is_the_number_of_another_class_is_refused() {
    let told = |labels: &str| load(None, &[format!("task.labels={labels}")]).err().map(|error| error.to_string());
    assert_eq!(told(r#"["0","1","2"]"#), None);
    assert!(told(r#"["1","2","3"]"#).unwrap().contains("names class 0 \"1\""));
    assert_eq!(told(r#"["0","1"]"#), None);
    assert!(told(r#"["1","0"]"#).unwrap().contains("names class 0 \"1\""));
}

#[test]
fn the_table_of_keys_and_the_schema_name_the_same_keys() {
    fn flatten(prefix: &str, table: &Table, out: &mut Vec<String>) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            match value {
                Value::Table(inner) if path != "data.fields" => flatten(&format!("{path}."), inner, out),
                _ => out.push(path),
            }
        }
    }
    let table: Table = full().to_toml().unwrap().parse().unwrap();
    let mut in_schema = Vec::new();
    flatten("", &table, &mut in_schema);
    let mut in_keys: Vec<String> = KEYS.iter().map(|(key, ..)| (*key).to_owned()).collect();
    in_schema.sort();
    in_keys.sort();
    assert_eq!(in_schema, in_keys);
}

#[test]
fn every_choice_of_every_key_is_one_the_schema_reads() {
    for (key, kind, _) in KEYS {
        if let Kind::OneOf(list) = kind {
            for choice in *list {
                // A random start needs every weight trained, a schedule its end.
                let mut sets = vec![format!("{key}={choice}")];
                match (*key, *choice) {
                    ("train.init", "random") => sets.push("train.parameters=full".to_owned()),
                    ("train.loss_schedule", "linear") => sets.push("train.w_cls_end=0.5".to_owned()),
                    _ => {}
                }
                load(None, &sets).unwrap_or_else(|e| panic!("{key}={choice}: {e}"));
            }
        }
    }
}

#[test]
fn a_printed_config_reads_back_as_itself() {
    for config in [Config::default(), full()] {
        let mut again = from_text(&config.to_toml().unwrap(), &[]).unwrap();
        again.dir = config.dir.clone();
        again.given.clear();
        assert_eq!(again, config);
    }
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = "[task]\nlabels = [\"a\", \"a\"]\n\n[lora]\nrnk = 8\ndropout = 1.0\n[trian]\nepochs = \
        1\n[train]\nepochs = \"ten\"\nobjective = \"Joint\"\n[data]\nhorizon = 45\n";
    let error = from_text(text, &["train.learning_rat=1", "generate.top_p=0", "nothing"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let expected = r#"10 problems in the configuration
  c.toml:2: task.labels holds "a" twice: the two classes need different labels
  c.toml:5: unknown key lora.rnk; did you mean lora.rank?
  c.toml:6: lora.dropout must be a number from 0, below 1, not 1.0
  c.toml:7: unknown section [trian]; did you mean [train]?
  c.toml:10: train.epochs must be an integer from 1 to 100000, not "ten"
  c.toml:11: train.objective must be one of joint, cls, lm, not "Joint"; did you mean "joint"?
  c.toml:13: data.horizon must be one of 30, 60, 90, not 45
  --set train.learning_rat=1: unknown key train.learning_rat; did you mean train.learning_rate?
  --set generate.top_p=0: generate.top_p must be a number above 0, at most 1, not 0
  --set nothing: write it as key.path=value"#;
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_key_in_the_wrong_section_is_pointed_to_the_right_one() {
    let error = from_text("[train]\nrank = 4\n", &[]).unwrap_err();
    assert_eq!(error.to_string(), "c.toml:2: unknown key train.rank; did you mean lora.rank?");
    let error = from_text("[model]\ntemperature = 4\n", &[]).unwrap_err();
    assert!(error.to_string().starts_with("c.toml:2: unknown key model.temperature"), "{error}");
}

#[test]
fn a_number_beyond_64_bits_is_told_like_any_other() {
    let error = from_text("[train]\nepochs = 3\n[eval]\nbootstrap = 99999999999999999999\n", &[]).unwrap_err();
    assert!(error.to_string().starts_with("c.toml:4: "), "{error}");
    assert!(error.exit_code() == 2 && error.hint_text().is_some(), "{error:?}");
}

#[test]
fn broken_toml_names_its_lines() {
    let error = from_text("[task]\nname = \n[model]\nbase = 'x\n", &[]).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("c.toml:2: ") && told.contains("c.toml:4: "), "{told}");
}

#[test]
fn set_reads_strings_without_quotes_and_lists_with_commas() {
    let config = load(
        None,
        &[
            "model.base=a=b".into(),
            "lora.targets=q_proj,v_proj".into(),
            "data.fields.text=note body".into(),
            "train.w_gen=1".into(),
        ],
    )
    .unwrap();
    assert_eq!(config.model.base, "a=b");
    assert_eq!(config.lora.targets, ["q_proj", "v_proj"]);
    assert_eq!(config.data.fields["text"], "note body");
    let config = load(None, &[r#"task.labels=["no, alive", "yes"]"#.into(), "data.expect.test=7".into()]).unwrap();
    assert_eq!(config.task.labels[..], ["no, alive", "yes"]);
    assert_eq!(config.data.expect.test, Some(7));
}

/// A shell takes quotes away that are not quoted themselves: labels with brackets would train.
#[test]
fn a_list_without_its_quotes_is_refused() {
    let labels = |raw: &str| load(None, &[format!("task.labels={raw}")]).map(|config| config.task.labels.to_vec());
    assert!(labels("[0:alive,1:death]").unwrap_err().to_string().contains("must be a list of strings"));
    assert!(labels(r#""no","ye"#).unwrap_err().to_string().contains("must be a list of strings"));
    assert_eq!(labels(r#""no","yes""#).unwrap(), ["no", "yes"]);
    assert_eq!(labels(r#""no, not","yes""#).unwrap(), ["no, not", "yes"]);
    assert_eq!(labels("no, don't know").unwrap(), ["no", "don't know"]);
}

#[test]
fn set_goes_over_the_file_and_the_last_one_wins() {
    let config = from_text("[lora]\nrank = 4\nalpha = 8\n", &["lora.rank=2", "lora.rank=3"]).unwrap();
    assert_eq!((config.lora.rank, config.lora.alpha), (3, 8.0));
}

#[test]
fn not_a_number_and_infinity_are_out_of_range() {
    for value in ["nan", "inf", "-inf", "true"] {
        assert!(load(None, &[format!("train.max_grad_norm={value}")]).is_err(), "{value}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    assert!(load(None, &["train.w_gen=0".into(), "train.w_cls=0".into()]).is_err());
    assert!(load(None, &["train.effective_batch=32".into(), "train.batch_size=3".into()]).is_err());
    let told = |sets: &[&str]| load(None, &sets.iter().map(ToString::to_string).collect::<Vec<_>>()).map(|_| ());
    assert!(told(&["train.objective=cls", "train.w_cls=0"]).unwrap_err().to_string().starts_with("train.w_cls: is 0"));
    assert!(told(&["train.w_cls=0"]).unwrap_err().to_string().starts_with("train.w_cls: is 0"));
    assert!(told(&["train.objective=lm", "train.w_gen=0"]).unwrap_err().to_string().starts_with("train.w_gen: is 0"));
    // A correction of L_cls for rare classes goes through nothing else.
    for (sets, key) in [
        (["train.class_weights=balanced", "train.label_smoothing=0.1"], "train.label_smoothing: does not go with"),
        (["train.sample=balanced", "train.label_smoothing=0.1"], "train.label_smoothing: does not go with"),
        (["train.sample=balanced", "train.w_consistency=1"], "train.w_consistency: does not go with"),
    ] {
        assert!(told(&sets).unwrap_err().to_string().starts_with(key), "{sets:?}");
    }
    told(&["train.class_weights=balanced", "train.w_consistency=1"]).unwrap();
    told(&["train.objective=cls", "train.w_gen=0"]).unwrap();
    told(&["train.w_gen=0", "train.w_cls=0", "train.w_consistency=1"]).unwrap();
    let three = ["data.format=clinifact", "task.labels=inconclusive,evidence,not enough information"];
    let merged = told(&three).unwrap_err().to_string();
    assert!(
        merged.starts_with("data.format: \"clinifact\" makes two classes") && merged.contains("names 3"),
        "{merged}"
    );
    told(&["data.format=clinifact3", three[1]]).unwrap();
    told(&["data.format=clinifact"]).unwrap();
}

#[test]
fn a_schedule_and_its_ends_come_together() {
    let refused = |sets: &[&str], key: &str| {
        let error = load(None, &sets.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().starts_with(key), "{error}");
    };
    refused(&["train.loss_schedule=linear"], "train.loss_schedule: ");
    refused(&["train.w_cls_end=0.5"], "train.w_gen_end, train.w_cls_end: ");
    refused(
        &["train.w_gen=0", "train.w_cls=0", "train.loss_schedule=linear", "train.w_gen_end=0"],
        "train.w_gen, train.w_cls: ",
    );
    refused(&["train.label_smoothing=1"], "--set train.label_smoothing=1: train.label_smoothing must be");
    refused(&["train.curriculum=long_first"], "--set train.curriculum=long_first: train.curriculum must be one of");
    let from_nothing =
        ["train.w_gen=0", "train.w_cls=1", "train.loss_schedule=linear", "train.w_gen_end=1"].map(String::from);
    assert_eq!(load(None, &from_nothing).unwrap().train.w_gen_end, Some(1.0));
}

#[test]
fn paths_are_found_beside_the_config_first() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("here.jsonl"), "").unwrap();
    std::fs::write(dir.path().join("c.toml"), "").unwrap();
    let config = load(Some(&dir.path().join("c.toml")), &[]).unwrap();
    assert_eq!(config.resolve(Path::new("here.jsonl")), dir.path().join("here.jsonl"));
    assert_eq!(config.resolve(Path::new("elsewhere.jsonl")), Path::new("elsewhere.jsonl"));
    assert_eq!(config.resolve(Path::new("/x/y")), Path::new("/x/y"));
}
