//! Explanations by rules, with the mistakes that a language model makes: material for a tiny teacher.

use super::{SyntheticNote, draws::Draws, words::FINDINGS};
use crate::{
    labels::{Class, Labels},
    metrics::calibration::logit,
    prompt::Verdict,
};

/// Draws of trial t start here, past any draw of the note itself.
const TRIAL: u64 = 1 << 20;
/// The judgement is the true log-odds plus logistic noise divided by this: 1 would be the patient's own fate again.
const SHARPNESS: f64 = 3.0;
/// Log-odds of a judgement that leans to one side for the sake of argument.
const BORDERLINE: f64 = 0.75;

/// How a teacher's answer goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// Argues with a finding the patient does not have.
    Invented,
    /// Argues for one class and names the other.
    Contradicts,
    /// Never comes to a verdict.
    NoVerdict,
    /// Names a class in words that are not a label.
    WrongLabel,
    /// Says the same sentence again and again.
    Repeats,
    /// Stops inside the verdict.
    CutOff,
}

const MISTAKES: [Mistake; 6] = [
    Mistake::Invented,
    Mistake::Contradicts,
    Mistake::NoVerdict,
    Mistake::WrongLabel,
    Mistake::Repeats,
    Mistake::CutOff,
];

/// An answer of the rule-based teacher.
#[derive(Clone, PartialEq)]
pub struct TeacherAnswer {
    /// What it wrote: explanation, blank line, verdict.
    pub text: String,
    /// The class that its verdict line names, if it has one.
    pub label: Option<Class>,
    /// What is wrong with it, if anything.
    pub mistake: Option<Mistake>,
}

/// Writes explanations of synthetic notes.
#[derive(Debug, Clone)]
pub struct Explainer {
    /// Seed of its draws.
    pub seed: u64,
    /// What it calls survival and death.
    pub labels: Labels,
    /// How often an answer has a [`Mistake`].
    pub mistakes: f64,
    /// Put the reasoning between `<think>` and `</think>` first, as a reasoning model does.
    pub thinks: bool,
}

impl Explainer {
    /// An explanation that argues for `class` from the note's own findings, without a mistake.
    pub fn rationale(&self, note: &SyntheticNote, class: Class, trial: u64) -> String {
        let mut draws = self.draws(note, trial);
        let judged = logit(note.probability);
        let judged = if class == Class::ONE { judged.max(BORDERLINE) } else { judged.min(-BORDERLINE) };
        argue(note, judged, None, &mut draws)
    }

    /// What the teacher answers in trial `trial`: a judgement drawn from the true risk, right or wrong, argued for.
    pub fn answer(&self, note: &SyntheticNote, trial: u64) -> TeacherAnswer {
        let mut draws = self.draws(note, trial);
        // Closer to the risk than one patient's fate is, as a teacher that reads well would judge.
        let judged = logit(note.probability) + logit(draws.uniform()) / SHARPNESS;
        let mistake = draws.chance(self.mistakes).then(|| MISTAKES[draws.below(MISTAKES.len())]);
        let invented = (mistake == Some(Mistake::Invented)).then(|| absent(note, &mut draws)).flatten();
        let explanation = argue(note, judged, invented, &mut draws);
        let dies = (judged > 0.0) != (mistake == Some(Mistake::Contradicts));
        let named = if dies { Class::ONE } else { Class::ZERO };
        let closing = Verdict::default().closing(&self.labels[named.index()]);
        let verdict = format!("{explanation}{closing}");
        let (text, label) = match mistake {
            Some(Mistake::NoVerdict) => (explanation, None),
            Some(Mistake::WrongLabel) => (
                format!(
                    "{explanation}{}",
                    Verdict::default().closing(if dies { "likely mortality" } else { "likely survival" })
                ),
                None,
            ),
            Some(Mistake::CutOff) => (format!("{explanation}\n\nClassif"), None),
            Some(Mistake::Repeats) => {
                let last = explanation.rsplit(". ").next().unwrap_or_default().to_owned();
                (format!("{explanation} {last} {last} {last}{closing}"), Some(named))
            }
            _ => (verdict, Some(named)),
        };
        let thoughts =
            if self.thinks { format!("<think>\n{}\n</think>\n\n", think(note, &mut draws)) } else { String::new() };
        TeacherAnswer { text: thoughts + &text, label, mistake }
    }

