//! `clsgen export`: the merged folder is a checkpoint that predicts as base and adapter do.

mod common;
#[path = "predict/fixture.rs"]
#[allow(dead_code)] // of this fixture only the checkpoint and the runs are used
mod fixture;

use std::{collections::BTreeMap, ffi::OsString, process::Command};

use candle_core::{DType, Device, Tensor, safetensors};
use clsgen::{
    generate::scoring,
    model::{checkpoint, merge},
    storage::AtomicDir,
};
use common::{Outcome, assert_fails, outcome};
use fixture::{Fixture, mode, notes, parse_lines};
use serde_json::Value;

fn command(fixture: &Fixture, flags: &[&str]) -> Command {
    let mut command = common::clsgen();
    command.current_dir(fixture.path("")).args(["export", "--model", "run", "--merged", "merged"]).args(flags);
    command
}

fn export(fixture: &Fixture, flags: &[&str]) -> Outcome {
    outcome(&mut command(fixture, flags))
}

/// What lies in the scratch directory.
fn names(fixture: &Fixture) -> Vec<OsString> {
    let entries = std::fs::read_dir(fixture.path("")).unwrap();
    let mut names: Vec<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Logits of each note by this checkpoint.
fn logits(fixture: &Fixture, model: &str) -> Vec<[f64; 2]> {
    let mut command: Command = common::clsgen();
    command.current_dir(fixture.path("")).args(["predict", "--model", model, "--input", "in.jsonl", "--output", "-"]);
    let told = outcome(command.arg("--no-explanation"));
    assert_eq!(told.code, Some(0), "{told:?}");
    let lines = parse_lines(told.stdout.as_bytes());
    lines.iter().map(|line| serde_json::from_value(line["logits"].clone()).unwrap()).collect()
}

fn furthest(a: &[[f64; 2]], b: &[[f64; 2]]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The merged weights as the definition gives them: in f64 here, rounded to bf16 once.
fn merged_by_hand(fixture: &Fixture) -> BTreeMap<String, Tensor> {
    let read = |name: &str| safetensors::load(fixture.path(name), &Device::Cpu).unwrap();
    let adapter = read("run/checkpoints/epoch-01/adapter_model.safetensors");
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
    let merge = |(name, base): (String, Tensor)| {
        let low_rank = |side: &str| {
            let projection = name.strip_suffix(".weight").unwrap();
            adapter.get(&format!("base_model.model.{projection}.lora_{side}.weight")).map(wide)
        };
        let merged = match low_rank("A").zip(low_rank("B")) {
            // α 8, rank 4.
            Some((a, b)) => (wide(&base) + (b.matmul(&a).unwrap() * 2.0).unwrap()).unwrap(),
            None => wide(&base),
        };
        (name.clone(), merged.to_dtype(DType::F32).unwrap())
    };
    read("base/model.safetensors").into_iter().map(merge).collect()
}

#[test]
fn merged_weights_are_rounded_once_and_predict_alike() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(24));
    let told = export(&fixture, &[]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "merged\n"), "{told:?}");
    let weights = safetensors::load(fixture.path("merged/model.safetensors"), &Device::Cpu).unwrap();
    let by_hand = merged_by_hand(&fixture);
    assert_eq!(weights.len(), by_hand.len());
    for (name, wanted) in &by_hand {
        let found = &weights[name];
        assert_eq!((found.dtype(), found.dims()), (DType::BF16, wanted.dims()), "{name}");
        let values =
            |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (found, wanted) in values(found).into_iter().zip(values(wanted)) {
            // Half a unit in the last of bf16's 8 bits, and what f32 itself rounds.
            assert!((found - wanted).abs() <= wanted.abs() / 256.0 * 1.0001 + 1e-6, "{name}: {found} for {wanted}");
        }
    }
    let by_adapter = logits(&fixture, "run");
    let by_merged = logits(&fixture, "merged");
    let distance = furthest(&by_adapter, &by_merged);
    let largest = by_adapter.iter().flatten().fold(0.0, |most: f64, logit| most.max(logit.abs()));
    common::say(&format!("merged against adapter: logits up to {largest:.3} differ by {distance:.5} at most"));
    // bf16 keeps 8 bits of a weight: each of some ten products on the way adds up to 2⁻⁹ of a logit's scale.
    assert!(distance > 0.0 && distance < 0.05 * largest, "{distance} of {largest}");
    for name in ["model.safetensors", "config.json", "clsgen.json", "cls_head.safetensors", "manifest.json"] {
        assert_eq!(mode(&fixture.path(&format!("merged/{name}"))), 0o600, "{name}");
    }
    assert_eq!(fixture.read("merged/tokenizer.json"), fixture.read("base/tokenizer.json"));
    assert_eq!(
        fixture.read("merged/cls_head.safetensors"),
        fixture.read("run/checkpoints/epoch-01/cls_head.safetensors")
    );
    // Without its base.
    std::fs::remove_dir_all(fixture.path("base")).unwrap();
    assert_eq!(logits(&fixture, "merged"), by_merged);
}

#[test]
fn a_large_model_goes_into_shards_with_an_index() {
    let fixture = Fixture::new();
    fixture.write("in.jsonl", notes(8));
    assert_eq!(export(&fixture, &[]).code, Some(0));
    let dir = scoring::checkpoint_dir(&fixture.path("run")).unwrap();
    let info = checkpoint::read_info(&dir).unwrap();
    let source = checkpoint::locate(&dir, &info, checkpoint::BaseLookup::default()).unwrap();
    let opened = merge::Opened::open(&dir, info, source).unwrap();
    let out = AtomicDir::create(&fixture.path("shards")).unwrap();
    let mut tensors = 0;
    merge::write(&out, &opened, 20_000, || tensors += 1).unwrap();
    out.commit(true).unwrap();
    let index: Value = serde_json::from_slice(&fixture.read("shards/model.safetensors.index.json")).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let files: std::collections::BTreeSet<&str> = map.values().map(|file| file.as_str().unwrap()).collect();
    assert!(files.len() > 2 && map.len() == tensors, "{files:?}");
    assert_eq!(index["metadata"]["total_size"], merge::bytes(&opened.config));
    assert_eq!(logits(&fixture, "shards"), logits(&fixture, "merged"));
}

