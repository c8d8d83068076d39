//! What the notes promise: the same for a seed, different from each other, learnable, and right about their risk.

use std::collections::HashSet;

use super::{typos::misspell, *};
use crate::labels::Labels;

fn notes(count: u64, settings: NoteSettings) -> Vec<SyntheticNote> {
    Notes::new(42, settings).range(0..count)
}

fn text(note: &SyntheticNote) -> &str {
    note.record.field("text").unwrap()
}

fn explainer(mistakes: f64) -> Explainer {
    Explainer { seed: 42, labels: Labels::two("0:alive", "1:death"), mistakes, thinks: false }
}

/// The AUROC that the true probability reaches on average: P(a dead patient's is higher), over all pairs.
fn expected_auroc(notes: &[SyntheticNote]) -> f64 {
    let mut wins = 0.0;
    let mut pairs = 0.0;
    for a in notes {
        for b in notes {
            let weight = a.probability * (1.0 - b.probability);
            pairs += weight;
            wins += weight
                * if a.probability > b.probability {
                    1.0
                } else if a.probability == b.probability {
                    0.5
                } else {
                    0.0
                };
        }
    }
    wins / pairs
}

#[test]
fn a_note_is_a_function_of_seed_and_index() {
    let notes = Notes::new(7, NoteSettings::default());
    let first = notes.note(123);
    let again = Notes::new(7, NoteSettings::default()).range(120..125).remove(3);
    assert_eq!(
        (text(&first), first.probability, first.record.label),
        (text(&again), again.probability, again.record.label)
    );
    assert_ne!(text(&first), text(&notes.note(124)));
    assert_ne!(text(&first), text(&Notes::new(8, NoteSettings::default()).note(123)));
}

#[test]
fn no_two_notes_are_equal() {
    let notes = notes(2000, NoteSettings { words: 200, ..NoteSettings::default() });
    assert_eq!(notes.iter().map(text).collect::<HashSet<_>>().len(), 2000);
    assert_eq!(notes.iter().map(|note| note.record.id.as_str()).collect::<HashSet<_>>().len(), 2000);
}

#[test]
fn prevalence_is_the_one_asked_for() {
    for prevalence in [0.04, 0.25, 0.5] {
        let notes = notes(3000, NoteSettings { words: 0, prevalence, ..NoteSettings::default() });
        let dead = notes.iter().filter(|note| note.record.label == Some(Class::ONE)).count() as f64 / 3000.0;
        let mean = notes.iter().map(|note| note.probability).sum::<f64>() / 3000.0;
        assert!(
            (dead - prevalence).abs() < 4.0 * (prevalence * (1.0 - prevalence) / 3000.0).sqrt(),
            "{dead} for {prevalence}"
        );
        assert!((mean - prevalence).abs() < 0.02, "{mean} for {prevalence}");
    }
}

#[test]
fn the_best_reachable_auroc_leaves_room_and_is_worth_reaching() {
    for prevalence in [0.04, 0.25] {
        let auroc = expected_auroc(&notes(1500, NoteSettings { words: 0, prevalence, ..NoteSettings::default() }));
        assert!((0.8..0.97).contains(&auroc), "{auroc} at prevalence {prevalence}");
    }
}

#[test]
fn length_follows_its_parameter() {
    for words in [200, 400, 800, 1500] {
        let notes = notes(60, NoteSettings { words, ..NoteSettings::default() });
        let lengths: Vec<usize> = notes.iter().map(|note| text(note).split_whitespace().count()).collect();
        let mean = lengths.iter().sum::<usize>() as f64 / 60.0;
        assert!((mean / words as f64 - 1.0).abs() < 0.12, "mean {mean} for {words}: {lengths:?}");
        assert!(lengths.iter().all(|&length| length >= 150), "{lengths:?}");
    }
}