    fn draws(&self, note: &SyntheticNote, trial: u64) -> Draws {
        Draws::new(self.seed, note.index, (1 + trial) * TRIAL)
    }
}

/// The name of a finding that the patient does not have.
fn absent(note: &SyntheticNote, draws: &mut Draws) -> Option<&'static str> {
    let names: Vec<&str> = FINDINGS
        .iter()
        .map(|finding| finding.name)
        .filter(|name| note.terms.iter().all(|term| term.name != *name))
        .collect();
    names.get(draws.below(names.len())).copied()
}

/// Names of the terms that speak for a class, strongest first.
fn reasons(note: &SyntheticNote, dies: bool) -> Vec<&str> {
    let sign = if dies { 1.0 } else { -1.0 };
    let mut terms: Vec<_> = note.terms.iter().filter(|term| term.weight * sign > 0.0).collect();
    terms.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    terms.into_iter().map(|term| term.name.as_str()).collect()
}

/// "a", "a and b", "a, b and c".
fn joined(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).into(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

/// The opening words, by the judged log-odds. They are what the hidden state before the answer has to foresee, so a
/// model pretrained on such answers reads the whole note before it writes.
fn impression(judged: f64) -> &'static str {
    match judged {
        j if j < -3.0 => "Minimal",
        j if j < -1.5 => "Low",
        j if j <= 0.0 => "Modest",
        j if j <= 1.5 => "Raised",
        j if j <= 3.0 => "High",
        _ => "Grave",
    }
}

/// Argues for the class on the judgement's side of even odds.
fn argue(note: &SyntheticNote, judged: f64, invented: Option<&'static str>, draws: &mut Draws) -> String {
    let dies = judged > 0.0;
    let mut sentences = vec![format!(
        "{} risk. {} {}.",
        impression(judged),
        draws.pick(&["The patient was admitted with", "This admission was for", "The main problem was"]),
        note.diagnosis
    )];
    let mut own = reasons(note, dies);
    let other = reasons(note, !dies);
    own.truncate(2 + draws.below(2));
    own.extend(invented);
    let verb = draws.pick(if dies {
        &["The risk is raised by", "Factors that point to a poor outcome are", "Of most concern are"]
    } else {
        &["The outlook is helped by", "Factors that point to survival are", "Reassuring are"]
    });
    sentences.push(match (own.is_empty(), dies) {
        (false, _) => format!("{verb} {}.", joined(&own)),
        (true, true) => "Though single findings are mild, the overall picture is worrying.".into(),
        (true, false) => "Few findings speak for survival, but none is decisive.".into(),
    });
    if !other.is_empty() && draws.chance(0.7) {
        let contrast = draws.pick(&["On the other hand there is", "This is weighed against", "Against this stands"]);
        sentences.push(format!("{contrast} {}.", joined(&other[..other.len().min(2)])));
    }
    let overall = draws.pick(if dies {
        &[
            "Overall the risk of death within 30 days is high.",
            "Taken together, death after discharge is likely.",
            "On balance the prognosis is poor.",
        ]
    } else {
        &[
            "Overall the risk of death within 30 days is low.",
            "Taken together, survival is likely.",
            "On balance the prognosis is good.",
        ]
    });
    sentences.push(overall.into());
    sentences.join(" ")
}

/// Rambling before the answer: every term in a drawn order.
fn think(note: &SyntheticNote, draws: &mut Draws) -> String {
    let order = draws.order(note.terms.len());
    let weigh = |place: usize| {
        let term = &note.terms[place];
        format!("There is {}, which {} the risk.", term.name, if term.weight > 0.0 { "raises" } else { "lowers" })
    };
    format!("Let me read the note. {} Let me decide.", order.into_iter().map(weigh).collect::<Vec<_>>().join(" "))
}
