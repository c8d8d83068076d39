//! Inference in shards as processes that know nothing of each other: their parts are the whole, byte for byte.

mod common;
#[path = "shard/construct.rs"]
mod construct;
#[path = "shard/eval.rs"]
mod eval;
#[allow(dead_code)] // tests/predict.rs uses the rest
#[path = "predict/fixture.rs"]
mod fixture;
#[path = "shard/slurm.rs"]
mod slurm;

use std::sync::Arc;

use fixture::{Fixture, notes, stderr};
use parquet::{
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use serde_json::{Value, json};

const BRIEF: &str = "--no-explanation";

/// Notes in a file of each format, some of them bad, and how many records that is.
fn write_inputs(fixture: &Fixture) -> [(&'static str, usize); 4] {
    let mut jsonl = notes(3).into_bytes();
    jsonl.extend(b"{\"id\": \"torn\", \"te\n\n   \n{\"id\": \"latin\", \"text\": \"caf\xe9\"}\n");
    jsonl.extend(notes(10).lines().skip(3).map(|line| format!("{line}\n")).collect::<String>().bytes());
    jsonl.extend(b"{\"id\": \"empty\", \"text\": \" \"}\n{\"id\": \"last\", \"text\": \"fever\", \"label\": 7}");
    fixture.write("in.jsonl", jsonl);

    let row = |i: usize| format!("c{i},\"fever, day {i}\n\n\"\"worse\"\"\r\nthan {}\",{}\r\n", i + 1, i % 2);
    let rows: String = (0..8).map(row).collect();
    fixture.write(
        "in.csv",
        format!("id,text,label\r\n\r\n{rows}wide,cough,1,1\r\nc9,cough,maybe\r\nlate,\"closed\" too early,1\n"),
    );

    let schema = "message m { required binary id (UTF8); optional binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut parquet = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut parquet, schema, properties).unwrap();
    // Groups of 4, 1, none and 6 rows; a null where the text is missing.
    for (start, end) in [(0, 4), (4, 5), (5, 5), (5, 11)] {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ids: Vec<ByteArray> = (start..end).map(|i| ByteArray::from(format!("p{i}").into_bytes())).collect();
        column.typed::<ByteArrayType>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let there = |i: &usize| i % 5 != 3;
        let texts: Vec<ByteArray> =
            (start..end).filter(there).map(|i| ByteArray::from(format!("cough {i}").into_bytes())).collect();
        let levels: Vec<i16> = (start..end).map(|i| there(&i).into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    fixture.write("in.parquet", parquet);

    let element = |i: usize| json!({"id": format!("l{i}"), "text": format!("note [{i}], \"}}\""), "data_type": "test"});
    let lcd = json!({"data": (0..5).map(element).collect::<Vec<_>>()}).to_string();
    fixture.write("in.json", format!("{}, {{\"id\": \"silent\"}}]}}", lcd.strip_suffix("]}").unwrap()));
    [("in.jsonl", 14), ("in.csv", 11), ("in.parquet", 11), ("in.json", 6)]
}

/// `cat` of what the processes of a job wrote.
fn parts(fixture: &Fixture, input: &str, of: usize, flags: &[&str]) -> Vec<u8> {
    let mut whole = Vec::new();
    for part in 1..=of {
        let output = format!("{input}.part-{part}-of-{of}");
        let shard = format!("{part}/{of}");
        fixture.succeed(input, &output, &[&["--shard", &shard], flags].concat());
        assert!(fixture.path(&output).is_file(), "a part without records is a file too");
        whole.extend(fixture.read(&output));
    }
    whole
}

#[test]
fn the_parts_of_predict_are_the_whole_in_every_format() {
    let fixture = Fixture::new();
    for (input, records) in write_inputs(&fixture) {
        fixture.succeed(input, "whole", &[BRIEF, "--overwrite"]);
        let whole = fixture.read("whole");
        let lines = fixture.lines("whole");
        assert_eq!(lines.len(), records, "{input}");
        // A bad record of a later part keeps the number that it has in the whole file.
        let last = lines.iter().rev().find(|line| !line["error"].is_null()).unwrap();
        assert!(last["record"].as_u64().unwrap() as usize > records / 2, "{input}: {last}");
        for of in [1, 2, 3, 7] {
            assert!(parts(&fixture, input, of, &[BRIEF]) == whole, "{input} in {of} parts");
        }
    }
}

#[test]
fn the_parts_are_the_whole_with_texts_and_where_there_are_more_processes_than_records() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(5));
    let sampled = ["--set", "generate.temperature=0.9", "--seed", "5"];
    fixture.succeed("in.jsonl", "whole.jsonl", &sampled);
    for of in [2, 7] {
        assert!(parts(&fixture, "in.jsonl", of, &sampled) == fixture.read("whole.jsonl"), "{of}");
    }
    assert_eq!(fixture.read("in.jsonl.part-1-of-7"), b"");
}

#[test]
fn a_part_that_was_killed_goes_on_and_as_another_part_is_refused() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(11));
    fixture.succeed("in.jsonl", "whole.jsonl", &[BRIEF]);
    let whole = fixture.lines("whole.jsonl");
    let part = |shard: &str, more: &[&str]| {
        fixture.predict("in.jsonl", "out.jsonl", &[&[BRIEF, "--shard", shard], more].concat())
    };
    let mut killed = fixture.command("in.jsonl", "out.jsonl", &[BRIEF, "--shard", "2/3"]);
    assert_eq!(killed.env("CLSGEN_FAULT", "log.append:3").status().unwrap().code(), None);
    assert_eq!(fixture.lines("out.jsonl"), whole[3..5]);
    for (shard, told) in [("3/3", "shard (\"2/3\" → \"3/3\")"), ("2/4", "shard (\"2/3\" → \"2/4\")")] {
        let refused = part(shard, &[]);
        assert!(refused.status.code() == Some(2) && stderr(&refused).contains(told), "{}", stderr(&refused));
    }
    let refused = fixture.predict("in.jsonl", "out.jsonl", &[BRIEF]);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("shard"), "{}", stderr(&refused));
    let went_on = part("2/3", &[]);
    assert!(stderr(&went_on).contains("part 2/3: records 4 to 7 of 11"), "{}", stderr(&went_on));
    assert!(stderr(&went_on).contains("continuing after 2 records"), "{}", stderr(&went_on));
    assert_eq!(fixture.lines("out.jsonl"), whole[3..7]);
    // Given again it has nothing to do, and another part takes the file only where that is asked for.
    part("2/3", &[]);
    assert_eq!(fixture.lines("out.jsonl"), whole[3..7]);
    assert_eq!(part("3/3", &["--overwrite"]).status.code(), Some(0));
    assert_eq!(fixture.lines("out.jsonl"), whole[7..]);
}

