//! The same notes in every format.

use std::sync::Arc;

use parquet::{
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use serde_json::json;

/// How many notes there are.
pub const COUNT: usize = 6;

/// Id, text, label. No numbers of several digits, no apostrophes: see `gguf::of_folder`.
fn notes() -> Vec<(String, String, i64)> {
    let note = |i: usize| {
        let finding = if i.is_multiple_of(2) {
            "went home well, eating and walking"
        } else {
            "the heart stopped, comfort care was begun"
        };
        (
            format!("n{i}"),
            format!("The patient, a \"{}\" case, {finding}.", ["first", "second", "third"][i % 3]),
            (i % 2) as i64,
        )
    };
    (0..COUNT).map(note).collect()
}

pub fn jsonl() -> String {
    notes()
        .into_iter()
        .map(|(id, text, label)| json!({"id": id, "text": text, "label": label}).to_string() + "\n")
        .collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

pub fn csv() -> String {
    let rows: String =
        notes().into_iter().map(|(id, text, label)| format!("{id},{},{label}\r\n", quoted(&text))).collect();
    format!("id,text,label\r\n{rows}")
}

pub fn lcd() -> String {
    let element =
        |(id, text, label)| json!({"id": id, "text": text, "out_hospital_mortality_30": label, "data_type": "test"});
    json!({"version": "1", "data": notes().into_iter().map(element).collect::<Vec<_>>()}).to_string()
}

pub fn clinifact() -> String {
    let rows: String =
        notes().into_iter().map(|(id, text, label)| format!("{id},NCT1,a claim,{},{label}\n", quoted(&text))).collect();
    format!("index,nctId,claim,article_abstract,label\n{rows}")
}

pub fn parquet() -> Vec<u8> {
    let schema = Arc::new(
        parse_message_type(
            "message m { required binary id (UTF8); required binary text (UTF8); required int64 label; }",
        )
        .unwrap(),
    );
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::builder().build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts = |pick: fn((String, String, i64)) -> String| -> Vec<ByteArray> {
        notes().into_iter().map(|note| ByteArray::from(pick(note).into_bytes())).collect()
    };
    for values in [texts(|note| note.0), texts(|note| note.1)] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    let labels: Vec<i64> = notes().into_iter().map(|note| note.2).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}
