//! Evidence: which words of an explanation stand in the record, where, and which quotes are invented.
//!
//! A quote is text in quotation marks of at least three words (`words.rs` says what both are); a span is at least six
//! words in a row. Texts are compared word by word: case, punctuation, blanks and Unicode's ways of writing the same
//! letter do not count. In this order:
//!
//! 1. A quote all of whose words stand in a row in one field is evidence.
//! 2. Of the words between those quotes, from left to right: the longest stretch from a word on that stands in a row in
//!    one field is evidence if it has six words, and the search goes on behind it; else it goes on with the next word.
//! 3. A quote that is not evidence as a whole is invented. What of it lies in a stretch of step 2 is found none the
//!    less.
//!
//! Of several places the first counts, fields in the order of their names. Places are code points of the whole field,
//! from the beginning of the first word to the end of the last. No text is kept.

mod index;
mod words;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use self::{
    index::{Index, QuotedSpan},
    words::{Word, quotes, words},
};
use super::Metric;

/// Words of a quote at least.
const QUOTE: usize = 3;
/// Words of a span without quotation marks at least.
const SPAN: usize = 6;

/// An entry of `evidence` in a prediction line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The field that holds it; null for an invented quote.
    pub field: Option<String>,
    /// Where it begins there, in code points; null likewise.
    pub start: Option<usize>,
    /// Where it ends there.
    pub end: Option<usize>,
    /// Where it begins in the explanation, in code points.
    pub explanation_start: usize,
    /// Where it ends there.
    pub explanation_end: usize,
    /// Whether it stands in quotation marks.
    pub quoted: bool,
    /// Its words.
    pub words: usize,
    /// How many of them stand in the record.
    pub found: usize,
}

/// `evidence` in `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceMetrics {
    /// Share of the explanations that hold a quote or a span that stands in the record.
    pub with_evidence: Metric,
    /// Share of the words in quotation marks (of at least three) that stand in the record.
    pub quoted_words: Metric,
}

impl EvidenceMetrics {
    /// Every metric with its key, in the order of the tables.
    pub fn named(&self) -> [(&'static str, &Metric); 2] {
        [("with_evidence", &self.with_evidence), ("quoted_words", &self.quoted_words)]
    }
}

/// What of `explanation` stands in these fields, by name and text in the order of their names.
///
/// ```
/// use clsgen::metrics::evidence::find;
/// let note = "Pt. denies chest pain. Lungs clear to auscultation on both sides.";
/// let said = "He \"denies chest pain\", and lungs  CLEAR to auscultation on both sides; \"a fall last night\".";
/// let found = find([("text", note)], said);
/// let told: Vec<_> = found.iter().map(|e| (e.start, e.end, e.quoted, e.words, e.found)).collect();
/// assert_eq!(told, [(Some(4), Some(21), true, 3, 3), (Some(23), Some(64), false, 7, 7), (None, None, true, 4, 0)]);
/// ```
pub fn find<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>, explanation: &str) -> Vec<Evidence> {
    let said = words(explanation);
    let index = Index::new(fields);
    let ids: Vec<u32> = said.iter().map(|word| index.id(&word.text)).collect();
    let mut found = Vec::new();
    let mut invented = Vec::new();
    // Where whole quotes end the search for spans.
    let mut taken: Vec<Range<usize>> = Vec::new();
    for quote in quotes(explanation) {
        let first = said.partition_point(|word| word.start < quote.start);
        let last = said.partition_point(|word| word.end <= quote.end);
        if last < first + QUOTE {
            continue;
        }
        match index.place(&ids[first..last]) {
            Some(place) => {
                found.push(entry(&said[first..last], Some(&place), true));
                taken.push(first..last);
            }
            None => invented.push(first..last),
        }
    }
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut begin = 0;
    for end in taken.iter().map(|quote| quote.start).chain([said.len()]) {
        let mut at = begin;
        while at + SPAN <= end {
            match index.longest(&ids[at..end], SPAN) {
                Some((length, place)) => {
                    found.push(entry(&said[at..at + length], Some(&place), false));
                    spans.push(at..at + length);
                    at += length;
                }
                None => at += 1,
            }
        }
        begin = taken.iter().find(|quote| quote.start == end).map_or(end, |quote| quote.end);
    }
    for quote in invented {
        let shared = |span: &Range<usize>| span.end.min(quote.end).saturating_sub(span.start.max(quote.start));
        let within = spans.iter().map(shared).sum();
        found.push(Evidence { found: within, ..entry(&said[quote], None, true) });
    }
    found.sort_by_key(|evidence| (evidence.explanation_start, !evidence.quoted));
    found
}

/// These words of the explanation, and where they stand.
fn entry(said: &[Word], place: Option<&QuotedSpan<'_>>, quoted: bool) -> Evidence {
    Evidence {
        field: place.map(|place| place.field.to_owned()),
        start: place.map(|place| place.start),
        end: place.map(|place| place.end),
        explanation_start: said.first().map_or(0, |word| word.start),
        explanation_end: said.last().map_or(0, |word| word.end),
        quoted,
        words: said.len(),
        found: if place.is_some() { said.len() } else { 0 },
    }
}
