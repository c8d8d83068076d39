//! Prediction files: our key order, other tools' files, refusals.

use super::{tests::file, *};
use crate::labels::{Class, Labels};

fn labels() -> Labels {
    Labels::two("0:alive", "1:death")
}

fn read(path: &std::path::Path) -> crate::error::Result<Vec<Prediction>> {
    Predictions::read(&[path.to_owned()], &labels(), &[]).map(|read| read.all)
}

fn line() -> Prediction {
    Prediction {
        id: Some("a".into()),
        label: Some(Class::ONE),
        probability: Some(0.1 + 0.2),
        logits: Some(vec![f64::from(0.3f32), -1.5]),
        verbalized_label: Some(Class::ZERO),
        parsable: Some(true),
        explanation: Some("why".into()),
        text: Some("why\n\nClassification: 0:alive\n\n".into()),
        agreement: Some(true),
        prompt_tokens: Some(10),
        truncated_tokens: Some(0),
        generated_tokens: Some(5),
        finish: Some(Finish::Stop),
        ..Prediction::default()
    }
}

#[test]
fn every_key_of_a_line_is_one_that_no_column_may_take() {
    let line = Prediction {
        over_classes: Some(OverClasses::default()),
        evidence: Some(None),
        record: Some(1),
        ..Prediction::default()
    };
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line.to_line().unwrap()).unwrap();
    let mut taken = crate::config::PREDICTION_KEYS.to_vec();
    taken.sort_unstable();
    let mut keys: Vec<&str> = line.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, taken);
}

#[test]
fn keys_come_in_the_contracts_order_and_numbers_round_trip() {
    let text = line().to_line().unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"id":"a","label":1,"probability":0.30000000000000004,"calibrated_probability":null,"#,
            r#""logits":[0.30000001192092896,-1.5],"verbalized_label":0,"parsable":true,"explanation":"why","#,
            r#""text":"why\n\nClassification: 0:alive\n\n","agreement":true,"group":null,"prompt_tokens":10,"#,
            r#""truncated_tokens":0,"generated_tokens":5,"finish":"stop","error":null}"#
        )
    );
    let file = file("p.jsonl", text);
    assert_eq!(read(&file.path).unwrap(), [line()]);
}

#[test]
fn an_error_line_has_every_key_null_and_the_record() {
    let error = RecordError {
        record: 3,
        line: None,
        id: None,
        kind: ErrorKind::EmptyText,
        field: Some("text".into()),
        message: "is blank".into(),
    };
    let text = Prediction::from_error(&error, &labels()).to_line().unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"id":null,"label":null,"probability":null,"calibrated_probability":null,"logits":null,"#,
            r#""verbalized_label":null,"parsable":null,"explanation":null,"text":null,"agreement":null,"group":null,"#,
            r#""prompt_tokens":null,"truncated_tokens":null,"generated_tokens":null,"finish":null,"#,
            r#""error":{"kind":"empty_text","message":"record 3, field text: is blank"},"record":3}"#
        )
    );
    let file = file("p.jsonl", text);
    assert_eq!(read(&file.path).unwrap(), [Prediction::from_error(&error, &labels())]);
}

#[test]
fn columns_round_trip_where_they_are_asked_for() {
    let columns = |ward: Option<&str>| {
        [("sex".to_owned(), Some("f".to_owned())), ("ward".to_owned(), ward.map(str::to_owned))].into()
    };
    let other = Prediction { id: Some("other".into()), ..line() };
    let written =
        [Prediction { columns: columns(None), ..line() }, Prediction { columns: columns(Some("3")), ..other.clone() }];
    let lines = written.each_ref().map(|prediction| prediction.to_line().unwrap());
    let file = file("p.jsonl", lines.join("\n"));
    let found = Predictions::read(std::slice::from_ref(&file.path), &labels(), &["sex".into(), "ward".into()]).unwrap();
    assert_eq!(found.blake3, crate::storage::hash_file(&file.path).unwrap());
    assert_eq!((found[0].to_line().unwrap(), &found[..]), (lines[0].clone(), &written[..]));
    assert_eq!(read(&file.path).unwrap(), [line(), other]);
    // A name that no record has is no column of the file.
    let error = Predictions::read(std::slice::from_ref(&file.path), &labels(), &["sx".into()]).map(drop).unwrap_err();
    assert!(error.to_string().contains("field sx: no record has it"), "{error}");
}

