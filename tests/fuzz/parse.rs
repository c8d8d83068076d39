//! libFuzzer over the parsers of files that others wrote: `tests/fuzz/run gguf`. A panic, an abort, a hang or a memory
//! limit is a finding; a refusal is not.
#![no_main]

use std::{path::Path, sync::OnceLock};

use candle_core::Device;
use clsgen::{
    config, data, demo, foreign,
    labels::Labels,
    model::{LlamaConfig, checkpoint, load_tensors, peft, source},
    prompt::{PromptTemplate, Prompter, TextTokenizer, TokenizerFiles, gguf},
    storage, train,
};
use libfuzzer_sys::fuzz_target;

static PARSER: OnceLock<String> = OnceLock::new();

fuzz_target!(
    init: {
        let parser = std::env::var("CLSGEN_PARSER").unwrap_or_default();
        PARSER.set(parser).expect("set once");
        // Panics of libraries that the program catches are no findings.
        let abort = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| if !foreign::is_caught() { abort(panic) }));
    },
    |bytes: &[u8]| {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        parse(PARSER.get().map_or("", String::as_str), dir.path(), bytes);
    }
);

/// Writes the bytes where the parser looks, and lets it read them.
fn parse(parser: &str, dir: &Path, bytes: &[u8]) {
    let write = |name: &str| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).expect("a file in memory");
        path
    };
    match parser {
        "config" => drop(LlamaConfig::read(&write("config.json"))),
        "safetensors" => drop(load_tensors(&write("a.safetensors"), &Device::Cpu)),
        "gguf" => {
            let path = write("m.gguf");
            drop(gguf::open(&path));
            drop(TokenizerFiles::from_gguf(&path));
            drop(source::resolve(&path.to_string_lossy(), &[], false).and_then(|source| source.config()));
        }
        "tokenizer" => {
            let files = TokenizerFiles { tokenizer: bytes.to_vec(), ..embedded() };
            if let Ok(tokenizer) = TextTokenizer::from_files(&files) {
                drop(tokenizer.encode("The patient was discharged.\n").map(|ids| tokenizer.decode(&ids)));
            }
        }
        "template" => template(bytes),
        "adapter" => {
            write("adapter_config.json");
            drop(peft::read_config(dir));
        }
        "checkpoint" => {
            write("clsgen.json");
            drop(checkpoint::read_info(dir));
        }
        "manifest" => {
            write("manifest.json");
            drop(storage::verify_manifest(dir));
        }
        "trainer" => {
            write("trainer.json");
            drop(train::checkpoint::read_state(dir));
        }
        "jsonl" | "csv" | "parquet" => {
            let path = write(&format!("r.{parser}"));
            if let Ok(records) = data::stream(&config::Data::default(), &path, &["text".to_owned()]) {
                records.for_each(drop);
            }
        }
        other => panic!("CLSGEN_PARSER={other:?} is none of the parsers of tests/fuzz/parse.rs"),
    }
}

fn template(bytes: &[u8]) {
    let Ok(source) = String::from_utf8(bytes.to_vec()) else { return };
    let files = TokenizerFiles { chat_template: Some(source), ..embedded() };
    let tokenizer = TextTokenizer::from_files(&files).expect("the embedded tokenizer");
    let prompt = r#"{"system": "s", "user": "{document}", "prefix": "p"}"#;
    let prompt: PromptTemplate = serde_json::from_str(prompt).expect("a prompt");
    let labels = Labels::two("0:alive", "1:death");
    drop(Prompter::new(prompt, tokenizer.into(), labels, 512, 64, config::Truncate::Tail));
}

/// The embedded model's tokenizer; unpacking it takes longer than most parsers.
fn embedded() -> TokenizerFiles {
    static FILES: OnceLock<TokenizerFiles> = OnceLock::new();
    let unpacked = || {
        let mut files = TokenizerFiles { name: "embedded".into(), ..TokenizerFiles::default() };
        for (name, bytes) in demo::model_files().expect("the embedded model") {
            match name {
                "tokenizer.json" => files.tokenizer = bytes,
                "tokenizer_config.json" => files.tokenizer_config = Some(bytes),
                "generation_config.json" => files.generation_config = Some(bytes),
                _ => {}
            }
        }
        files
    };
    FILES.get_or_init(unpacked).clone()
}