#[test]
fn two_parts_do_not_share_an_output_not_even_empty_ones() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(2));
    fixture.succeed("in.jsonl", "out.jsonl", &[BRIEF, "--shard", "1/5"]);
    assert_eq!(fixture.read("out.jsonl"), b"");
    for shard in ["2/5", "3/5"] {
        let refused = fixture.predict("in.jsonl", "out.jsonl", &[BRIEF, "--shard", shard]);
        assert!(refused.status.code() == Some(2) && stderr(&refused).contains("shard"), "{}", stderr(&refused));
    }
    let _lock = clsgen::storage::OutputLock::acquire(&fixture.path("other.jsonl")).unwrap();
    let refused = fixture.predict("in.jsonl", "other.jsonl", &[BRIEF, "--shard", "3/5"]);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("is locked by"), "{}", stderr(&refused));
}

#[test]
fn what_is_no_part_is_a_usage_error() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(2));
    for (shard, told) in [
        ("0/3", "there is no part 0 of 3"),
        ("4/3", "no part 4 of 3"),
        ("1/0", "no part 1 of 0"),
        ("2", "a part is I/N"),
    ] {
        let refused = fixture.predict("in.jsonl", "out.jsonl", &["--shard", shard]);
        assert!(refused.status.code() == Some(2) && stderr(&refused).contains(told), "{}", stderr(&refused));
    }
    for dry in [&[][..], &["--dry-run"]] {
        let refused = fixture.predict("-", "out.jsonl", &[&["--shard", "1/2"], dry].concat());
        let told = stderr(&refused);
        assert!(refused.status.code() == Some(2) && told.contains("of a pipe") && told.contains("hint: "), "{told}");
    }
    assert!(!fixture.path("out.jsonl").exists());
    for command in [&["train"][..], &["eval", "--predictions", "x"], &["demo"], &["selftest"]] {
        let told = common::run(&[command, &["--shard", "1/2"]].concat());
        common::assert_fails(&told, 2, &["--shard", "predict and construct", "hint: "]);
    }
    let told = common::run(&["construct", "--merge", "--shard", "1/2"]);
    common::assert_fails(&told, 2, &["--merge", "--shard"]);
    // A dry run says which records are meant.
    let plan = fixture.succeed("in.jsonl", "out.jsonl", &["--shard", "2/2", "--dry-run"]);
    assert!(String::from_utf8(plan.stdout).unwrap().contains("part: 2/2: records 2 to 2 of 2"));
}

#[test]
fn a_record_that_occurs_in_two_parts_ends_both() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(6).replace("\"n5\"", "\"n0\""));
    for shard in ["1/3", "3/3"] {
        let refused = fixture.predict("in.jsonl", "out.jsonl", &[BRIEF, "--shard", shard]);
        assert!(
            refused.status.code() == Some(3) && stderr(&refused).contains("record 6, field id"),
            "{}",
            stderr(&refused)
        );
    }
    // As does a bad one under --strict, whosever it is.
    fixture.write("bad.jsonl", notes(4) + "{\"id\": \"bad\"}\n");
    let refused = fixture.predict("bad.jsonl", "out.jsonl", &[BRIEF, "--strict", "--shard", "1/2"]);
    assert!(refused.status.code() == Some(3) && stderr(&refused).contains("record 5"), "{}", stderr(&refused));
}

/// A chat template that prints the time needs a date for all processes of a job.
#[test]
fn a_template_that_reads_the_clock_is_predicted_in_parts_only_with_a_date() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(4));
    let clock = "{{ strftime_now('%Y-%m-%d') }} {% for m in messages %}{{ m.content }} {% endfor %}";
    fixture.write("base/chat_template.jinja", clock);
    let name = "run/checkpoints/epoch-01/clsgen.json";
    let mut info: Value = serde_json::from_slice(&fixture.read(name)).unwrap();
    info["prompt"]["format"] = "chat".into();
    fixture.write(name, info.to_string());
    let refused = fixture.predict("in.jsonl", "out.jsonl", &[BRIEF, "--shard", "1/2"]);
    let told = stderr(&refused);
    assert!(
        refused.status.code() == Some(2) && told.contains("reads the clock") && told.contains("\"date\""),
        "{told}"
    );
    fixture.succeed("in.jsonl", "out.jsonl", &[BRIEF]);
    info["prompt"]["date"] = "2026-01-02".into();
    fixture.write(name, info.to_string());
    fixture.succeed("in.jsonl", "whole.jsonl", &[BRIEF]);
    assert!(parts(&fixture, "in.jsonl", 2, &[BRIEF]) == fixture.read("whole.jsonl"));
}
