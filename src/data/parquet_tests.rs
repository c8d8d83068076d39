//! Parquet files written by the crate's own low-level writer, then damaged.

use std::sync::Arc;

use ::parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use super::{tests::file, *};
use crate::{config::Data, labels::Class};

/// Ids, nullable texts, nullable labels, written as row groups of 100.
fn written(rows: usize, text: impl Fn(usize) -> Option<Vec<u8>>, label: impl Fn(usize) -> Option<i64>) -> Vec<u8> {
    let schema = "message m { required binary id (UTF8); optional double score; optional binary text (UTF8); optional \
        int64 label; }";
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for start in (0..rows).step_by(100) {
        let group_rows: Vec<usize> = (start..rows.min(start + 100)).collect();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ids: Vec<ByteArray> = group_rows.iter().map(|i| ByteArray::from(format!("r{i}").into_bytes())).collect();
        column.typed::<ByteArrayType>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[], Some(&vec![0; group_rows.len()]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts: Vec<ByteArray> = group_rows.iter().filter_map(|&i| text(i)).map(ByteArray::from).collect();
        let levels: Vec<i16> = group_rows.iter().map(|&i| text(i).is_some().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let labels: Vec<i64> = group_rows.iter().filter_map(|&i| label(i)).collect();
        let levels: Vec<i16> = group_rows.iter().map(|&i| label(i).is_some().into()).collect();
        column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

#[test]
fn parquet_passes_over_rows_without_decoding_them() {
    let text = |i: usize| (i % 3 != 1).then(|| format!("note {i}").into_bytes());
    let file = file("x.parquet", written(333, text, |i| Some((i % 2) as i64)));
    for skipped in [0, 1, 63, 64, 65, 99, 100, 101, 199, 200, 250, 299, 300, 332, 333, 400] {
        let rest: Vec<_> = stream_after(&Data::default(), &file.path, &["text".into()], skipped).unwrap().collect();
        assert_eq!(rest.len(), 333usize.saturating_sub(skipped), "{skipped}");
        for (i, record) in (skipped..).zip(rest) {
            match record.unwrap() {
                Ok(record) => assert_eq!((record.number, record.id), (i + 1, format!("r{i}")), "{skipped}"),
                Err(error) => assert_eq!((error.record, i % 3), (i + 1, 1), "{skipped}"),
            }
        }
    }
}

#[test]
fn parquet_reads_across_row_groups_and_batches() {
    let bytes = written(333, |i| Some(format!("note {i}").into_bytes()), |i| Some((i % 2) as i64));
    for name in ["x.parquet", "named-otherwise"] {
        let file = file(name, &bytes);
        let records =
            load(&Data::default(), &file.path, &Needs { label: true, every_class: true, ..Needs::default() }).unwrap();
        assert_eq!(records.len(), 333);
        for (i, record) in records.iter().enumerate() {
            assert_eq!(
                (record.id.clone(), record.field("text")),
                (format!("r{i}"), Some(format!("note {i}").as_str()))
            );
            assert_eq!((record.label, record.number), (Class::new(i % 2), i + 1));
        }
    }
}

#[test]
fn parquet_problems_are_the_records_own() {
    let text = |i: usize| match i {
        1 => None,
        2 => Some(vec![b'x', 0xff]),
        3 => Some(b" \n".to_vec()),
        _ => Some(b"x".to_vec()),
    };
    let file = file("x.parquet", written(6, text, |i| [Some(1), Some(0), Some(0), Some(0), Some(9), None][i]));
    let kinds: Vec<Option<&str>> = stream(&Data::default(), &file.path, &[])
        .unwrap()
        .map(|item| item.unwrap().err().map(|e| e.kind.as_str()))
        .collect();
    assert_eq!(kinds, [None, Some("missing_field"), Some("invalid_utf8"), Some("empty_text"), Some("bad_label"), None]);
    let mut data = Data::default();
    data.fields.insert("label".into(), "score".into());
    let error = load(&data, &file.path, &Needs { label: true, ..Needs::default() }).unwrap_err().to_string();
    assert!(error.contains("record 1, field label: is missing"), "{error}");
}

/// How pandas writes that there is no value, in a column of floats as in JSON.
#[test]
fn a_float_that_is_nan_is_missing() {
    let schema = "message m { required binary id (UTF8); required binary text (UTF8); required double label; required \
        float group; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for texts in [["a", "b", "c"], ["x", "y", "z"]] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts.map(ByteArray::from), None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[f64::NAN, 0.5, f64::NAN], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<FloatType>().write_batch(&[f32::NAN, f32::NAN, 0.5], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let file = file("x.parquet", bytes);
    let read: Vec<_> = stream(&Data::default(), &file.path, &[]).unwrap().map(Result::unwrap).collect();
    let missing = read[0].as_ref().unwrap();
    assert_eq!((missing.label, &missing.group), (None, &None));
    let field = |record: usize| read[record].as_ref().unwrap_err().field.as_deref();
    assert_eq!([field(1), field(2)], [Some("label"), Some("group")]);
}

#[test]
fn damaged_parquet_is_refused_without_a_panic() {
    let bytes = written(150, |i| Some(format!("note {i}").into_bytes()), |_| Some(1));
    for cut in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        let file = file("x.parquet", &bytes[..cut]);
        assert_eq!(load(&Data::default(), &file.path, &Needs::default()).unwrap_err().exit_code(), 3);
    }
    // Every byte wrong in turn (a sample of them): an error or other text, never a panic that escapes.
    for place in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x55;
        let file = file("x.parquet", &damaged);
        if let Err(error) = load(&Data::default(), &file.path, &Needs::default()) {
            assert_eq!(error.exit_code(), 3);
        }
    }
}
