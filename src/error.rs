//! The one error type, its exit codes and its hints.
//!
//! A message says what is wrong and where (file, record, field); a hint says what to do next. Neither ever
//! holds text of a record: build messages from names, numbers and paths only.

use std::{fmt, io};

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as the process's exit code tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The run failed, or a gate was not met: exit 1.
    Run,
    /// Command line or configuration: exit 2.
    Usage,
    /// Input records: exit 3.
    Data,
    /// Model or checkpoint files: exit 4.
    Model,
    /// Memory, disk or device: exit 5.
    Resources,
    /// Stopped by this signal, state saved: exit 128 + signal.
    Signal(i32),
}

/// An error a user reads: a message, an optional `hint:`, and the exit code of its [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error of this kind with this message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The run failed or a gate was missed (exit 1).
    pub fn run(message: impl Into<String>) -> Self {
        Self::new(Kind::Run, message)
    }

    /// Wrong command line or configuration (exit 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Bad input records (exit 3).
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Kind::Data, message)
    }

    /// Bad model or checkpoint files (exit 4).
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::Model, message)
    }

    /// Not enough memory, disk or device (exit 5).
    pub fn resources(message: impl Into<String>) -> Self {
        Self::new(Kind::Resources, message)
    }

    /// What to do next, printed on its own line after `hint:`.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, for an error that has no hint of its own.
    #[must_use]
    pub fn or_hint(self, hint: impl Into<String>) -> Self {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    /// Puts `context: ` before the message, keeping kind and hint.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Which kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The hint, if one was given.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What to do next, as far as the kind of error tells it; for errors without a hint of their own.
    pub fn general_hint(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Usage => Some("`clsgen --help` lists commands and flags, configs/README.md the keys of a config"),
            Kind::Data => Some("mend that file and give the same command again: what is finished is kept"),
            Kind::Model => Some("fetch or copy that model's or checkpoint's files again, or name another"),
            Kind::Resources => Some("make room and give the same command again: what is finished is kept"),
            Kind::Run | Kind::Signal(_) => None,
        }
    }

    /// The process's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Run => 1,
            Kind::Usage => 2,
            Kind::Data => 3,
            Kind::Model => 4,
            Kind::Resources => 5,
            Kind::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A tensor operation refused its operands: a defect of ours or of the device, never of a record. Or the device's
/// memory is full.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        if text.contains("OUT_OF_MEMORY") || text.contains("out of memory") {
            return Self::resources(format!(
                "out of memory on the device: {}",
                text.lines().next().unwrap_or_default()
            ))
            .hint(
                "what is finished is kept: shorter windows, a smaller train.batch_size or \
                    generate.batch_tokens, or a larger GPU",
            );
        }
        Self::run(format!("tensor operation failed: {text}"))
    }
}

/// Adds context to any of our errors on its way up.
pub trait ResultExt<T> {
    /// Puts `context: ` before the error's message.
    fn context(self, context: impl fmt::Display) -> Result<T>;

    /// Gives the error this hint where it has none of its own.
    fn or_hint(self, hint: &str) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for Result<T, E> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.into().context(context))
    }

    fn or_hint(self, hint: &str) -> Result<T> {
        self.map_err(|e| e.into().or_hint(hint))
    }
}

/// The system's reason without Rust's ` (os error 28)`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let codes: Vec<u8> =
            [Kind::Run, Kind::Usage, Kind::Data, Kind::Model, Kind::Resources, Kind::Signal(2), Kind::Signal(15)]
                .into_iter()
                .map(|kind| Error::new(kind, "x").exit_code())
                .collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 130, 143]);
    }

    #[test]
    fn a_device_without_memory_is_a_lack_of_resources() {
        let of = |text: &str| Error::from(candle_core::Error::Msg(text.into()));
        assert_eq!(of("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")").exit_code(), 5);
        assert_eq!(of("shape mismatch").exit_code(), 1);
    }

    #[test]
    fn context_goes_in_front_and_keeps_hint_and_kind() {
        let result: Result<()> = Err(Error::data("label is 7").hint("labels are 0 or 1"));
        let error = result.context("train.csv, record 3").unwrap_err();
        assert_eq!(error.to_string(), "train.csv, record 3: label is 7");
        assert_eq!((error.hint_text(), error.exit_code()), (Some("labels are 0 or 1"), 3));
        assert_eq!(error.or_hint("another").hint_text(), Some("labels are 0 or 1"));
        assert_eq!(Error::data("label is 7").or_hint("labels are 0 or 1").hint_text(), Some("labels are 0 or 1"));
    }
}
