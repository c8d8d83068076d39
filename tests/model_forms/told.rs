//! Files of records that are not what they are called.

use super::*;

#[test]
fn a_compressed_file_is_known_by_its_first_bytes_whatever_its_name() {
    let bench = Bench::new();
    for (magic, what) in [
        (&b"\x1f\x8b\x08"[..], "gzip-compressed"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
        (b"PK\x03\x04", "a zip archive"),
    ] {
        for file in ["x.parquet", "x.jsonl", "x.csv", "x.json"] {
            bench.write(file, [magic, &[0; 40]].concat());
            assert_fails(
                &bench.predict("checkpoint", file, &[], &[]).0,
                3,
                &[file, &format!("is {what}"), "hint: unpack it"],
            );
        }
    }
}

#[test]
fn an_lcd_file_whose_labels_are_called_label_is_one_warning() {
    let bench = Bench::new();
    let element = |i: usize, column: &str| json!({"id": format!("n{i}"), "text": "a note", column: i % 2});
    let told = |column: &str, more: &[&str]| {
        bench.write("lcd.json", json!({"data": (0..4).map(|i| element(i, column)).collect::<Vec<_>>()}).to_string());
        let (told, _) = bench.predict("checkpoint", "lcd.json", more, &[]);
        assert_eq!(told.code, Some(0), "{told:?}");
        told.stderr
            .lines()
            .filter(|line| line.contains("out_hospital_mortality_30") && line.contains("data.fields.label=label"))
            .count()
    };
    assert_eq!(told("label", &[]), 1);
    let days = ["--set", "data.horizon=30"];
    assert_eq!(
        (told("out_hospital_mortality_30", &days), told("label", &["--set", "data.fields.label=label"])),
        (0, 0)
    );
}