#[test]
fn every_term_leaves_its_trace_and_no_placeholder_stays() {
    let settings = NoteSettings { typos: 0.0, ..NoteSettings::default() };
    for note in notes(300, settings) {
        let text = text(&note);
        assert!(!text.contains('{') && !text.contains('}'));
        for section in [
            "History of Present Illness:",
            "Pertinent Results:",
            "Brief Hospital Course:",
            "Discharge Medications:",
            "Discharge Disposition:",
        ] {
            assert!(text.contains(section), "{section}");
        }
        for term in &note.terms {
            if let Some(albumin) = term.name.strip_prefix("a serum albumin of ") {
                assert!(text.contains(&format!("Albumin-{albumin}")));
            }
            if let Some(age) = term.name.strip_prefix("an age of ") {
                assert!(text.contains(age));
            }
            if let Some(finding) = words::FINDINGS.iter().find(|finding| finding.name == term.name) {
                // Compared by the words after the last placeholder, which the writer leaves as they are.
                let end_stands = |sentence: &&str| text.contains(sentence.rsplit('}').next().unwrap());
                assert!(finding.stated.iter().any(end_stands), "{}", term.name);
            }
        }
    }
}

#[test]
fn a_rationale_argues_with_the_notes_own_findings() {
    for note in notes(200, NoteSettings::default()) {
        for class in [Class::ZERO, Class::ONE] {
            let rationale = explainer(0.0).rationale(&note, class, 0);
            assert!(rationale.split_whitespace().count() >= 12 && rationale.ends_with('.'), "{rationale}");
            let openings = [["Minimal", "Low", "Modest"], ["Raised", "High", "Grave"]][class.index()];
            assert!(openings.iter().any(|opening| rationale.starts_with(&format!("{opening} risk. "))), "{rationale}");
            let absent =
                words::FINDINGS.iter().filter(|finding| note.terms.iter().all(|term| term.name != finding.name));
            assert!(absent.clone().all(|finding| !rationale.contains(finding.name)), "{rationale}");
        }
    }
}

#[test]
fn the_teacher_is_mostly_right_sometimes_wrong_and_makes_every_mistake() {
    let notes = notes(1000, NoteSettings { words: 0, ..NoteSettings::default() });
    let right = notes.iter().filter(|note| explainer(0.0).answer(note, 0).label == note.record.label).count();
    assert!((700..970).contains(&right), "{right}");
    let answers: Vec<TeacherAnswer> = notes.iter().map(|note| explainer(0.5).answer(note, 1)).collect();
    let mistakes: HashSet<String> = answers.iter().map(|answer| format!("{:?}", answer.mistake)).collect();
    assert_eq!(mistakes.len(), 7, "{mistakes:?}");
    for answer in &answers {
        let verdict =
            answer.text.lines().filter(|line| line.starts_with("Classification: ")).map(|line| &line[16..]).next_back();
        let named = ["0:alive", "1:death"].iter().position(|label| Some(*label) == verdict).and_then(Class::new);
        assert_eq!(named, answer.label);
    }
    let first = &notes[0];
    assert_eq!(explainer(0.5).answer(first, 3).text, explainer(0.5).answer(first, 3).text);
    let texts: HashSet<String> = (0..8).map(|trial| explainer(0.0).answer(first, trial).text).collect();
    assert!(texts.len() > 3);
    let thinking = Explainer { thinks: true, ..explainer(0.0) }.answer(first, 0).text;
    assert!(thinking.starts_with("<think>\n") && thinking.contains("\n</think>\n\n"));
}

#[test]
fn typos_touch_long_words_only_and_are_rare_or_sure() {
    let text = "BP 120/80, metastatic disease; caf\u{e9} na\u{ef}ve 12345678 the end";
    assert_eq!(misspell(text, 0.0, &mut Draws::new(1, 1, 0)), text);
    let wrong = misspell(text, 1.0, &mut Draws::new(1, 1, 0));
    assert!(wrong.starts_with("BP 120/80, ") && wrong.ends_with(" caf\u{e9} na\u{ef}ve 12345678 the end"), "{wrong}");
    assert!(!wrong.contains("metastatic disease"));
}
