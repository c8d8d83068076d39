//! Hostile inputs, reader by reader. Files are made in a temporary directory.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::{
    config::{Data, DataFormat},
    error::Result,
    labels::{Class, Labels},
};

/// A file in a directory that lives as long as this.
pub(super) struct TestFile {
    _dir: TempDir,
    pub path: PathBuf,
}

pub(super) fn file(name: &str, bytes: impl AsRef<[u8]>) -> TestFile {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    TestFile { _dir: dir, path }
}

fn strict() -> Needs {
    Needs { label: true, ..Needs::default() }
}

fn load_bytes(name: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<Record>, String> {
    let file = file(name, bytes);
    load(&Data::default(), &file.path, &strict()).map_err(|e| {
        assert_eq!(e.exit_code(), 3);
        assert!(e.hint_text().is_some(), "{e}");
        e.to_string().replace(&file.path.display().to_string(), name)
    })
}

/// (id, kind) of each record error and the ids of the good records, as `predict` sees them, whole or after any of them.
fn streamed(name: &str, bytes: impl AsRef<[u8]>) -> Vec<Result<String, (Option<String>, &'static str)>> {
    let file = file(name, bytes);
    let after = |skipped: usize| -> Vec<_> {
        let stream = stream_after(&Data::default(), &file.path, &[], skipped).unwrap().map(Result::unwrap);
        stream.map(|item| item.map(|r| (r.id, r.number)).map_err(|e| (e.id, e.kind.as_str(), e.record))).collect()
    };
    let whole = after(0);
    for skipped in 0..whole.len() + 2 {
        assert_eq!(after(skipped), whole[skipped.min(whole.len())..], "{name} after {skipped}");
    }
    whole.into_iter().map(|item| item.map(|(id, _)| id).map_err(|(id, kind, _)| (id, kind))).collect()
}

fn ok(id: &str) -> Result<String, (Option<String>, &'static str)> {
    Ok(id.into())
}

fn bad(id: Option<&str>, kind: &'static str) -> Result<String, (Option<String>, &'static str)> {
    Err((id.map(String::from), kind))
}

#[test]
fn jsonl_gives_canonical_records_with_every_optional_field() {
    let lines = "\u{feff}{\"id\": \"a\", \"text\": \"one <|eot_id|>\", \"label\": 1, \"explanation\": \"why\", \
        \"group\": 7, \"more\": [1]}\r\n\n{\"text\": \"two\", \"label\": 0, \"id\": 2}";
    let records = load_bytes("x.jsonl", lines).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].id.as_str(), records[0].label, records[0].number), ("a", Some(Class::ONE), 1));
    assert_eq!(records[0].field("text"), Some("one <|eot_id|>"));
    assert_eq!((records[0].explanation.as_deref(), records[0].group.as_deref()), (Some("why"), Some("7")));
    assert_eq!((records[1].id.as_str(), records[1].number, records[1].field("more")), ("2", 2, None));
    let line = serde_json::to_string(&records[0].to_json()).unwrap();
    assert_eq!(line, r#"{"id":"a","text":"one <|eot_id|>","label":1,"group":"7","explanation":"why"}"#);
    assert_eq!(load_bytes("again.jsonl", line).unwrap()[0], records[0]);
}

