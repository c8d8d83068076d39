//! What others wrote, taken with suspicion: files, names in our messages, the libraries that read them. Layer 0.
//!
//! A model folder is a download. Whatever lies in it, the answer is a refusal that names the file: never a wait without
//! end, a panic, or a terminal that obeys an escape sequence.

mod caught;
mod file;
mod name;

pub use caught::{caught, is_caught};
pub use file::{LARGE, LOG, SMALL, check, is_endless, is_within, open, read, read_text};
pub use name::{name, names, printable, reason};
