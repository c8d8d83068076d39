//! TensorBoard event files: length-prefixed, checksummed protobuf records (TFRecord).
//!
//! ```text
//! u64 length · u32 masked crc32c(length) · bytes · u32 masked crc32c(bytes)
//! masked = rotate_right(crc, 15) + 0xa282ead8
//! ```
//!
//! A process writes a file of its own; after a resume its first event says `SESSION START` at the step it starts from
//! (the one after its checkpoint's), and TensorBoard then hides what earlier files hold from there on.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;

use crate::{error::Result, storage};

/// `tensorflow.Event`, the fields we write.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since the epoch.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// Optimizer step.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// Written once, at the head of a file.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    /// Scalars.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
    /// Start of a process.
    #[prost(message, optional, tag = "7")]
    pub session_log: Option<SessionLog>,
}

/// `tensorflow.Summary`
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// The scalars of this event.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// `tensorflow.Summary.Value`
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// Name of the series.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// The scalar.
    #[prost(float, tag = "2")]
    pub simple_value: f32,
}

/// `tensorflow.SessionLog`
#[derive(Clone, PartialEq, Message)]
pub struct SessionLog {
    /// 1 = START.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// Writes events; a record is flushed whole.
#[derive(Debug)]
pub struct EventWriter {
    file: storage::Writer,
}

impl EventWriter {
    /// A new event file in `dir`, for a process whose first step is `first_step`.
    pub fn create(dir: &Path, first_step: usize) -> Result<Self> {
        storage::create_dir_all(dir)?;
        let now = wall_time();
        let process = std::process::id();
        // Names end in a count, so that a second start within a second does not truncate the first file.
        let path = (0u32..)
            .map(|count| dir.join(format!("events.out.tfevents.{:010}.clsgen.{process}.{count}", now as u64)))
            .find(|path| !path.exists())
            .unwrap_or_else(|| dir.join("events.out.tfevents"));
        let mut writer = Self { file: storage::create(&path)? };
        writer.write(&Event { wall_time: now, file_version: Some("brain.Event:2".into()), ..Event::default() })?;
        let start = Event {
            wall_time: now,
            step: first_step as i64,
            session_log: Some(SessionLog { status: 1 }),
            ..Event::default()
        };
        writer.write(&start)?;
        Ok(writer)
    }

    /// Writes the scalars that are defined.
    pub fn scalars(&mut self, step: usize, scalars: &[(&str, Option<f64>)]) -> Result<()> {
        let value =
            |(tag, value): &(&str, Option<f64>)| value.map(|v| Value { tag: (*tag).into(), simple_value: v as f32 });
        let summary = Summary { value: scalars.iter().filter_map(value).collect() };
        self.write(&Event { wall_time: wall_time(), step: step as i64, summary: Some(summary), ..Event::default() })
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        self.file.put(&tf_record(&event.encode_to_vec()))?;
        self.file.flush_file()
    }
}

/// One TFRecord around `bytes`.
fn tf_record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(bytes);
    record.extend_from_slice(&masked_crc(bytes).to_le_bytes());
    record
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tensorboard.compat.tensorflow_stub` wrote these 40 bytes for
    /// `Event(wall_time=1.0, file_version="brain.Event:2")`.
    #[test]
    fn a_record_is_framed_as_tensorboard_frames_it() {
        let event = Event { wall_time: 1.0, file_version: Some("brain.Event:2".into()), ..Event::default() };
        let record = tf_record(&event.encode_to_vec());
        assert_eq!(record[..8], 24u64.to_le_bytes());
        assert_eq!(record.len(), 24 + 16);
        assert_eq!(&record[12..36], b"\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x1a\x0dbrain.Event:2");
        assert_eq!(record[36..], [0x86, 0xbf, 0x57, 0x7a]);
        assert_eq!(record[8..12], [0xa3, 0x7f, 0x4b, 0x22], "the length's checksum, as in every TensorFlow event file");
    }
}