#[test]
fn files_of_other_tools_are_read() {
    let lines = "{\"id\": 7, \"probability\": 1, \"verbalized_label\": 1, \"finish\": \"eos\", \"model\": \
        {}}\n\n{\"id\": \"b\", \"probability\": null, \"label\": 0, \"group\": \"g\"}\n\
        {\"id\": \"c\", \"probability\": 0.5, \"group\": \" \"}\n";
    let file = file("p.jsonl", lines);
    let read = read(&file.path).unwrap();
    assert_eq!(
        (read[0].id.as_deref(), read[0].parsable, read[0].agreement, read[0].finish),
        (Some("7"), Some(true), Some(true), None)
    );
    assert_eq!(
        (read[1].parsable, read[1].agreement, read[1].label, read[1].group.as_deref()),
        (None, None, Some(Class::ZERO), Some("g"))
    );
    // As in a file of records.
    assert_eq!(read[2].group, None);
}

#[test]
fn bad_prediction_files_are_refused_with_every_problem() {
    let lines = [
        r#"{"id": "a", "probability": 1.5}"#,
        r#"{"id": "b"}"#,
        r#"{"probability": 0.5}"#,
        r#"{"id": "d", "probability": NaN}"#,
        r#"{"id": "e", "probability": 0.5, "label": 2}"#,
        r#"{"id": "f", "probability": 0.5, "logits": [1]}"#,
        r#"[1]"#,
        r#"{"id": "h", "probability": 0.5, "text": 1}"#,
        r#"{"id": "i", "probability": 0.5}"#,
        r#"{"id": "i", "probability": 0.5}"#,
    ];
    let bad = file("p.jsonl", lines.join("\n"));
    let error = read(&bad.path).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let message = error.to_string();
    for expected in [
        "record 1, field probability: is not a number from 0 to 1",
        "record 2, field probability: is missing",
        "record 3, field id: is missing",
        "record 4: broken JSON",
        "record 5, field label: is not 0, 1 or null",
        "record 6, field logits: is not a list of two numbers",
        "record 7: is not a JSON object",
        "record 8, field text: is not a string",
        "record 10, field id: the same as record 9's",
    ] {
        assert!(message.contains(expected), "{expected}\n{message}");
    }
    assert!(read(&file("p.jsonl", "").path).is_err());
    assert!(!format!("{:?}", line()).contains("why"));
}
#[test]
fn probabilities_read_back_to_the_bit() {
    // Thresholds are compared with `>=`: one unit in the last place would move a record across.
    let mut state = 1u64;
    let draws: Vec<f64> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    })
    .take(2000)
    .collect();
    let lines = draws
        .iter()
        .enumerate()
        .map(|(i, p)| Prediction { id: Some(i.to_string()), probability: Some(*p), ..line() }.to_line().unwrap());
    let file = file("p.jsonl", lines.collect::<Vec<_>>().join("\n"));
    let read: Vec<f64> = read(&file.path).unwrap().iter().map(|p| p.probability.unwrap()).collect();
    let different = read.iter().zip(&draws).filter(|(read, drawn)| read.to_bits() != drawn.to_bits()).count();
    assert_eq!(different, 0);
}

