//! Prompts against HF: small tokenizers of every kind here, real ones and real records where they are at hand.

mod common;
#[path = "prompt/injection.rs"]
mod injection;
#[path = "prompt/properties.rs"]
mod properties;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use clsgen::{
    config::Truncate,
    data::Record,
    labels::{Class, Labels},
    prompt::{PromptFormat, PromptTemplate, Prompter, TextTokenizer, TokenizerFiles},
};
use serde_json::{Value, json};

const NO_LIMIT: usize = usize::MAX;

fn labels() -> Labels {
    Labels::two("FALSE", "TRUE")
}

fn record(fields: &[(&str, &str)]) -> Record {
    let fields: BTreeMap<String, String> =
        fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Record {
        id: "r".into(),
        fields,
        label: Some(Class::ONE),
        explanation: None,
        group: None,
        columns: BTreeMap::new(),
        number: 1,
        line: None,
    }
}

fn template(system: &str, user: &str, prefix: &str) -> PromptTemplate {
    let json = json!({"system": system, "user": user, "prefix": prefix});
    serde_json::from_value(json).expect("a prompt template")
}

fn toy() -> Value {
    common::golden("prompt_toy.json")
}

fn toy_tokenizer(kind: &Value, chat_template: Option<&str>) -> TextTokenizer {
    let files = TokenizerFiles {
        name: "toy".into(),
        tokenizer: kind["tokenizer"].to_string().into_bytes(),
        tokenizer_config: Some(
            json!({"bos_token": kind["bos_token"], "eos_token": {"content": kind["eos_token"]}})
                .to_string()
                .into_bytes(),
        ),
        chat_template: chat_template.map(String::from),
        generation_config: Some(json!({"eos_token_id": [0, 2]}).to_string().into_bytes()),
        ..TokenizerFiles::default()
    };
    TextTokenizer::from_files(&files).expect("a tokenizer")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| u32::try_from(id.as_u64().expect("id")).expect("u32")).collect()
}

fn prompter(
    template: PromptTemplate,
    tokenizer: &Arc<TextTokenizer>,
    max_input: usize,
    truncate: Truncate,
) -> Prompter {
    Prompter::new(template, Arc::clone(tokenizer), labels(), max_input, NO_LIMIT, truncate).expect("a prompter")
}

#[test]
fn chat_ids_of_every_kind_of_tokenizer_equal_hf() {
    let toy = toy();
    let mut cases = 0;
    for (name, kind) in toy["tokenizers"].as_object().expect("tokenizers") {
        for case in kind["chat"].as_array().expect("cases") {
            let chat = case[0].as_str().expect("template");
            let index = case[1].as_u64().expect("index") as usize;
            let tokenizer = Arc::new(toy_tokenizer(kind, toy["templates"][chat].as_str()));
            let [system, user, prefix] = [0, 1, 2].map(|i| toy["texts"][index][i].as_str().expect("text"));
            let system = if case[2] == true { system } else { "" };
            let prompter = prompter(template(system, "{document}", prefix), &tokenizer, NO_LIMIT, Truncate::Tail);
            let prompt = prompter.prompt(&record(&[("text", user)])).expect("a prompt");
            assert_eq!(prompt.ids, ids(&case[3]), "{name} {chat} {index} {}", case[2]);
            cases += 1;
        }
    }
    assert_eq!(cases, 6 * 48);
}

#[test]
fn plain_prompts_targets_and_decoding_equal_hf() {
    let toy = toy();
    for (name, kind) in toy["tokenizers"].as_object().expect("tokenizers") {
        let tokenizer = Arc::new(toy_tokenizer(kind, None));
        for (index, texts) in toy["texts"].as_array().expect("texts").iter().enumerate() {
            let [system, user, prefix] = [0, 1, 2].map(|i| texts[i].as_str().expect("text"));
            let mut template = template(system, "{document}", prefix);
            template.format = PromptFormat::Plain;
            let prompter = prompter(template, &tokenizer, NO_LIMIT, Truncate::Tail);
            let prompt = prompter.prompt(&record(&[("text", user)])).expect("a prompt");
            assert_eq!(prompt.ids, ids(&kind["plain"][index]), "{name} {index}");

            let target = ids(&kind["targets"][index]);
            assert_eq!(target.last(), Some(&tokenizer.eog()));
            assert_eq!(
                tokenizer.decode(&target).unwrap(),
                kind["decoded"][index].as_str().expect("text"),
                "{name} {index}"
            );
        }
        assert!(tokenizer.stop_ids().contains(&tokenizer.eog()) && tokenizer.stop_ids().contains(&0));
        assert!(tokenizer.check_vocab(tokenizer.vocab_size()).is_ok());
        assert_eq!(tokenizer.check_vocab(tokenizer.vocab_size() - 1).expect_err("one id too many").exit_code(), 4);
    }
}

