//! Records: lines without end, depth, tables without a header, Parquet pages that announce gigabytes.

use std::{io::Write, sync::Arc};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use serde_json::json;

use crate::bench::Bench;

/// A file of `length` zero bytes that takes no room, behind `head`.
fn endless(bench: &Bench, name: &str, head: &str, byte: &[u8], length: usize) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(bench.path(name)).unwrap());
    file.write_all(head.as_bytes()).unwrap();
    let block = byte.repeat((1 << 20) / byte.len());
    for _ in 0..length / block.len() {
        file.write_all(&block).unwrap();
    }
    file.flush().unwrap();
}

fn predict(bench: &mut Bench, what: &str, input: &str) -> crate::bench::Ended {
    let _ = std::fs::remove_file(bench.path("o.jsonl"));
    let _ = std::fs::remove_file(bench.path("o.jsonl.meta.json"));
    let model = "run/checkpoints/epoch-01";
    bench.run(
        what,
        &["predict", "--quiet", "--no-explanation", "--model", model, "--input", input, "--output", "o.jsonl"],
    )
}

#[test]
fn a_record_has_an_end() {
    let mut bench = Bench::new("long records");
    let long = 257 << 20;
    endless(&bench, "line.jsonl", "{\"id\": \"a\", \"text\": \"", b"x", long);
    predict(&mut bench, "a line", "line.jsonl").refused(3, &["line.jsonl", "record 1 has over 256 MB"]);
    std::fs::remove_file(bench.path("line.jsonl")).unwrap();
    endless(&bench, "cell.csv", "id,text\na,\"", b"x", long);
    predict(&mut bench, "a cell", "cell.csv").refused(3, &["cell.csv", "record 1 has over 256 MB"]);
    std::fs::remove_file(bench.path("cell.csv")).unwrap();
    endless(&bench, "commas.csv", "id,text\n", b",", 64 << 20);
    predict(&mut bench, "commas", "commas.csv").accepted();
    endless(&bench, "commas.csv", "id,text", b",", 64 << 20);
    predict(&mut bench, "columns", "commas.csv").refused(3, &["commas.csv", "columns"]);
    std::fs::remove_file(bench.path("commas.csv")).unwrap();
    endless(&bench, "lcd.json", "{\"data\":[{\"id\": 1, \"text\": \"", b"x", long);
    predict(&mut bench, "a value of LCD", "lcd.json").refused(3, &["lcd.json", "256 MB"]);
    std::fs::remove_file(bench.path("lcd.json")).unwrap();
    let deep = "[".repeat(1 << 20);
    let lines = format!("{{\"id\": \"b\", \"text\": \"fever\"}}\n{{\"id\": \"a\", \"text\": {deep}\n");
    bench.fixture.write("deep.jsonl", lines);
    predict(&mut bench, "depth", "deep.jsonl").accepted();
    assert_eq!(bench.fixture.lines("o.jsonl")[1]["error"]["kind"], json!("invalid_json"));
}

/// A Parquet file of ids and texts: one page of each, compressed.
fn write_parquet(bench: &Bench, name: &str, ids: &[ByteArray], texts: &[ByteArray]) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .set_dictionary_page_size_limit(1 << 30)
        .set_data_page_size_limit(1 << 30)
        .build();
    let schema =
        Arc::new(parse_message_type("message m { required binary id; required binary text (UTF8); }").unwrap());
    let file = std::fs::File::create(bench.path(name)).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in [ids, texts] {
        let mut to = group.next_column().unwrap().unwrap();
        to.typed::<ByteArrayType>().write_batch(column, None, None).unwrap();
        to.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    let bytes = bench.path(name).metadata().unwrap().len();
    assert!(bytes < 1 << 20, "{name} has {bytes} bytes");
}

#[test]
fn a_small_parquet_file_may_hold_gigabytes() {
    let mut bench = Bench::new("Parquet bombs");
    let ids = |count: usize| -> Vec<ByteArray> { (0..count).map(|i| i.to_string().into_bytes().into()).collect() };
    // A text of 1.5 GB that zstd makes small.
    write_parquet(&bench, "long.parquet", &ids(1), &[vec![b'x'; 1536 << 20].into()]);
    predict(&mut bench, "a long text", "long.parquet").refused(3, &["long.parquet"]);
    // A dictionary's one entry of 100 MB, given to a hundred rows: 10 GB of texts.
    write_parquet(&bench, "often.parquet", &ids(100), &vec![vec![b'x'; 100 << 20].into(); 100]);
    predict(&mut bench, "one text often", "often.parquet").refused(3, &["often.parquet"]);
}

/// Fields of Thrift's compact form that nothing knows: each a list that announces 2³¹ − 1 booleans and has no bytes
/// for them.
fn lists_without_bytes(count: usize) -> Vec<u8> {
    [0xf9, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07].repeat(count)
}

#[test]
fn parquet_lists_without_bytes_are_not_waited_for() {
    let mut bench = Bench::new("Parquet lists without bytes");
    let mut footer = lists_without_bytes(10);
    footer.push(0);
    let length = (footer.len() as u32).to_le_bytes();
    bench.fixture.write("footer.parquet", [b"PAR1", &footer[..], &length, b"PAR1"].concat());
    predict(&mut bench, "a footer", "footer.parquet").refused(3, &["footer.parquet", "its footer takes longer than"]);

    let texts: Vec<ByteArray> = (0..100).map(|i| format!("note {i} {}", "x".repeat(100)).into_bytes().into()).collect();
    let ids: Vec<ByteArray> = (0..100).map(|i| i.to_string().into_bytes().into()).collect();
    write_parquet(&bench, "page.parquet", &ids, &texts);
    predict(&mut bench, "before it is changed", "page.parquet").accepted();
    let mut file = bench.fixture.read("page.parquet");
    // The first page begins behind the file's magic bytes.
    file[4..][..footer.len()].copy_from_slice(&footer);
    bench.fixture.write("page.parquet", &file);
    let ended = predict(&mut bench, "a page", "page.parquet");
    ended.refused(3, &["page.parquet", "what follows record 0 takes longer than"]);
}

#[test]
fn cells_of_a_table_without_a_header_are_not_shown() {
    let mut bench = Bench::new("tables without a header");
    for table in [
        "SECRET 12,patient report 12,0\n",
        "patient note 12,Mr SECRET text,1\n",
        "7,patient,label\n",
        "a1,Patient note,death\n",
        "id,patient report,Text \u{1b}[2J\n",
    ] {
        bench.fixture.write("t.csv", format!("{table}{table}"));
        let ended = predict(&mut bench, "no header", "t.csv");
        ended.refused(3, &["t.csv: field"]);
        assert!(!ended.stderr.contains("patient"), "{}", ended.stderr);
    }
    bench.fixture.write("t.csv", "note_id,note_text,label\n1,x,0\n");
    predict(&mut bench, "a header", "t.csv").refused(3, &["the header has: note_id, note_text, label"]);
}

#[test]
fn kinds_of_errors_in_foreign_predictions_are_not_echoed() {
    let mut bench = Bench::new("foreign predictions");
    let line = json!({"id": "a", "label": 1, "error": {"kind": "SECRET note\u{1b}[2J", "message": "SECRET"}});
    bench.fixture.write("p.jsonl", line.to_string());
    bench.run("a kind", &["eval", "--predictions", "p.jsonl", "--run", "e"]).refused(3, &["no known kind"]);
}
