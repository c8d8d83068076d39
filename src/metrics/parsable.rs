//! The share of records whose text could be parsed, and why what is over the parsable records is undefined.

use super::Outcome;

pub(super) const NO_RECORD: &str = "no record";
const SILENT: &str = "the predictions hold no generated text";

/// Why a statistic over the parsable records is undefined when there is none: of no records at all, or of records of
/// which no text was generated (`silent`).
pub(super) fn nothing_parsable(is_empty: bool, silent: bool) -> &'static str {
    match (is_empty, silent) {
        (true, _) => NO_RECORD,
        (_, true) => SILENT,
        _ => "no generated text could be parsed",
    }
}

/// The parsable rate; `verbalized` has an entry a record, `None` where its text is unparsable.
pub(super) fn rate<L>(verbalized: &[Option<L>], silent: bool, weights: &[u32]) -> Outcome {
    let part = |keep: fn(&Option<L>) -> bool| {
        // From +0: the standard library's empty sum is -0, and so would be the rate.
        verbalized.iter().zip(weights).filter(|(label, _)| keep(label)).fold(0.0, |sum, (_, &w)| sum + f64::from(w))
    };
    match (verbalized.is_empty(), silent) {
        (true, _) => Err(NO_RECORD),
        (_, true) => Err(SILENT),
        _ => Ok(part(Option::is_some) / part(|_| true)),
    }
}
