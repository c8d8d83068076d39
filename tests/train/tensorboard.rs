//! TensorBoard's event file, frame by frame.

use clsgen::train::tensorboard::Event;
use prost::Message;

use crate::fixture::Fixture;

#[test]
fn tensorboard_shows_every_step_with_whole_checksums() {
    let fixture = Fixture::new();
    fixture.succeed("run", &[]);
    let file = std::fs::read_dir(fixture.path("run/tensorboard")).unwrap().next().unwrap().unwrap();
    assert!(file.file_name().to_str().unwrap().contains("tfevents"));
    let events = events(&std::fs::read(file.path()).unwrap());
    assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
    let steps: Vec<i64> = events.iter().filter(|e| has(e, "train/loss")).map(|e| e.step).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    assert_eq!(events.iter().filter(|e| has(e, "dev/auroc")).count(), 2);
    let first = events.iter().find(|e| has(e, "train/loss")).unwrap();
    let loss = first.summary.as_ref().unwrap().value.iter().find(|v| v.tag == "train/loss").unwrap().simple_value;
    assert!((f64::from(loss) - fixture.log("run", "step")[0]["loss"].as_f64().unwrap()).abs() < 1e-6);
}

fn has(event: &Event, tag: &str) -> bool {
    event.summary.as_ref().is_some_and(|summary| summary.value.iter().any(|value| value.tag == tag))
}

/// TFRecord frames, their checksums verified.
fn events(mut bytes: &[u8]) -> Vec<Event> {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8);
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(word(&bytes[8..]), masked(&bytes[..8]));
        let data = &bytes[12..12 + length];
        assert_eq!(word(&bytes[12 + length..]), masked(data));
        events.push(Event::decode(data).unwrap());
        bytes = &bytes[16 + length..];
    }
    events
}