fn fnv1a(ids: &[u32]) -> String {
    let digest = ids
        .iter()
        .flat_map(|id| id.to_le_bytes())
        .fold(0xCBF2_9CE4_8422_2325_u64, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    format!("{digest:016x}")
}

fn clinifact() -> Option<Vec<Record>> {
    let path = common::shared("data/clinifact/validation_set.csv")?;
    let mut reader = csv::Reader::from_path(path).expect("a CSV file");
    let headers = reader.headers().expect("a header").clone();
    let column = |name: &str| headers.iter().position(|header| header == name).expect("a column");
    let claim = column("claim");
    let text = column("article_abstract");
    Some(
        reader
            .records()
            .map(|row| row.expect("a row"))
            .map(|row| record(&[("claim", &row[claim]), ("abstract", &row[text])]))
            .collect(),
    )
}

fn shipped(name: &str) -> PromptTemplate {
    PromptTemplate::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("prompts").join(name)).expect("a shipped prompt")
}

/// 200 real records, HF's ids by their hashes: chat, plain, and the abstract as an explanation.
fn against_hf(name: &str, folder: &Path) {
    let Some(records) = clinifact() else { return };
    let tokenizer = Arc::new(TextTokenizer::load(folder).expect("a tokenizer"));
    let chat = prompter(shipped("clinifact.toml"), &tokenizer, NO_LIMIT, Truncate::Tail);
    let plain = PromptTemplate { format: PromptFormat::Plain, ..shipped("clinifact.toml") };
    let plain = prompter(plain, &tokenizer, NO_LIMIT, Truncate::Tail);
    let mut cases = 0;
    for line in include_str!("golden/prompt.txt").lines() {
        let case: Vec<&str> = line.split(' ').collect();
        if case[0] != name {
            continue;
        }
        let record = &records[case[2].parse::<usize>().expect("index")];
        let ids = match case[1] {
            "chat" => chat.prompt(record).expect("a prompt").ids,
            "plain" => plain.prompt(record).expect("a prompt").ids,
            _ => chat.target(record.field("abstract").expect("abstract"), Class::ONE).expect("a target").ids,
        };
        assert_eq!((ids.len().to_string(), fnv1a(&ids)), (case[3].to_owned(), case[4].to_owned()), "{line}");
        cases += 1;
    }
    assert_eq!(cases, 600);
}

#[test]
fn smollm2_ids_of_real_records_equal_hf() {
    if let Some(folder) = common::smollm2() {
        against_hf("smollm2", &folder);
    }
}

#[test]
fn a_gguf_file_gives_the_ids_of_its_folder() {
    let Some(folder) = common::smollm2() else { return };
    let file = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    match file.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "gguf")) {
        Some(path) => against_hf("smollm2", &path),
        None => common::skip("no .gguf file in the folder of SmolLM2"),
    }
}

#[test]
fn llama3_ids_of_real_records_equal_hf() {
    if let Some(folder) = common::shared("data/llama3-tokenizer") {
        against_hf("llama3", &folder);
    }
}

/// The longest cut that fits, by trying every cut: what the search must find.
fn longest_by_trial(
    tokenizer: &TextTokenizer,
    full: &Prompter,
    record: &Record,
    field: &str,
    max: usize,
    truncate: Truncate,
) -> Vec<u32> {
    let text = record.field(field).expect("the document");
    let cuts: Vec<usize> = text.char_indices().map(|(start, _)| start).chain([text.len()]).collect();
    let boundaries: Vec<usize> = cuts.into_iter().filter(|&cut| is_boundary(tokenizer, text, cut)).collect();
    let n = boundaries.len() - 1;
    for keep in (0..n).rev() {
        let (head, tail) = match truncate {
            Truncate::Tail => (keep, 0),
            Truncate::Head => (0, keep),
            Truncate::Middle => (keep.div_ceil(2), keep / 2),
        };
        let cut = [&text[..boundaries[head]], &text[boundaries[n - tail]..]].concat();
        let mut record = record.clone();
        record.fields.insert(field.to_owned(), cut);
        let ids = full.prompt(&record).expect("a prompt").ids;
        if ids.len() <= max {
            return ids;
        }
    }
    panic!("nothing fits")
}

