//! `clsgen data lcd` on a folder shaped as MIMIC is, against the text and ids that Python gives the same notes
//! (`tests/golden/lcd.py`).

mod common;
#[path = "predict/fixture.rs"]
#[allow(dead_code)] // of this fixture only the checkpoint and `predict` are used
mod fixture;
#[path = "data_lcd/mimic.rs"]
mod mimic;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use common::assert_fails;
use mimic::{Mimic, Note, TASK, packed};
use serde_json::{Value, json};

const SPLITS: [&str; 3] = ["train", "dev", "test"];

#[test]
fn texts_ids_order_and_splits_are_the_definitions() {
    let mimic = Mimic::new();
    let told = mimic.build(&[]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let mut written = 0;
    for split in SPLITS {
        let labelled = |note: &&Note| note.is_labelled() && note.split() == split;
        let wanted: Vec<Value> = mimic
            .notes
            .iter()
            .filter(labelled)
            .map(|note| {
                json!({ "text": note.text, TASK: note.label(), "data_type": split, "id": note.id,
                    "group": note.subject() })
            })
            .collect();
        let records = mimic.records("build", split);
        assert_eq!(records, wanted, "{split}");
        let keys: Vec<&String> = records[0].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["text", TASK, "data_type", "id", "group"]);
        written += records.len();
        let bytes = mimic.text(&format!("build/{split}.json"));
        // As Python's json.dump(indent=2) writes it.
        assert!(bytes.starts_with("{\n  \"data\": [\n    {\n      \"text\": \"") && bytes.ends_with("\n    }\n  ]\n}"));
        assert!(bytes.is_ascii());
        assert_eq!(fixture::mode(&mimic.path(&format!("build/{split}.json"))), 0o600);
    }
    assert_eq!(written, 226);
    assert!(told.stdout.contains("counts or inputs are not the benchmark's"), "{}", told.stdout);
    assert_eq!(mimic::names(&mimic.path("build")), ["dev.json", "metadata.json", "test.json", "train.json"]);

    let metadata: Value = serde_json::from_str(&mimic.text("build/metadata.json")).unwrap();
    let note = &mimic.notes[9];
    let wanted = json!({ "note_id": note.note_id, "subject_id": 10_000_003, "hadm_id": 20_000_009, "note_type": "DS",
        "note_seq": 9, "charttime": "2150-01-02 00:00:00", "storetime": null, "data_type": note.split() });
    assert_eq!(metadata[&note.id], wanted);
    assert_eq!(metadata.as_object().unwrap().len(), 1 + 226);
}

#[test]
fn unknown_files_are_warned_of_and_recorded() {
    let mimic = Mimic::new();
    let told = mimic.build(&["--json"]);
    for file in ["discharge.csv", "labels.json"] {
        assert!(told.stderr.contains(&format!("{file}: its SHA-1 is none that the benchmark names")), "{told:?}");
    }
    let metadata: Value = serde_json::from_str(&mimic.text("build/metadata.json")).unwrap();
    let record = &metadata["clsgen"];
    assert_eq!(serde_json::from_str::<Value>(&told.stdout).unwrap()["build"], *record);
    let discharge = std::process::Command::new("sha1sum").arg(mimic.path("note/discharge.csv")).output().unwrap();
    let sha1 = String::from_utf8(discharge.stdout).unwrap();
    assert_eq!(record["inputs"][0]["sha1"], sha1[..40]);
    assert_eq!((&record["inputs"][0]["known_as"], &record["is_the_benchmark"]), (&Value::Null, &json!(false)));
    assert_eq!(record["counts"]["dev"]["benchmark"], 7505);

    // A label without its note, too.
    mimic.write("note/discharge.csv", mimic.discharge("\n").replacen("Mac", "Mc", 1));
    let told = mimic.build(&["--overwrite"]);
    assert!(
        told.code == Some(0) && told.stderr.contains("1 notes have a label and are not in discharge.csv"),
        "{told:?}"
    );
}

