//! The readers on the real CliniFact files, and on arbitrary bytes.

use std::path::PathBuf;

use clsgen::{
    config::{Data, DataFormat, Expect},
    data::{self, Needs},
    labels::Class,
};
use proptest::prelude::*;

fn shared() -> PathBuf {
    std::env::var_os("CLSGEN_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from)
}

#[test]
fn clinifact_has_the_papers_counts() {
    let folder = shared().join("data/clinifact");
    if !folder.is_dir() {
        println!("SKIP: {} is absent", folder.display());
        return;
    }
    let data = Data { expect: Expect { train: Some(1260), dev: Some(316), test: None }, ..Data::default() };
    let fields = ["claim".to_owned(), "abstract".to_owned()];
    let read = |file: &str, split| data::load(&data, &folder.join(file), &Needs::split(&data, split, &fields)).unwrap();
    let train = read("train_set.csv", "train");
    let dev = read("validation_set.csv", "dev");
    let positives = |records: &[data::Record]| records.iter().filter(|record| record.label == Some(Class::ONE)).count();
    assert_eq!((train.len(), positives(&train)), (1260, 366));
    // The paper's Table 7: 233 negatives and 83 positives in dev.
    assert_eq!((dev.len(), positives(&dev)), (316, 83));
    assert!(train.iter().all(|record| record.group.as_ref().is_some_and(|group| group.starts_with("NCT"))));
    let report = data::leakage(&[("train", &train), ("dev", &dev)]);
    assert_eq!(report.pairs[0].shared_ids, 0);
    assert!(report.pairs[0].shared_groups > 0, "{report}");
    println!("{report}");

    let streamed = data::stream(&Data::default(), &folder.join("validation_set.csv"), &fields).unwrap();
    let streamed: Vec<data::Record> = streamed.map(|item| item.unwrap().unwrap()).collect();
    assert_eq!(streamed, dev);

    // What construct writes is read back as the same records.
    let lines: Vec<String> = dev.iter().map(|record| serde_json::to_string(&record.to_json()).unwrap()).collect();
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    // Their lines are those of their file.
    let dev: Vec<data::Record> = dev.into_iter().map(|record| data::Record { line: None, ..record }).collect();
    assert_eq!(data::load_canonical(file.path(), &data.labels, &Needs::split(&data, "dev", &fields)).unwrap(), dev);
}

/// Reads `bytes` in every way there is; any outcome but a panic or an endless loop is fine.
fn read_every_way(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    for format in [
        DataFormat::Auto,
        DataFormat::Jsonl,
        DataFormat::Csv,
        DataFormat::Clinifact,
        DataFormat::Clinifact3,
        DataFormat::EvidenceInference,
        DataFormat::Lcd,
        DataFormat::Parquet,
    ] {
        let data = Data { format, ..Data::default() };
        if let Err(error) = data::load(&data, file.path(), &Needs { label: true, ..Needs::default() }) {
            assert_eq!(error.exit_code(), 3, "{error}");
        }
        if let Ok(stream) = data::stream(&data, file.path(), &[]) {
            assert!(stream.take(bytes.len() + 2).count() <= bytes.len() + 1);
        }
    }
    let _ = data::Predictions::read(&[file.path().to_owned()], &Data::default().labels, &[]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_reader_panics_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_every_way(&bytes);
    }

    #[test]
    fn no_reader_panics_on_almost_files(
        start in prop::sample::select(vec![
            "", "{\"data\":[", "id,text,label\n", "PAR1", "\u{feff}", "index,nctId,claim,article_abstract,label\n",
        ]),
        parts in prop::collection::vec(prop::sample::select(vec![
            "{\"id\":", "\"a\"", ",\"text\":", "\"x\"", "}", "]", "[", "\"", "\\", "\n", "\r", ",", "a,b,1", "1",
            "null", "\u{e9}", "PAR1", ":",
        ]), 0..60),
    ) {
        read_every_way(format!("{start}{}", parts.concat()).as_bytes());
    }

    #[test]
    fn csv_reads_back_whatever_a_writer_quotes(texts in prop::collection::vec("[a-z\",\r\n\u{e9} ]{0,20}", 1..8)) {
        let mut csv = "id,text,label\n".to_owned();
        let texts: Vec<String> = texts.iter().map(|text| format!("x{text}")).collect();
        for (i, text) in texts.iter().enumerate() {
            csv += &format!("{i},\"{}\",1\r\n", text.replace('"', "\"\""));
        }
        let file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
        std::fs::write(file.path(), csv).unwrap();
        let records = data::load(&Data::default(), file.path(), &Needs::default()).unwrap();
        let read: Vec<_> = records.iter().map(|record| record.field("text").unwrap().to_owned()).collect();
        prop_assert_eq!(read, texts);
    }
}
