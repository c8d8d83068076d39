//! Parquet as pyarrow writes it (`tests/golden/parquet.py`): every codec, encoding and annotation in a column of one
//! file.

use std::path::Path;

use super::{Fixture, json, stderr};

#[test]
fn every_column_of_a_parquet_file_is_read_right_or_refused_by_its_name() {
    let fixture = Fixture::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let input = golden.join("annotations.parquet").display().to_string();
    let wanted = std::fs::read(golden.join("annotations.json")).unwrap();
    let wanted: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&wanted).unwrap();
    assert_eq!(wanted.len(), 48);
    for (column, ids) in wanted {
        let set = format!("data.fields.id={column}");
        let output = fixture.predict(&input, "out.jsonl", &["--no-explanation", "--overwrite", "--set", &set]);
        if ids == "refused" {
            assert_eq!(output.status.code(), Some(3), "{column}");
            assert!(stderr(&output).contains(&format!("column {column} is ")), "{}", stderr(&output));
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{column}: {}", stderr(&output));
        let read: Vec<_> = fixture.lines("out.jsonl").iter().map(|line| line["id"].clone()).collect();
        assert_eq!(json!(read), ids, "{column}");
    }
}

#[test]
fn an_encrypted_file_is_no_damaged_one() {
    let fixture = Fixture::new();
    fixture.write("in.parquet", b"PARE and what nobody can read");
    let output = fixture.predict("in.parquet", "out.jsonl", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("in.parquet: is an encrypted Parquet file"), "{}", stderr(&output));
}