/// A place is a boundary when the tokens of the whole text, decoded one more at a time, stop there.
fn is_boundary(tokenizer: &TextTokenizer, text: &str, cut: usize) -> bool {
    let ids = tokenizer.encode(text).expect("ids");
    (0..=ids.len()).any(|n| tokenizer.decode(&ids[..n]).unwrap() == text[..cut])
}

#[test]
fn truncation_keeps_the_longest_cut_and_everything_else() {
    let toy = toy();
    let kind = &toy["tokenizers"]["byte_level"];
    let tokenizer = Arc::new(toy_tokenizer(kind, toy["templates"]["headers"].as_str()));
    let document = "Stable at discharge.\n\n  12345 mg,  don't stop!\n\n\nNaïve patient — 日本 — seen \t\n \
        twice; alive or dead?\n\n";
    for user in ["{document}", "Note:\n\n{document}\n\nDead?", "{document}\n", "x{document}"] {
        let template = template("Sort notes.", user, "Reasoning: ");
        let full = prompter(template.clone(), &tokenizer, NO_LIMIT, Truncate::Tail);
        let record = record(&[("text", document)]);
        let whole = full.prompt(&record).expect("a prompt").ids;
        let mut empty = record.clone();
        empty.fields.insert("text".into(), String::new());
        let least = full.prompt(&empty).expect("a prompt").ids.len();
        for truncate in [Truncate::Tail, Truncate::Head, Truncate::Middle] {
            for max in least..whole.len() {
                let prompt = prompter(template.clone(), &tokenizer, max, truncate).prompt(&record).expect("a prompt");
                assert_eq!(
                    prompt.ids,
                    longest_by_trial(&tokenizer, &full, &record, "text", max, truncate),
                    "{user:?} {truncate:?} {max}"
                );
                assert_eq!(prompt.truncated_tokens, whole.len() - prompt.ids.len());
            }
        }
        let error = Prompter::new(template, Arc::clone(&tokenizer), labels(), least - 1, NO_LIMIT, Truncate::Tail)
            .expect_err("too small");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn a_target_loses_the_end_of_its_explanation_only() {
    let toy = toy();
    let tokenizer = Arc::new(toy_tokenizer(&toy["tokenizers"]["byte_level"], toy["templates"]["lines"].as_str()));
    let new = |max| {
        Prompter::new(template("s", "{document}", ""), Arc::clone(&tokenizer), labels(), NO_LIMIT, max, Truncate::Head)
    };
    let explanation = "The patient was stable — and went home. <|eot|> Then came back.";
    let whole = new(NO_LIMIT).expect("a prompter").target(explanation, Class::ONE).expect("a target");
    let least = new(NO_LIMIT).expect("a prompter").target("", Class::ONE).expect("a target").ids.len();
    assert_eq!(whole.truncated_tokens, 0);
    for max in least + 1..whole.ids.len() {
        let target = new(max).expect("a prompter").target(explanation, Class::ONE).expect("a target");
        assert!(target.ids.len() <= max && target.ids.len() + 3 > max, "{max}: {}", target.ids.len());
        assert_eq!(target.truncated_tokens, whole.ids.len() - target.ids.len());
        let (eog, text) = target.ids.split_last().expect("EOG");
        assert_eq!(*eog, tokenizer.eog());
        assert!(!text.iter().any(|&id| tokenizer.is_control(id)));
        let text = tokenizer.decode(text).unwrap();
        let kept = text.strip_suffix("\n\nClassification: TRUE\n\n").expect("the verdict line");
        assert!(explanation.starts_with(kept), "{max}");
    }
    assert_eq!(new(least - 2).expect_err("too small").exit_code(), 2);
    assert_eq!(
        new(NO_LIMIT)
            .expect("a prompter")
            .target("x", Class::new(2).expect("a class"))
            .expect_err("no class")
            .exit_code(),
        3
    );
}

#[test]
fn only_the_document_may_be_cut() {
    let toy = toy();
    let tokenizer = Arc::new(toy_tokenizer(&toy["tokenizers"]["byte_level"], toy["templates"]["lines"].as_str()));
    let mut template = template("s", "{claim}\n{document}", "");
    template.document = "abstract".into();
    let prompter = prompter(template, &tokenizer, 60, Truncate::Tail);
    let long = "claims and notes ".repeat(40);
    let prompt = prompter.prompt(&record(&[("claim", "c"), ("abstract", &long)])).expect("a prompt");
    assert!(prompt.ids.len() <= 60 && prompt.truncated_tokens > 0);
    let error = prompter.prompt(&record(&[("claim", &long), ("abstract", "a")])).expect_err("a claim too long");
    assert_eq!(error.exit_code(), 3);
    assert!(!error.to_string().contains("notes"), "no text of a record in a message");
    let error = prompter.prompt(&record(&[("claim", "c")])).expect_err("no abstract");
    assert_eq!((error.exit_code(), error.to_string().as_str()), (3, "record 1: field abstract is missing"));
}

#[test]
fn shipped_prompts_are_the_papers() {
    for (name, days) in [("lcd30.toml", "30"), ("lcd90.toml", "90")] {
        let template = shipped(name);
        assert_eq!(template.fields(), ["text"]);
        assert!(template.system.contains(&format!(
            "the patient's out-of-hospital mortality within {days} days as either 0:alive or 1:death."
        )));
        assert!(
            template
                .question
                .ends_with(&format!("within {days} days. Answer with exactly one of: 0:alive or 1:death."))
        );
        assert_eq!(
            (template.user.as_str(), template.prefix.as_str()),
            ("Clinical Document:\n\n{document}", "Reasoning: ")
        );
        assert!(format!("{template:?}").is_ascii());
    }
    assert_eq!(shipped("clinifact.toml").fields(), ["claim", "abstract"]);
}

#[test]
fn wrong_prompt_files_are_usage_errors_that_name_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    for (text, part) in [
        ("user = \"{document}\"\nsuffix = \"x\"", "p.toml:2: has a key"),
        ("system = \"x\"", "user"),
        ("user = \"no placeholder\"", "{document}"),
        ("user = 3", "p.toml:1: has a value"),
        ("user = \"{document}\"\nresponse = \"{label}\"", "response"),
        ("user = \"{document} {label}\"", "the field `label`"),
        ("user = \"{document}\"\nquestion = \"Is {explanation} right?\"", "the field `explanation`"),
        ("user = \"{document}\"\nformat = \"xml\"", "p.toml:2: has a value"),
    ] {
        let path = dir.path().join("p.toml");
        std::fs::write(&path, text).expect("written");
        let error = PromptTemplate::load(&path).expect_err(text);
        assert_eq!(error.exit_code(), 2, "{text}");
        assert!(error.to_string().contains("p.toml") && error.to_string().contains(part), "{error}");
    }
    assert_eq!(PromptTemplate::load(&dir.path().join("absent.toml")).expect_err("absent").exit_code(), 2);
}

#[test]
fn broken_tokenizer_folders_are_model_errors() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(TextTokenizer::load(dir.path()).expect_err("nothing there").exit_code(), 4);
    std::fs::write(dir.path().join("tokenizer.json"), "{\"model\": ").expect("written");
    let error = TextTokenizer::load(dir.path()).expect_err("not JSON");
    assert_eq!(error.exit_code(), 4);
    let toy = toy();
    let kind = &toy["tokenizers"]["byte_level"];
    std::fs::write(dir.path().join("tokenizer.json"), kind["tokenizer"].to_string()).expect("written");
    let error = TextTokenizer::load(dir.path()).expect_err("no end token");
    assert_eq!(error.exit_code(), 4);
    std::fs::write(dir.path().join("config.json"), "{\"eos_token_id\": 423}").expect("written");
    assert_eq!(TextTokenizer::load(dir.path()).expect("a tokenizer").stop_ids(), [423]);
    let error = Prompter::new(
        template("", "{document}", "x"),
        Arc::new(TextTokenizer::load(dir.path()).expect("a tokenizer")),
        labels(),
        99,
        99,
        Truncate::Tail,
    );
    let error = error.expect_err("no chat template");
    assert_eq!(error.exit_code(), 4);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("plain")));
}
