//! Synthetic discharge notes: no patient's data, and a true probability of death known for each.
//!
//! A patient is drawn, then its risk `p = sigmoid(intercept + Σ terms)`, then its label from `p`, then a note that
//! carries a trace of every term among negations, distractors and filler. The intercept is set by the prevalence.
//! Everything is a function of (seed, index) through the NOTES stream.

mod draws;
mod explain;
mod filler;
mod note;
mod patient;
mod scenarios;
mod typos;
mod words;

pub use explain::{Explainer, Mistake, TeacherAnswer};
pub use patient::Term;

use crate::{data::Record, labels::Class};
use draws::Draws;
use patient::{Patient, sigmoid};

/// What the notes are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoteSettings {
    /// Words of a note, on average; each varies by a fifth. The risk-bearing part alone takes about 200.
    pub words: usize,
    /// Mean risk of death.
    pub prevalence: f64,
    /// Chance that a longer word is misspelt.
    pub typos: f64,
}

impl Default for NoteSettings {
    fn default() -> Self {
        Self { words: 400, prevalence: 0.25, typos: 0.004 }
    }
}

/// A note, its label, and what only its maker knows.
#[derive(Clone)]
pub struct SyntheticNote {
    /// The record: id, text, label.
    pub record: Record,
    /// The probability its label was drawn with.
    pub probability: f64,
    /// The summands of the risk.
    pub terms: Vec<Term>,
    /// Why the patient came.
    pub diagnosis: &'static str,
    /// Its place in the sequence.
    pub index: u64,
}

/// An endless sequence of notes, each reachable by its index.
#[derive(Debug, Clone, Copy)]
pub struct Notes {
    seed: u64,
    settings: NoteSettings,
    intercept: f64,
}

impl Notes {
    /// The sequence of this seed.
    pub fn new(seed: u64, settings: NoteSettings) -> Self {
        let prevalence = settings.prevalence.clamp(1e-4, 1.0 - 1e-4);
        Self { seed, settings, intercept: patient::intercept(prevalence) }
    }

    /// The note at `index` (below 2^62).
    pub fn note(&self, index: u64) -> SyntheticNote {
        let mut draws = Draws::new(self.seed, index, 0);
        let patient = Patient::draw(&mut draws);
        let probability = sigmoid(self.intercept + patient.score());
        let label = if draws.chance(probability) { Class::ONE } else { Class::ZERO };
        let words = (self.settings.words as f64 * (0.8 + 0.4 * draws.uniform())) as usize;
        let text = note::write(&patient, words, &mut draws);
        let text = typos::misspell(&text, self.settings.typos, &mut draws);
        let record = Record {
            id: format!("note-{index:06}"),
            fields: [("text".to_owned(), text)].into(),
            label: Some(label),
            explanation: None,
            group: None,
            columns: [].into(),
            number: usize::try_from(index).map_or(usize::MAX, |index| index.saturating_add(1)),
            line: None,
        };
        SyntheticNote { record, probability, terms: patient.terms(), diagnosis: patient.scenario().diagnosis, index }
    }

    /// The notes of a range, with record numbers that count from 1.
    pub fn range(&self, range: std::ops::Range<u64>) -> Vec<SyntheticNote> {
        let mut notes: Vec<SyntheticNote> = range.map(|index| self.note(index)).collect();
        notes.iter_mut().enumerate().for_each(|(i, note)| note.record.number = i + 1);
        notes
    }
}

#[cfg(test)]
mod tests;