#[test]
fn jsonl_lists_every_problem_with_number_and_field_and_no_text() {
    let secret = "SECRETNOTE";
    let lines = [
        format!(r#"{{"id": "a", "text": "{secret}", "label": 2}}"#),
        format!(r#"{{"id": "a", "text": "{secret}", "label": 1.0}}"#),
        format!(r#"{{"id": "c", "text": "{secret}", "label": "1"}}"#),
        format!(r#"{{"id": "d", "text": "{secret}", "label": true}}"#),
        format!(r#"{{"id": "e", "text": "{secret}"}}"#),
        r#"{"id": "f", "text": " \u200b\n\t", "label": 99999999999999999999}"#.into(),
        format!(r#"{{"id": "g", "text": ["{secret}"], "label": 1}}"#),
        format!(r#"{{"text": "{secret}", "label": 1}}"#),
        format!(r#"{{"id": "i", "text": "{secret}", "label": 1"#),
        format!(r#"{{"id": "j", "text": {secret}, "label": 1}}"#),
        format!(r#""{secret}""#),
        r#"{"id": "l", "text": "\ud800", "label": 1}"#.into(),
        format!(r#"{{"id": "m", "text": "{secret}", "label": 1, "label": 0}}"#),
        format!("{{\"id\": \"n\", \"label\": 1, \"text\": \"{secret}\n\"}}"),
    ];
    let message = load_bytes("x.jsonl", lines.join("\n")).unwrap_err();
    assert!(!message.contains(secret), "{message}");
    let expected = [
        "x.jsonl: 17 problems",
        "record 1, field label: is not 0 or 1",
        "record 2, field id: the same as record 1's",
        "record 2, field label: is not an integer",
        "record 3, field label: is neither a class's number (from 0, in JSON without quotes) nor one of task.labels",
        "record 4, field label: is not an integer",
        "record 5, field label: is missing",
        "record 6, field label: is not an integer",
        "record 6, field text: is blank",
        "record 7, field text: is not a string",
        "record 8, field id: is missing",
        "record 9: broken JSON: the line ends inside the object",
        "record 10: broken JSON near column 21",
        "record 11: is not a JSON object",
        "record 12: broken JSON near column 28",
        "record 13: a key that is read stands in the object twice",
        "record 14: broken JSON: the line ends inside the object",
        "record 15: broken JSON: the line ends inside the object",
    ];
    let lines: Vec<&str> = message.lines().map(|line| line.trim().trim_start_matches("x.jsonl, ")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn only_twenty_problems_are_listed_and_all_are_counted() {
    let lines: Vec<String> = (0..30).map(|i| format!(r#"{{"id": {i}, "text": "", "label": 1}}"#)).collect();
    let message = load_bytes("x.jsonl", lines.join("\n")).unwrap_err();
    assert!(message.starts_with("x.jsonl: 30 problems\n") && message.ends_with("\n  and 10 more"), "{message}");
    assert_eq!(message.lines().count(), 22);
}

#[test]
fn a_stream_gives_one_item_a_record_with_its_kind() {
    let mut lines = b"{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"b\", \"text\": \"x\xff\"}\nnonsense\n".to_vec();
    lines.extend_from_slice(
        b"{\"id\": \"d\", \"text\": \"\"}\n{\"id\": \"e\", \"text\": \"x\", \"label\": \
        3}\n{\"id\": \"f\", \"text\": null}\n{\"id\": \"g\", \"text\": \"x\", \"label\": null}",
    );
    let expected = [
        ok("a"),
        bad(Some("b"), "invalid_utf8"),
        bad(None, "invalid_json"),
        bad(Some("d"), "empty_text"),
        bad(Some("e"), "bad_label"),
        bad(Some("f"), "missing_field"),
        ok("g"),
    ];
    assert_eq!(streamed("x.jsonl", lines), expected);
    assert_eq!(streamed("empty.jsonl", ""), []);
}

#[test]
fn a_stream_ends_at_a_repeated_id() {
    let file = file(
        "x.jsonl",
        "{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"b\", \"text\": \"\"}\n{\"id\": \"b\", \"text\": \"x\"}\n",
    );
    let mut items: Vec<_> = stream(&Data::default(), &file.path, &[]).unwrap().collect();
    let error = items.pop().unwrap().unwrap_err();
    assert_eq!(items.iter().map(|item| item.as_ref().unwrap().is_ok()).collect::<Vec<_>>(), [true, false]);
    assert!(error.to_string().ends_with("x.jsonl, record 3, field id: the same as record 2's"), "{error}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn csv_reads_quotes_newlines_crlf_bom_and_blank_lines() {
    let text = "\u{feff}id,text,label\r\n\r\na,\"two\r\nlines, \"\"quoted\"\"\",1\r\n\nb,5\" wide, 0 \nc,\"\u{e9}\",1";
    let records = load_bytes("x.csv", text).unwrap();
    assert_eq!(
        records.iter().map(|r| (r.id.as_str(), r.label.unwrap().index(), r.number)).collect::<Vec<_>>(),
        [("a", 1, 1), ("b", 0, 2), ("c", 1, 3)]
    );
    assert_eq!(records[0].field("text"), Some("two\r\nlines, \"quoted\""));
    assert_eq!((records[1].field("text"), records[2].field("text")), (Some("5\" wide"), Some("\u{e9}")));
}

#[test]
fn csv_reports_broken_rows_by_record_number() {
    let text = b"id,text,label\na,x,1\nb,x\nc,x,1,2\nd,\"x\"y,1\ne,\xff,1\nf,x,1.0\ng,x,\nh,,1\ni,x,-1\nj,\"x,1\n";
    let message = load_bytes("x.csv", text).unwrap_err();
    let lines: Vec<&str> = message.lines().skip(1).map(|line| line.trim().trim_start_matches("x.csv, ")).collect();
    let expected = [
        "record 2: has 2 cells where the header has 3",
        "record 3: has 4 cells where the header has 3",
        "record 4: text follows a closing quote",
        "record 5, field text: is not UTF-8",
        "record 6, field label: is neither a class's number (from 0, in JSON without quotes) nor one of task.labels",
        "record 7, field label: is missing",
        "record 8, field text: is blank",
        "record 9, field label: is not 0 or 1",
        "record 10: a quoted cell is never closed",
    ];
    assert_eq!(lines, expected);
    let kinds: Vec<_> = streamed("x.csv", text).into_iter().map(|item| item.map_err(|(_, kind)| kind)).collect();
    assert_eq!(
        kinds[1..6],
        [Err("invalid_json"), Err("invalid_json"), Err("invalid_json"), Err("invalid_utf8"), Err("bad_label")]
    );
    assert_eq!(kinds[6], Ok("g".into()));
}

#[test]
fn a_missing_column_is_named_and_a_headerless_file_is_not_quoted() {
    let message = load_bytes("x.csv", "id,note,label\na,x,1\n").unwrap_err();
    assert_eq!(message, "x.csv: field text: no column `text`");
    let file = file("x.csv", "17,The patient Jones died.,1\n18,Well.,0\n");
    let error = load(&Data::default(), &file.path, &strict()).unwrap_err();
    assert!(!format!("{error} {:?}", error.hint_text()).contains("Jones"));
    let cells = super::names::can_be_shown;
    let wanted = ["id".to_owned(), "text".into(), "label".into()];
    assert!(["note_id", "Lable", "label 2", "report text"].iter().all(|name| cells(name, &wanted)));
    assert!(!["a1", "Jones", "Well.", "patient_smith", "17", "id Jones"].iter().any(|name| cells(name, &wanted)));
    assert!(load_bytes("x.csv", "id,text,text,label\na,x,y,1\n").unwrap_err().contains("more than one column `text`"));
    assert!(load_bytes("x.csv", "").unwrap_err().contains("is empty"));
}

#[test]
fn fields_are_mapped_and_further_names_are_kept() {
    let file = file("x.csv", "note_id,note,died,age,pt\na,x,1,63,p1\n");
    let fields = [("id", "note_id"), ("text", "note"), ("label", "died"), ("age", "age"), ("group", "pt")];
    let mut data = Data { fields: fields.map(|(k, v)| (k.into(), v.into())).into(), ..Data::default() };
    let records = load(&data, &file.path, &strict()).unwrap();
    assert_eq!(
        (records[0].field("age"), records[0].field("text"), records[0].group.as_deref()),
        (Some("63"), Some("x"), Some("p1"))
    );
    data.fields.insert("sex".into(), "gender".into());
    assert!(load(&data, &file.path, &strict()).unwrap_err().to_string().ends_with("field sex: no column `gender`"));
    assert!(stream(&data, &file.path, &[]).is_ok(), "the input of predict need not have every mapped column");
}

#[test]
fn lcd_reads_its_horizon_one_element_at_a_time() {
    let text = r#" {"version": {"a": [1, "]"]}, "data" : [ {"id": 1, "text": "a \"]}\\", "out_hospital_mortality_30": 0,
        "out_hospital_mortality_90": 1, "data_type": "dev"} ,
        {"id": 2, "text": "b", "out_hospital_mortality_30": 1, "out_hospital_mortality_90": 1}], "after": 1}"#;
    let file = file("x.json", text);
    for (horizon, labels) in [(30, [0, 1]), (90, [1, 1])] {
        let data = Data { horizon, format: DataFormat::Lcd, ..Data::default() };
        let records = load(&data, &file.path, &strict()).unwrap();
        assert_eq!(records.iter().map(|r| r.label.unwrap().index()).collect::<Vec<_>>(), labels);
        assert_eq!((records[0].id.as_str(), records[0].field("text")), ("1", Some("a \"]}\\")));
    }
    // Without the format's name too, unless lines are whole objects.
    let told = |name: &str, text: &str| load(&Data::default(), &self::file(name, text).path, &strict());
    assert_eq!(told("x.json", text).unwrap().len(), 2);
    assert_eq!(told("x.json", &text.replace('\n', " ")).unwrap().len(), 2);
    assert_eq!(told("x.json", &format!("\u{feff}{text}")).unwrap().len(), 2, "a byte order mark");
    let lines = "{\"id\": 1, \"data\": [{}], \"text\": \"a\", \"label\": 0}\n\
        {\"id\": 2, \"text\": \"b\", \"label\": 1}\n";
    assert_eq!(told("x.json", lines).unwrap().len(), 2);
    let data = Data { horizon: 60, format: DataFormat::Lcd, ..Data::default() };
    assert!(load(&data, &file.path, &strict()).unwrap_err().to_string().contains("record 2, field label: is missing"));
}

#[test]
fn lcd_tells_a_cut_file_and_goes_on_after_a_broken_element() {
    let cut = r#"{"data": [{"id": 1, "text": "a", "out_hospital_mortality_30": 0}, {"id": 2, "te"#;
    assert!(
        load_bytes("x.json", cut)
            .unwrap_err()
            .ends_with("x.json: broken JSON after record 1: the file ends inside the document")
    );
    let broken = r#"{"data": [{"id": 1, "text": "a"}, {"id": 2, "text": nope}, 7, {"id": 4, "text": "b"}]}"#;
    assert_eq!(streamed("x.json", broken), [ok("1"), bad(None, "invalid_json"), bad(None, "invalid_json"), ok("4")]);
    let file = file("x.json", r#"{"items": []}"#);
    let data = Data { format: DataFormat::Lcd, ..Data::default() };
    assert!(load(&data, &file.path, &strict()).unwrap_err().to_string().contains("no `data` array"));
}

#[test]
fn labels_of_three_classes_are_numbers_or_names() {
    let labels = Labels::new(["decreased", "no difference", "increased"].map(String::from).to_vec()).unwrap();
    let data = Data { labels: labels.clone(), ..Data::default() };
    let read = |data: &Data, name: &str, text: &str| -> Result<Vec<usize>> {
        let records = load(data, &file(name, text).path, &Needs { label: true, ..Needs::default() })?;
        Ok(records.iter().map(|record| record.label.unwrap().index()).collect())
    };
    let lines = "{\"id\":1,\"text\":\"a\",\"label\":2}\n{\"id\":2,\"text\":\"b\",\"label\":\"no difference\"}";
    assert_eq!(read(&data, "x.jsonl", lines).unwrap(), [2, 1]);
    assert_eq!(read(&data, "x.csv", "id,text,label\n1,a,increased\n2,b,0\n").unwrap(), [2, 0]);
    // A number is the number of a class, whatever the classes are called.
    let turned = Data { labels: Labels::two("1", "0"), ..Data::default() };
    assert_eq!(read(&turned, "x.csv", "id,text,label\n1,a,1\n2,b,0\n").unwrap(), [1, 0]);
    let error = read(&data, "x.csv", "id,text,label\n1,a,3\n").unwrap_err();
    assert!(error.to_string().contains("record 1, field label: is not one of the classes"), "{error}");
    let own = Data { format: DataFormat::EvidenceInference, ..data.clone() };
    let line = |code: i32| {
        format!(
            "{{\"id\":{code},\"pmcid\":7,\"text\":\"t\",\"intervention\":\"i\",\"comparator\":\"c\",\
            \"outcome\":\"o\",\"label\":1,\"label_code\":{code}}}\n"
        )
    };
    assert_eq!(read(&own, "x.jsonl", &[line(-1), line(0), line(1)].concat()).unwrap(), [0, 1, 2]);
    assert!(read(&own, "x.jsonl", &line(2)).unwrap_err().to_string().contains("is not −1, 0 or 1"));
    let text = "index,nctId,claim,PMID,article_abstract,label\n10,N,c,1,a,0\n11,N,c,1,b,1\n12,N,c,1,c,2\n";
    assert_eq!(read(&data, "x.csv", text).unwrap(), [0, 1, 2]);
    let two = Data { format: DataFormat::Clinifact, ..data.clone() };
    assert_eq!(read(&two, "x.csv", text).unwrap(), [0, 1, 2], "a checkpoint's classes: 2 is none of the others");
    let three = Data { format: DataFormat::Clinifact3, ..data };
    assert_eq!(read(&three, "x.csv", text).unwrap(), [0, 1, 2]);
    let every = Needs { label: true, every_class: true, ..Needs::default() };
    let error = load(&three, &file("x.csv", &text[..text.len() - 13]).path, &every).unwrap_err();
    assert!(error.to_string().contains("field label: no record has class 2"), "{error}");
}

#[test]
fn clinifact_is_known_by_its_header_and_its_labels_are_three() {
    let header = "index,nctId,claim,PMID,article_abstract,label\n";
    let good = format!("{header}10,NCT1,c,1,a,0\n11,NCT1,c,1,b,1\n12,NCT2,c,1,c,2\n");
    let records = load_bytes("x.csv", &good).unwrap();
    assert_eq!(records.iter().map(|r| r.label.unwrap().index()).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(
        (records[2].id.as_str(), records[2].group.as_deref(), records[2].field("abstract")),
        ("12", Some("NCT2"), Some("c"))
    );
    assert_eq!(records[0].fields.keys().collect::<Vec<_>>(), ["abstract", "claim"]);
    let message = load_bytes("x.csv", format!("{header}10,NCT1,c,1,a,3\n11,NCT1, ,1,b,-1\n")).unwrap_err();
    assert!(
        message.contains("record 1, field label: is not 0, 1 or 2")
            && message.contains("record 2, field claim: is blank"),
        "{message}"
    );
}

#[test]
fn counts_and_classes_are_enforced() {
    let lines = "{\"id\": 1, \"text\": \"x\", \"label\": 0}\n{\"id\": 2, \"text\": \"x\", \"label\": 0}\n";
    let file = file("x.jsonl", lines);
    let data = Data { expect: crate::config::Expect { train: Some(3), ..Default::default() }, ..Data::default() };
    let error = load(&data, &file.path, &Needs::split(&data, "train", &[])).unwrap_err().to_string();
    assert!(error.ends_with("x.jsonl, holds 2 records, data.expect says 3"), "{error}");
    let error =
        load(&data, &file.path, &Needs { expect: None, ..Needs::split(&data, "train", &[]) }).unwrap_err().to_string();
    assert!(error.ends_with("field label: no record has class 1"), "{error}");
    assert_eq!(load(&data, &file.path, &Needs::split(&data, "dev", &[])).unwrap().len(), 2);
    assert!(load_bytes("x.jsonl", "\n\n").unwrap_err().ends_with("holds no record"));
}

#[test]
fn a_missing_file_and_an_unknown_format_exit_3_with_a_hint() {
    let error = load(&Data::default(), std::path::Path::new("/nowhere/x.csv"), &strict()).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("/nowhere/x.csv: no such file", 3));
    assert!(load_bytes("x.dat", "plain words").unwrap_err().contains("format cannot be told"));
    assert_eq!(load_bytes("x.dat", "{\"id\": 1, \"text\": \"x\", \"label\": 0}").unwrap().len(), 1);
}

#[test]
fn debug_output_holds_no_text() {
    let records = load_bytes(
        "x.jsonl",
        r#"{"id": "IDIDID", "text": "SECRET", "label": 1, "explanation": "SECRET", "group": "SECRET"}"#,
    )
    .unwrap();
    let debug = format!("{records:?}");
    assert!(!debug.contains("SECRET") && !debug.contains("IDIDID") && debug.contains("text (6 bytes)"), "{debug}");
}

#[test]
fn leakage_counts_shared_groups_ids_and_texts() {
    let record = |id: &str, text: &str, group: Option<&str>| Record {
        id: id.into(),
        fields: [("text".to_owned(), text.to_owned())].into(),
        label: None,
        explanation: None,
        group: group.map(String::from),
        columns: [].into(),
        number: 1,
        line: None,
    };
    let train = [record("1", "a", Some("g")), record("2", "b", Some("g")), record("3", "c", None)];
    let test = [record("3", " a\n", Some("g")), record("4", "d", None)];
    let report = leakage(&[("train", &train), ("test", &test), ("empty", &[])]);
    assert_eq!(report.pairs.len(), 3);
    let pair = &report.pairs[0];
    assert_eq!((pair.shared_groups, pair.shared_ids, pair.identical_texts["text"]), (1, 1, 1));
    assert_eq!(report.to_string(), "train and test share 1 group, 1 id, 1 identical text in text");
    assert!(!report.is_clean() && report.pairs[1].is_clean());
}

#[test]
fn no_text_field_is_read_from_the_column_of_the_answer() {
    let with = |fields: &[(&str, &str)]| Data {
        fields: fields.iter().map(|(field, column)| ((*field).to_owned(), (*column).to_owned())).collect(),
        ..Data::default()
    };
    let file = file("x.csv", "id,text,died,why\na,x,1,y\n");
    let told = |data: &Data, shown: &str| {
        let opened = stream(data, &file.path, &["text".to_owned(), shown.to_owned()]).map(|_| ());
        opened.map_err(|error| (error.exit_code(), error.to_string()))
    };
    let (code, message) = told(&with(&[("label", "died")]), "died").unwrap_err();
    assert!(code == 2 && message.contains("`died`") && message.contains("holds the label"), "{message}");
    let (code, message) =
        told(&with(&[("label", "died"), ("explanation", "why"), ("reason", "why")]), "reason").unwrap_err();
    assert!(code == 2 && message.contains("holds the explanation"), "{message}");
    told(&with(&[("label", "died")]), "why").unwrap();
}