#[test]
fn a_line_of_three_classes_has_their_probabilities() {
    let labels = Labels::new(["worse", "same", "better"].map(String::from).to_vec()).unwrap();
    let line = Prediction {
        probability: None,
        logits: Some(vec![0.5, 2.0, -1.0]),
        over_classes: Some(OverClasses {
            probabilities: Some(vec![0.25, 0.625, 0.125]),
            calibrated_probabilities: None,
            predicted: Class::new(1),
        }),
        verbalized_label: Class::new(2),
        agreement: Some(false),
        ..line()
    };
    let text = line.to_line().unwrap();
    assert!(text.contains(r#""logits":[0.5,2.0,-1.0],"probabilities":[0.25,0.625,0.125],"#), "{text}");
    assert!(text.contains(r#""probability":null"#) && text.contains(r#""predicted":1,"#), "{text}");
    let file_of = |text: &str| file("p.jsonl", text);
    let read_three = |text: &str| Predictions::read(&[file_of(text).path.clone()], &labels, &[]).map(|read| read.all);
    assert_eq!(read_three(&text).unwrap(), [line]);
    // `predicted` and `agreement` follow from the probabilities, ties to the lowest class.
    let other = r#"{"id":"b","probabilities":[0.4,0.4,0.2],"verbalized_label":0}"#;
    let other = read_three(other).unwrap().remove(0);
    assert_eq!((other.called(), other.agreement), (Some(Class::ZERO), Some(true)));
    for (wrong, what) in [
        (r#"{"id":"a","probabilities":[0.5,0.5]}"#, "field probabilities: is not a list"),
        (r#"{"id":"a","probabilities":[0.5,0.5,0.5]}"#, "field probabilities: do not add up to 1"),
        (
            r#"{"id":"a","probabilities":[0.5,0.3,0.2],"predicted":1}"#,
            "field predicted: is not the class of the largest",
        ),
        (r#"{"id":"a","probability":0.5}"#, "field probabilities: is missing"),
        (r#"{"id":"a","probabilities":[0.5,0.5,0.0],"label":3}"#, "field label: is not the number of a class"),
    ] {
        let error = read_three(wrong).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    // Under two labels it is told of the classes, not of a label that is out of range.
    let error = read(&file_of(&text).path).unwrap_err().to_string();
    assert!(error.contains("field probabilities: is of more classes than task.labels names"), "{error}");
}

fn write(dir: &std::path::Path, name: &str, ids: &[&str]) -> std::path::PathBuf {
    let path = dir.join(name);
    let line = |id: &&str| format!("{{\"id\": \"{id}\", \"probability\": 0.5, \"sex\": \"f{id}\"}}\n");
    std::fs::write(&path, ids.iter().map(line).collect::<String>()).unwrap();
    path
}

#[test]
fn files_are_one_in_the_order_given_and_an_id_is_in_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let labels = Labels::two("0:alive", "1:death");
    let read = |paths: &[std::path::PathBuf], columns: &[String]| Predictions::read(paths, &labels, columns);
    let named = |path: &std::path::Path, number: usize| format!("{}, record {number}", path.display());
    let a = write(dir.path(), "a", &["1", "2"]);
    let none = write(dir.path(), "none", &[]);
    let b = write(dir.path(), "b", &["3"]);
    let read_all = read(&[b.clone(), none.clone(), a.clone()], &["sex".into()]).unwrap();
    let ids: Vec<&str> = read_all.iter().filter_map(|prediction| prediction.id.as_deref()).collect();
    assert_eq!(ids, ["3", "1", "2"]);
    assert_eq!([0, 1, 2].map(|i| read_all.place(i)), [named(&b, 1), named(&a, 1), named(&a, 2)]);
    let together = [&b, &none, &a].map(|path| std::fs::read(path).unwrap()).concat();
    assert_eq!(read_all.blake3, crate::storage::hash_bytes(&together));

    let twice = write(dir.path(), "twice", &["4", "2"]);
    let told =
        |paths: &[std::path::PathBuf], columns: &[String]| read(paths, columns).map(drop).unwrap_err().to_string();
    let message = told(&[a.clone(), twice.clone()], &[]);
    let wanted = format!("{}, record 2, field id: the same as {}, record 2's", twice.display(), a.display());
    assert_eq!(message, wanted);
    let message = told(&[none.clone(), none.clone()], &[]);
    assert!(message.contains("hold no prediction") && message.contains("(2 files)"), "{message}");
    assert!(told(&[a, b], &["ward".into()]).contains("field ward: no record has it"));
    assert!(told(&[none], &[]).contains("none, holds no prediction"));
}

/// A share of the words that were found cannot be above 1, nor does a text that is not parsable agree with anything.
#[test]
fn what_a_line_says_of_itself_must_be_possible() {
    let quote = |found: usize| {
        let spans = r#"{"field":null,"start":null,"end":null,"explanation_start":0,"explanation_end":9,"quoted":true"#;
        format!(r#"{{"id":"a","label":1,"probability":0.5,"evidence":[{spans},"words":3,"found":{found}}}]}}"#)
    };
    let given = file("p.jsonl", quote(3).as_bytes());
    assert!(read(&given.path).unwrap()[0].evidence.is_some());
    let given = file("p.jsonl", quote(30).as_bytes());
    let told = read(&given.path).unwrap_err();
    assert!(told.exit_code() == 3 && told.to_string().contains("field evidence"), "{told}");
    let line = r#"{"id":"a","label":1,"probability":0.9,"verbalized_label":1,"parsable":false}"#;
    let given = file("p.jsonl", line.as_bytes());
    assert_eq!(read(&given.path).unwrap()[0].agreement, None);
}