#[test]
fn nothing_is_replaced_unasked_and_nothing_half_is_left() {
    let fixture = Fixture::new();
    assert_eq!(export(&fixture, &["--dry-run"]).code, Some(0));
    assert!(!fixture.path("merged").exists());
    assert_eq!(export(&fixture, &[]).code, Some(0));
    let weights = fixture.read("merged/model.safetensors");
    assert_fails(&export(&fixture, &[]), 2, &["merged is there already", "--overwrite"]);
    assert_eq!(export(&fixture, &["--overwrite"]).code, Some(0));
    assert_eq!(fixture.read("merged/model.safetensors"), weights);
    // A file of the user's among those of the export is not lost with them.
    for mine in ["merged/model.gguf", "merged/notes/mine.txt"] {
        fixture.write(mine, "mine");
        assert_fails(&export(&fixture, &["--overwrite"]), 2, &["which export did not write", "hint: move that away"]);
        assert_eq!(fixture.read(mine), b"mine");
        std::fs::remove_file(fixture.path(mine)).unwrap();
    }
    for foreign in ["run", "base", "run/checkpoints/epoch-01"] {
        let mut command = common::clsgen();
        command.current_dir(fixture.path("")).args(["export", "--model", "run", "--overwrite", "--merged", foreign]);
        assert_fails(&outcome(&mut command), 2, &["is there already, and export did not make it"]);
    }
    std::fs::remove_dir_all(fixture.path("merged")).unwrap();
    // An adapter of another base: read to the tensor that is wrong, and nothing is left.
    let adapter = fixture.path("run/checkpoints/epoch-01/adapter_model.safetensors");
    let mut tensors = safetensors::load(&adapter, &Device::Cpu).unwrap();
    let name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight";
    tensors.insert(name.into(), (tensors[name].clone() * f64::INFINITY).unwrap());
    safetensors::save(&tensors, &adapter).unwrap();
    assert_fails(&export(&fixture, &[]), 4, &[name, "NaN or infinite"]);
    tensors.remove(name);
    safetensors::save(&tensors, &adapter).unwrap();
    assert_fails(&export(&fixture, &[]), 4, &[name, "missing"]);
    assert_eq!(names(&fixture), ["base", "run"]);
}

/// A kill leaves nothing in the way of the same command, and no other replaces what was there.
#[test]
fn a_killed_export_is_made_by_the_same_command() {
    let fixture = Fixture::new();
    let kill = |point: &str, flags: &[&str]| {
        let told = outcome(command(&fixture, flags).env("CLSGEN_FAULT", point));
        assert_eq!(told.code, None, "{point}: {told:?}");
    };
    for point in ["dir.create", "dir.write", "dir.manifest", "dir.synced"] {
        kill(point, &[]);
        let told = export(&fixture, &[]);
        assert_eq!((told.code, told.stdout.as_str()), (Some(0), "merged\n"), "{point}: {told:?}");
        assert_eq!(names(&fixture), ["base", "merged", "run"], "{point}");
        std::fs::remove_dir_all(fixture.path("merged")).unwrap();
    }
    // Where two folders cannot be swapped, the old one has stepped aside: it is refused before any work.
    assert_eq!(export(&fixture, &[]).code, Some(0));
    kill("dir.aside", &["--overwrite"]);
    assert!(!fixture.path("merged").exists());
    let left = names(&fixture);
    assert_fails(&export(&fixture, &[]), 2, &["merged is there already", "--overwrite"]);
    assert_eq!(names(&fixture), left);
    assert_eq!(export(&fixture, &["--overwrite"]).code, Some(0));
    assert_eq!(names(&fixture), ["base", "merged", "run"]);
}

#[test]
fn a_users_folder_of_a_dot_name_is_neither_removed_nor_taken_for_the_merged_one() {
    let fixture = Fixture::new();
    let thesis = ".merged.old/thesis.txt";
    fixture.write(thesis, "mine");
    for flags in [&[][..], &["--overwrite"]] {
        let told = export(&fixture, flags);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert_eq!(fixture.read(thesis), b"mine");
    }
    assert_eq!(names(&fixture), [".merged.old", "base", "merged", "run"]);
}

#[test]
fn a_quantised_checkpoint_is_merged_into_the_whole_base_and_says_so() {
    let fixture = Fixture::new();
    let info = "run/checkpoints/epoch-01/clsgen.json";
    let mut json: Value = serde_json::from_slice(&fixture.read(info)).unwrap();
    assert_eq!(export(&fixture, &[]).code, Some(0));
    let plain = fixture.read("merged/model.safetensors");
    json["quantize"] = "int8".into();
    fixture.write(info, json.to_string());
    let told = export(&fixture, &["--overwrite"]);
    assert!(told.code == Some(0) && told.stderr.contains("over a base quantised as int8"), "{told:?}");
    assert_eq!(fixture.read("merged/model.safetensors"), plain);
    let merged: Value = serde_json::from_slice(&fixture.read("merged/clsgen.json")).unwrap();
    assert_eq!(merged.get("quantize"), None);
}
