//! Valid files with bytes flipped, cut off, moved, and numbers swapped: a few of each kind, the same in every run.

use std::fs::File;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use clsgen::rng::{Rng, hash_name, streams};
use serde_json::json;

use crate::{bench::Bench, common::gguf_name};

/// Files of each kind.
const EACH: u64 = 40;

/// Chance for the files of this name.
fn chance(name: &str) -> Rng {
    Rng::new(hash_name(name), streams::NOTES)
}

/// A file as chance damages it.
fn damaged(whole: &[u8], rng: Rng, n: u64) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let draw = |at: u64, bound: usize| rng.below(n, at, bound.max(1));
    for edit in 0..1 + draw(0, 3) as u64 {
        let at = |i: u64| 10 * (edit + 1) + i;
        let place = draw(at(0), bytes.len());
        // Most of what matters stands at a file's beginning or end.
        let place = match draw(at(1), 3) {
            0 => place % 64.min(bytes.len().max(1)),
            1 => bytes.len().saturating_sub(1 + place % 64),
            _ => place,
        };
        if bytes.is_empty() {
            break;
        }
        match draw(at(2), 7) {
            0 => bytes[place] ^= 1 << draw(at(3), 8),
            1 => bytes[place] = [0, 1, 0x7f, 0x80, 0xff, b'{', b'[', b'"', b'9', b'-'][draw(at(3), 10)],
            2 => bytes.truncate(place),
            3 => {
                let end = (place + 1 + draw(at(3), 32)).min(bytes.len());
                bytes.drain(place..end);
            }
            4 => {
                let end = (place + 1 + draw(at(3), 64)).min(bytes.len());
                let part = bytes[place..end].to_vec();
                bytes.splice(place..place, part);
            }
            5 => {
                let end = (place + 8).min(bytes.len());
                bytes[place..end].fill([0, 0xff, 0x7f][draw(at(3), 3)]);
            }
            _ => swap_number(&mut bytes, place, draw(at(3), 6)),
        }
    }
    bytes
}

/// Puts another number for the next one in digits.
fn swap_number(bytes: &mut Vec<u8>, place: usize, which: usize) {
    let Some(start) = bytes[place..].iter().position(u8::is_ascii_digit).map(|n| place + n) else { return };
    let end = bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |n| start + n);
    let number = ["0", "-1", "4294967296", "18446744073709551615", "1e308", "99"][which];
    bytes.splice(start..end, number.bytes());
}

