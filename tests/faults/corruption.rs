//! Damage to a checkpoint is found, never used: bytes flipped all over each of its files, each cut at many lengths.

use std::path::Path;

use clsgen::train::checkpoint::newest_valid;

use super::{common, work::Work};

/// Places of a file that are damaged, its ends more densely.
const PLACES: usize = 40;
const ENDS: usize = 8;

fn places(length: usize) -> Vec<usize> {
    let spread = (0..PLACES).map(|i| i * length / PLACES);
    let mut places: Vec<usize> = spread.chain(0..ENDS).chain(length.saturating_sub(ENDS)..length).collect();
    places.retain(|&place| place < length);
    places.sort_unstable();
    places.dedup();
    places
}

/// A run of two epochs.
fn trained() -> Work {
    let work = Work::new(8);
    let told = common::outcome(work.command(&["train", "--config", "demo.toml", "--run", "run"]).args(TWO));
    assert_eq!(told.code, Some(0), "{told:?}");
    work
}

const TWO: [&str; 2] = ["--set", "train.epochs=2"];
const EPOCH: &str = "run/checkpoints/epoch-02";

#[test]
fn no_damaged_checkpoint_is_gone_on_from() {
    let work = trained();
    let run = work.path("run");
    let chosen = || newest_valid(&run).map(|found| found.map(|resume| resume.path)).ok().flatten();
    assert_eq!(chosen().as_deref(), Some(&*work.path(EPOCH)));
    let is_used = |damaged: &Path| chosen().is_some_and(|path| path == damaged);
    let mut flips = [0, 0];
    let mut cuts = [0, 0];
    for name in work.files(EPOCH) {
        let path = work.path(&name);
        let whole = std::fs::read(&path).unwrap();
        let damage = |bytes: &[u8], counts: &mut [usize; 2]| {
            std::fs::write(&path, bytes).unwrap();
            counts[0] += 1;
            counts[1] += usize::from(!is_used(&work.path(EPOCH)));
        };
        for place in places(whole.len()) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            damage(&bytes, &mut flips);
            // The manifest's own last line break says nothing.
            if !(name.ends_with("manifest.json") && whole[place..] == *b"\n") {
                damage(&whole[..place], &mut cuts);
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(chosen().as_deref(), Some(&*work.path(EPOCH)), "put back, it is used again");
    common::say(&format!(
        "corruption: {} flips, {} detected; {} cuts, {} detected",
        flips[0], flips[1], cuts[0], cuts[1]
    ));
    assert!(flips[0] > 300 && flips[0] == flips[1] && cuts[0] == cuts[1], "{flips:?} {cuts:?}");
}

/// The same by commands: predict refuses the checkpoint by name, a resume says which it passes over and makes it again.
#[test]
fn a_damaged_checkpoint_is_refused_and_made_again_loudly() {
    let work = trained();
    let adapter = std::fs::read(work.path(EPOCH).join("adapter_model.safetensors")).unwrap();
    for name in ["adapter_model.safetensors", "cls_head.safetensors", "trainer.safetensors", "manifest.json"] {
        let path = work.path(EPOCH).join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        let told = work.run(&["predict", "--model", EPOCH, "--input", "data/test.jsonl", "--output", "out.jsonl"]);
        assert!(told.code == Some(4) && told.stderr.contains("epoch-02"), "{name}: {told:?}");
        assert!(!work.path("out.jsonl").exists(), "{name}");
        let resume = ["train", "--config", "demo.toml", "--run", "run", "--resume"];
        let told = common::outcome(work.command(&resume).args(TWO));
        assert!(told.code == Some(0) && told.stderr.contains("epoch-02"), "{name}: {told:?}");
        assert_eq!(std::fs::read(work.path(EPOCH).join("adapter_model.safetensors")).unwrap(), adapter, "{name}");
    }
}
