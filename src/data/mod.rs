//! Records in, predictions out: readers, splits, leakage. Layer 2.
//!
//! ```text
//! path ─▶ open (format, columns) ─▶ rows of cells ─▶ Columns::read ─▶ Record
//!                                   jsonl csv parquet lcd             ├▶ load:   a split, every problem listed
//!                                                                     └▶ stream: one by one, bad ones are items
//! MIMIC-IV-Note ─▶ mimic ─▶ the LCD benchmark's files
//! ```

mod annotation;
mod columns;
mod csv;
mod jsonl;
mod lcd;
mod leakage;
mod load;
pub mod mimic;
mod names;
mod open;
mod parquet;
pub mod prediction;
mod predictions;
mod problems;
mod record;
mod row;

pub use leakage::{LeakageReport, PairLeakage, leakage};
pub use load::{Needs, RecordStream, load, load_canonical, source_hash, source_hash_of, stream, stream_after};
pub(crate) use open::unreadable;
pub use prediction::{Finish, OverClasses, Prediction, PredictionError};
pub use predictions::{Predictions, display_path};
pub use record::{ErrorKind, Record, RecordError};

#[cfg(test)]
mod parquet_tests;
#[cfg(test)]
mod prediction_tests;
#[cfg(test)]
mod tests;