#[test]
fn packed_tables_and_other_line_ends_give_the_same_build() {
    let mimic = Mimic::new();
    assert_eq!(mimic.build(&[]).code, Some(0));
    for (name, bytes) in [
        ("gz/discharge.csv.gz", packed(mimic.discharge("\n").as_bytes())),
        ("crlf/note/discharge.csv", mimic.discharge("\r\n").into_bytes()),
    ] {
        mimic.write(name, bytes);
        let dir = name.split('/').next().unwrap();
        let out = format!("build-{dir}");
        let told = mimic.lcd(&["--mimic-note", dir, "--task", "task30", "--out", &out, "--check", "build"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        for split in SPLITS {
            assert_eq!(
                mimic.text(&format!("{out}/{split}.json")),
                mimic.text(&format!("build/{split}.json")),
                "{name}"
            );
        }
    }
}

#[test]
fn a_note_that_occurs_twice_has_one_record() {
    let mimic = Mimic::new();
    mimic.build(&[]);
    let twice = mimic.discharge("\n") + mimic.discharge("\n").split_once('\n').unwrap().1;
    mimic.write("twice/discharge.csv", twice);
    let told = mimic.lcd(&["--mimic-note", "twice", "--task", "task30", "--out", "again", "--check", "build"]);
    assert!(told.code == Some(0) && told.stdout.contains("records 226 and 226, the same order: yes"), "{told:?}");
}

#[test]
fn hospital_tables_and_several_tasks_add_columns() {
    let mimic = Mimic::new();
    mimic.write_labels("task90", "out_hospital_mortality_90", |_, _| {});
    let told = mimic.build(&["--mimic-hosp", ".", "--task", "task90"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    for record in SPLITS.iter().flat_map(|split| mimic.records("build", split)) {
        let note = mimic.notes.iter().find(|note| note.id == record["id"]).unwrap();
        let insurance = if note.number % 2 == 0 { json!("Medicare") } else { Value::Null };
        let wanted = json!({ "text": note.text, TASK: note.label(), "out_hospital_mortality_90": note.label(),
            "data_type": note.split(), "id": note.id, "group": note.subject(), "sex": note.sex(),
            "race": "BLACK, OTHER", "insurance": insurance, "admission_type": "URGENT",
            "anchor_year_group": note.year_group() });
        assert_eq!(record, wanted);
    }
    // The reader of LCD files has them all.
    let fixture = fixture::Fixture::new();
    let few: Vec<Value> = mimic.records("build", "dev").into_iter().take(12).collect();
    fixture.write("dev.json", json!({ "data": few }).to_string());
    let flags = ["--no-explanation", "--set", "eval.subgroups=sex,insurance,race", "--set", "data.horizon=90"];
    fixture.succeed("dev.json", "out.jsonl", &flags);
    let lines = fixture.lines("out.jsonl");
    assert_eq!(lines.len(), 12);
    for (line, record) in lines.iter().zip(&few) {
        assert!(line["error"].is_null() && line["probability"].is_f64(), "{line}");
        assert_eq!(line["label"], record["out_hospital_mortality_90"]);
        for column in ["id", "group", "sex", "insurance", "race"] {
            assert_eq!(line[column], record[column], "{column}");
        }
    }
}

#[test]
fn by_year_groups_the_last_patients_are_tested() {
    let mimic = Mimic::new();
    let told = mimic.build(&["--split-by", "year-group"]);
    assert_fails(&told, 2, &["--split-by year-group goes by anchor_year_group", "--mimic-hosp"]);
    let told = mimic.build(&["--split-by", "year-group", "--mimic-hosp", "."]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let mut seen = BTreeMap::new();
    for split in SPLITS {
        for record in mimic.records("build", split) {
            assert_eq!(record["data_type"], split);
            seen.entry(record["anchor_year_group"].as_str().unwrap().to_owned()).or_insert(split);
            assert_eq!(seen[record["anchor_year_group"].as_str().unwrap()], split);
        }
    }
    let wanted = mimic::GROUPS.into_iter().map(str::to_owned).zip(["train", "train", "dev", "test"]);
    assert_eq!(seen, wanted.collect::<BTreeMap<_, _>>());
    let metadata: Value = serde_json::from_str(&mimic.text("build/metadata.json")).unwrap();
    assert_eq!(metadata["clsgen"]["year_groups"], json!(seen));
}

#[test]
fn a_year_group_without_notes_makes_no_split_empty() {
    let mimic = Mimic::new();
    let build = |group: fn(&Note) -> &'static str| {
        let rows = mimic.notes.iter().map(|note| format!("{},F,60,{}\n", note.subject(), group(note)));
        let rows: BTreeSet<String> = rows.collect();
        // Of the first patient there is no note.
        let mut table = "subject_id,gender,anchor_age,anchor_year_group\n1,F,60,2020 - 2022\n".to_owned();
        table.extend(rows);
        mimic.write("hosp/patients.csv.gz", packed(table.as_bytes()));
        mimic.build(&["--split-by", "year-group", "--mimic-hosp", ".", "--overwrite"])
    };
    let told = build(Note::year_group);
    assert_eq!(told.code, Some(0), "{told:?}");
    let tested = mimic.records("build", "test");
    assert!(!tested.is_empty() && tested.iter().all(|record| record["anchor_year_group"] == mimic::GROUPS[3]));
    let metadata: Value = serde_json::from_str(&mimic.text("build/metadata.json")).unwrap();
    assert_eq!(metadata["clsgen"]["year_groups"].as_object().unwrap().len(), 4);
    let before = mimic.text("build/test.json");
    let told = build(|note| mimic::GROUPS[usize::from(note.sex() == "F")]);
    let few = "patients.csv.gz, field anchor_year_group: the patients of the notes have 2 different values";
    assert_fails(&told, 3, &[few, "hint: "]);
    assert_eq!(mimic.text("build/test.json"), before);
}

#[test]
fn what_is_wrong_is_named_by_file_record_and_field() {
    let mimic = Mimic::new();
    let good = mimic.discharge("\n");
    type Spoil<'a> = (&'a str, String, &'a [&'a str]);
    let rows = || good.split_inclusive('\n');
    let cases: [Spoil<'_>; 5] = [
        ("a column", good.replacen("hadm_id", "hadm", 1), &["discharge.csv: the header has not one column `hadm_id`"]),
        ("a quote", good.trim_end().strip_suffix('"').unwrap().to_owned(), &["record 301 (line ", "never closed"]),
        ("a cell", good.clone() + "1-DS-9,1\n", &["record 302 (line ", "has 2 cells where the header has 8"]),
        (
            "a text",
            good.clone() + "1-DS-9,1,2,DS,1,,,\" \n\"\n,,,,,,,x\n",
            &["field note_id: is blank", "field subject_id"],
        ),
        ("the notes", rows().next().unwrap().to_owned(), &["none of its notes is in the tasks' labels.json"]),
    ];
    for (what, table, told) in cases {
        mimic.write("note/discharge.csv", table);
        let outcome = mimic.build(&[]);
        assert_fails(&outcome, 3, &[&["hint: "], told].concat());
        assert!(!mimic.path("build").exists(), "{what}");
    }
    let whole = packed(good.as_bytes());
    mimic.write("cut/discharge.csv.gz", &whole[..whole.len() / 2]);
    let told = mimic.lcd(&["--mimic-note", "cut", "--task", "task30", "--out", "build"]);
    assert_fails(&told, 3, &["cut/discharge.csv.gz: cannot be read after record ", "hint: "]);
    assert_fails(&mimic.lcd(&["--mimic-note", "hosp", "--task", "task30", "--out", "build"]), 3, &["discharge.csv.gz"]);

    mimic.write("note/discharge.csv", &good);
    assert_fails(&mimic.build(&["--task", "absent"]), 3, &["absent/labels.json: no such file"]);
    let id = &mimic.notes[4].id;
    type Change = fn(&Note, &mut serde_json::Map<String, Value>);
    let changes: [(Change, &[&str]); 4] = [
        (
            |note, entry| _ = (note.number == 4).then(|| entry.insert("t60".into(), json!(2))),
            &["field t60: is not 0 or 1"],
        ),
        (
            |note, entry| _ = (note.number == 4).then(|| entry.insert("data_type".into(), json!("val"))),
            &["is not train, dev"],
        ),
        (
            |note, entry| _ = (note.number == 4).then(|| entry.insert("data_type".into(), json!("train"))),
            &["is dev in another"],
        ),
        (
            |note, entry| _ = (note.number == 4).then(|| entry.clear()),
            &["labels.json, lacks 1 of the notes of another task"],
        ),
    ];
    for (change, told) in changes {
        mimic.write_labels("task60", "t60", change);
        let outcome = mimic.build(&["--task", "task60"]);
        assert_fails(&outcome, 3, told);
        assert!(told[0].contains("lacks") || outcome.stderr.contains(&format!("record 4 ({id})")), "{outcome:?}");
    }
    assert!(!mimic.names().iter().any(|name| name.contains("build")), "{:?}", mimic.names());
}

#[test]
fn nothing_is_replaced_unasked() {
    let mimic = Mimic::new();
    std::os::unix::fs::symlink("nowhere", mimic.path("build")).unwrap();
    let told = mimic.build(&["--dry-run"]);
    assert_fails(&told, 2, &["build is a link that leads nowhere", "hint: remove it, or choose another --out"]);
    std::fs::remove_file(mimic.path("build")).unwrap();
    assert_eq!(mimic.build(&["--dry-run"]).code, Some(0));
    assert!(!mimic.path("build").exists());
    assert_eq!(mimic.build(&[]).code, Some(0));
    assert_fails(&mimic.build(&[]), 2, &["build is there already", "--overwrite"]);
    mimic.write("build/mine.txt", "kept");
    assert_fails(&mimic.build(&["--overwrite"]), 2, &["it is no build: mine.txt"]);
    assert_eq!(mimic.text("build/mine.txt"), "kept");
    std::fs::remove_file(mimic.path("build/mine.txt")).unwrap();
    assert_eq!(mimic.build(&["--overwrite"]).code, Some(0));
    // The build that is replaced is not what the new one is compared with; one that is none is found before.
    std::os::unix::fs::symlink(mimic.path("build"), mimic.path("link")).unwrap();
    let before = mimic.text("build/test.json");
    for (other, code) in [("build", 2), ("link", 2), ("nowhere", 3)] {
        assert_fails(&mimic.build(&["--overwrite", "--check", other]), code, &[other]);
    }
    mimic.write("build/test.json", "spoiled");
    assert_fails(&mimic.build(&["--overwrite", "--check", "nowhere"]), 3, &["nowhere/train.json: no such file"]);
    assert_eq!(mimic.text("build/test.json"), "spoiled");
    assert_eq!(mimic.build(&["--overwrite"]).code, Some(0));
    assert_eq!(mimic.text("build/test.json"), before);
    for input in ["task30", "note"] {
        let told = mimic.lcd(&["--mimic-note", ".", "--task", "task30", "--out", input, "--overwrite"]);
        assert_fails(&told, 2, &["is there already"]);
    }
    assert!(mimic.path("task30/labels.json").exists() && mimic.path("note/discharge.csv").exists());
}

#[test]
fn builds_that_differ_are_told_apart_record_by_record() {
    let mimic = Mimic::new();
    mimic.build(&[]);
    mimic.lcd(&["--mimic-note", ".", "--task", "task30", "--mimic-hosp", ".", "--out", "other"]);
    let check = || mimic.lcd(&["--out", "build", "--check", "other"]);
    let told = check();
    assert!(told.code == Some(0) && told.stdout.contains("of the other: admission_type, anchor"), "{told:?}");
    let first = mimic.records("other", "test")[0].clone();
    let id = first["id"].as_str().unwrap();
    let text = serde_json::to_string(&first["text"]).unwrap();
    let file = mimic.text("other/test.json");
    let spoiled = file.replacen("\"text\": \"", "\"text\": \"SECRET ", 1);
    assert!(spoiled != file && text.len() > 2);
    mimic.write("other/test.json", spoiled);
    assert_fails(&check(), 1, &[&format!("{id}: text"), "1 in text", "0 records are not in the first"]);
    // A field's name is shown, not obeyed.
    mimic.write("other/test.json", file.replacen("\"text\": ", r#""\u001b[2Jnote": 1, "text": "#, 1));
    let told = check();
    assert!(told.code == Some(0) && told.stdout.contains(r"of the other: \u{1b}[2Jnote, admission_type"), "{told:?}");
    mimic.write("other/test.json", file.replacen(id, "0xffff", 1));
    let told = check();
    assert_fails(&told, 1, &["1 records are not in the first, 1 not in the second", "0xffff: not in build"]);
    mimic.write("other/test.json", file.replacen(&format!("\"{id}\""), "7", 1));
    assert_fails(&check(), 3, &["other/test.json, record 1, field id: is missing"]);
    mimic.write("other/test.json", &file[..file.len() / 2]);
    assert_fails(&check(), 3, &["other/test.json: broken JSON after record "]);
    mimic.write("other/test.json", mimic.text("other/dev.json"));
    assert_fails(&check(), 3, &["other/test.json: ", "field id: occurs a second time"]);
}

#[test]
fn a_build_that_is_stopped_leaves_nothing() {
    let mimic = Mimic::new();
    let table = mimic.discharge("\n");
    let (header, rows) = table.split_once('\n').unwrap();
    mimic.write("long/discharge.csv", format!("{header}\n{}", rows.repeat(1500)));
    let before = mimic.names();
    let flags = ["--mimic-note", "long", "--task", "task30", "--out", "build"];
    let mut child = mimic.command(&flags).stderr(std::process::Stdio::null()).spawn().unwrap();
    common::wait_until(&mut child, "a build under way", || mimic.names().len() > before.len());
    common::send("INT", &child);
    assert_eq!(common::end_of(child).status.code(), Some(130));
    assert_eq!(mimic.names(), before);
}

#[test]
fn a_folder_that_comes_while_a_build_is_made_is_not_replaced() {
    let mimic = Mimic::new();
    let before = mimic.names();
    // Stderr takes nothing until it is read: what the build is not is told once it is made, before it has its name.
    let (mut stderr, mut full) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.write_all(b".").is_ok() {}
    full.set_nonblocking(false).unwrap();
    let mut command = mimic.command(&["--mimic-note", ".", "--task", "task30", "--out", "build"]);
    let mut child = command.stderr(OwnedFd::from(full)).spawn().unwrap();
    // Our own end of it, which would keep the reader waiting.
    drop(command);
    common::wait_until(&mut child, "a build under way", || mimic.names().len() > before.len());
    mimic.write("build/thesis.txt", "mine");
    let mut told = String::new();
    stderr.read_to_string(&mut told).unwrap();
    assert_eq!(common::end_of(child).status.code(), Some(2), "{told}");
    assert!(told.contains("build is there already, and it is no build: thesis.txt"), "{told}");
    assert_eq!(mimic::names(&mimic.path("build")), ["thesis.txt"]);
}