/// The base of the bench as a `.gguf` file beside it.
fn write_gguf(bench: &Bench) {
    let tensors =
        candle_core::safetensors::load(bench.path("base/model.safetensors"), &candle_core::Device::Cpu).unwrap();
    let named: Vec<(String, QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (gguf_name(name), QTensor::quantize(tensor, GgmlDType::F32).unwrap()))
        .collect();
    use gguf_file::Value::{Array, F32, I32, String as Text, U32};
    let tokenizer: serde_json::Value = serde_json::from_slice(&bench.fixture.read("base/tokenizer.json")).unwrap();
    let mut tokens: Vec<(u64, &str)> = tokenizer["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap(), token.as_str()))
        .collect();
    tokens.push((256, "<|eot|>"));
    tokens.sort_unstable();
    let kinds = (0..257).map(|id| I32(if id == 256 { 3 } else { 1 })).collect();
    // A word for the byte 0, so that there is a merge.
    tokens[0].1 = "AB";
    let merge = vec![Text("A B".into())];
    let texts: Vec<_> = tokens.iter().map(|(_, token)| Text((*token).into())).collect();
    let metadata = [
        ("general.architecture", Text("llama".into())),
        ("llama.embedding_length", U32(32)),
        ("llama.feed_forward_length", U32(48)),
        ("llama.block_count", U32(2)),
        ("llama.attention.head_count", U32(4)),
        ("llama.attention.head_count_kv", U32(2)),
        ("llama.attention.layer_norm_rms_epsilon", F32(1e-5)),
        ("llama.context_length", U32(2048)),
        ("tokenizer.ggml.model", Text("gpt2".into())),
        ("tokenizer.ggml.pre", Text("gpt-2".into())),
        ("tokenizer.ggml.tokens", Array(texts)),
        ("tokenizer.ggml.token_type", Array(kinds)),
        ("tokenizer.ggml.merges", Array(merge)),
        ("tokenizer.ggml.eos_token_id", U32(256)),
        ("tokenizer.chat_template", Text("{% for m in messages %}{{ m.content }}{% endfor %}".into())),
    ];
    let metadata: Vec<(&str, &gguf_file::Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = named.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    std::fs::create_dir_all(bench.path("gguf")).unwrap();
    gguf_file::write(&mut File::create(bench.path("gguf/m.gguf")).unwrap(), &metadata, &tensors).unwrap();
}

#[test]
fn damaged_model_files_are_refused_or_read() {
    let mut bench = Bench::new("damaged model files");
    let dir = "run/checkpoints/epoch-01";
    let manifest = json!({"schema": 1, "files": {"clsgen.json": {"length": 1, "blake3": "0".repeat(64)}}});
    bench.fixture.write("base/generation_config.json", json!({"eos_token_id": [256]}).to_string());
    for name in [
        "base/config.json",
        "base/tokenizer.json",
        "base/tokenizer_config.json",
        "base/generation_config.json",
        "base/chat_template.jinja",
        "base/model.safetensors",
        &format!("{dir}/clsgen.json"),
        &format!("{dir}/adapter_config.json"),
        &format!("{dir}/adapter_model.safetensors"),
        &format!("{dir}/cls_head.safetensors"),
        &format!("{dir}/manifest.json"),
    ] {
        let absent = bench.fixture.read(name).is_empty();
        let whole = if absent { manifest.to_string().into_bytes() } else { bench.fixture.read(name) };
        for n in 0..EACH {
            bench.fixture.write(name, damaged(&whole, chance(name), n));
            bench.predict(&format!("{name} {n}"));
        }
        if absent {
            std::fs::remove_file(bench.path(name)).unwrap();
        } else {
            bench.fixture.write(name, &whole);
        }
    }
    bench.predict("as it was").accepted();
}

#[test]
fn damaged_shards_and_gguf_files_are_refused_or_read() {
    let mut bench = Bench::new("damaged shards and GGUF files");
    write_gguf(&bench);
    let whole = bench.fixture.read("gguf/m.gguf");
    let info = "run/checkpoints/epoch-01/clsgen.json";
    let before = bench.fixture.read(info);
    bench.set(info, &["base_model"], json!(bench.path("gguf/m.gguf")));
    bench.predict("a GGUF file").accepted();
    for n in 0..4 * EACH {
        bench.fixture.write("gguf/m.gguf", damaged(&whole, chance("gguf"), n));
        bench.predict(&format!("gguf {n}"));
    }
    bench.fixture.write(info, before);
    std::fs::rename(bench.path("base/model.safetensors"), bench.path("base/one.safetensors")).unwrap();
    let tensors =
        candle_core::safetensors::load(bench.path("base/one.safetensors"), &candle_core::Device::Cpu).unwrap();
    let map: serde_json::Map<String, serde_json::Value> =
        tensors.keys().map(|name| (name.clone(), json!("one.safetensors"))).collect();
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    let name = "base/model.safetensors.index.json";
    bench.fixture.write(name, &index);
    bench.predict("an index").accepted();
    for n in 0..EACH {
        bench.fixture.write(name, damaged(index.as_bytes(), chance(name), n));
        bench.predict(&format!("index {n}"));
    }
    for file in ["/dev/zero", "../base/one.safetensors", "\u{1b}[2J", ".", ""] {
        bench.fixture.write(name, json!({"weight_map": {"a": file}}).to_string());
        bench.predict(&format!("a shard {file:?}")).refused(4, &["base"]);
    }
}

#[test]
fn damaged_records_are_refused_or_read() {
    let mut bench = Bench::new("damaged records");
    let jsonl: String =
        (0..5).map(|i| json!({"id": i, "text": "fever \u{e9}", "label": i % 2}).to_string() + "\n").collect();
    let csv = "id,text,label\n1,\"fever, \"\"high\"\"\",0\n2,cough,1\n3,\"two\nlines\",0\n";
    let lcd = json!({"data": [{"id": 1, "text": "fever", "out_hospital_mortality_30": 0}, {"id": 2, "text": "x"}]});
    let parquet = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/annotations.parquet")).unwrap();
    let lcd = lcd.to_string();
    let columns: [&[&str]; 2] = [
        &["--set", "data.format=lcd", "--set", "data.horizon=30"],
        &[
            "--set",
            "data.fields.text=zstd",
            "--set",
            "data.fields.id=dictionary",
            "--set",
            "data.fields.group=delta_binary_packed",
        ],
    ];
    let files = [
        ("d.jsonl", jsonl.as_bytes(), EACH, [].as_slice()),
        ("d.csv", csv.as_bytes(), EACH, &[]),
        ("d.json", lcd.as_bytes(), EACH, columns[0]),
        ("d.parquet", &parquet, 4 * EACH, columns[1]),
    ];
    for (name, whole, each, flags) in files {
        for n in 0..each {
            bench.fixture.write(name, damaged(whole, chance(name), n));
            let _ = std::fs::remove_file(bench.path("o.jsonl"));
            let _ = std::fs::remove_file(bench.path("o.jsonl.meta.json"));
            let model = "run/checkpoints/epoch-01";
            let mut args = vec!["predict", "--quiet", "--no-explanation", "--model", model, "--input", name];
            args.extend(["--output", "o.jsonl"]);
            args.extend(flags);
            let ended = bench.run(&format!("{name} {n}"), &args);
            assert!(matches!(ended.code, 0 | 3), "{name} {n}: {}: {}", ended.code, ended.stderr);
        }
    }
}
