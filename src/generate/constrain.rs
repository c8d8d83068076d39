//! Constrained decoding of the closing `Classification: <label>` line: with it, every answer parses.
//!
//! The explanation is written freely. The line is forced (a) when the model would stop without it, (b) when only just
//! enough tokens are left for it, and (c) from the moment the model itself has written `Classification:` at the start
//! of a line (or how else the prompt file's `verdict` opens). On that line the model chooses among the labels' own
//! token sequences and nothing else; once a single label is left, the rest of the target's tail (`<label>\n\n` and the
//! end-of-turn token) follows without further passes.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    labels::Labels,
    ops::sample,
    prompt::{Prompter, TextTokenizer, Verdict},
};

/// How the line is written in one tokenizer, for one task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Constraint {
    labels: Labels,
    verdict: Verdict,
    /// ` <label>` of each class, as it stands after [`Verdict::opening`].
    endings: Vec<String>,
    prefix: String,
    /// `tails[class][n]`: tokens of ` <label>\n\n` + end of turn, after the first `n` bytes of ` <label>` were written.
    tails: Vec<Vec<Option<Vec<u32>>>>,
    /// Tokens of the whole closing of each class, from the blank line on.
    closings: Vec<Vec<u32>>,
    /// Tokens that must be left for the longest of them.
    reserve: usize,
}

/// Where one row stands.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The closings still possible and how many of their tokens are written; empty while the explanation is open.
    closing: Vec<Vec<u32>>,
    written: usize,
}

/// What a row does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Append this token and go on.
    Token(u32),
    /// Append these tokens, the last of which ends the turn, and stop.
    Close(Vec<u32>),
}

/// What the choice of a token depends on besides the row's state.
#[derive(Clone, Copy)]
pub struct Draw<'a> {
    /// The row's logits and how a token is drawn from them.
    pub row: sample::RowLogits<'a>,
    /// Tokens the cap still allows.
    pub remaining: usize,
}

impl Constraint {
    /// The closings of what `prompter` asks for; fails (exit 4) where its tokenizer cannot write a line that parses.
    pub fn new(prompter: &Prompter) -> Result<Self> {
        Self::of(prompter.tokenizer(), prompter.labels(), prompter.verdict(), &prompter.template().prefix)
    }

    pub(super) fn of(tokenizer: &TextTokenizer, labels: &Labels, verdict: &Verdict, prefix: &str) -> Result<Self> {
        // The ids of `rest` and the end of turn, which behind `written` name the class.
        let completed = |class: usize, written: &str, rest: &str| -> Result<Vec<u32>> {
            let mut ids = tokenizer.encode_within(rest)?;
            let whole = [&tokenizer.encode_within(written)?[..], &ids].concat();
            if verdict.parse(&tokenizer.decode(&whole)?, labels, prefix).label != labels.class(class) {
                return Err(Error::model(format!(
                    "constrained decoding: the tokenizer cannot write the verdict line of class {class}"
                ))
                .hint("set generate.constrain = false"));
            }
            ids.push(tokenizer.eog());
            Ok(ids)
        };
        let endings: Vec<String> = labels.iter().map(|label| verdict.ending(label)).collect();
        let closing = |(class, label): (usize, &String)| completed(class, "x", &verdict.closing(label));
        let closings = labels.iter().enumerate().map(closing).collect::<Result<Vec<_>>>()?;
        let tails = |(class, ending): (usize, &String)| -> Result<Vec<Option<Vec<u32>>>> {
            let opened = format!("x\n\n{}", verdict.opening());
            let tail = |n| {
                ending.split_at_checked(n).map(|(a, b)| completed(class, &format!("{opened}{a}"), &format!("{b}\n\n")))
            };
            (0..=ending.len()).map(|n| tail(n).transpose()).collect()
        };
        let tails = endings.iter().enumerate().map(tails).collect::<Result<Vec<_>>>()?;
        let reserve = tails.iter().flatten().flatten().chain(&closings).map(Vec::len).max().unwrap_or(0);
        Ok(Self {
            labels: labels.clone(),
            verdict: verdict.clone(),
            endings,
            prefix: prefix.to_owned(),
            tails,
            closings,
            reserve,
        })
    }

    /// The fewest new tokens an answer can have: one of explanation and the closing.
    pub fn min_new_tokens(&self) -> usize {
        self.reserve + 1
    }

    /// What follows `ids`. An error when the logits hold no number.
    pub fn next(&self, state: &mut State, ids: &[u32], draw: Draw<'_>, tokenizer: &TextTokenizer) -> Result<Next> {
        if state.closing.is_empty() && draw.remaining > self.reserve {
            match self.explain(ids, draw.row, tokenizer)? {
                Free::Token(id) => return Ok(Next::Token(id)),
                Free::Header(id, tails) => {
                    *state = State { closing: tails, written: 0 };
                    return Ok(Next::Token(id));
                }
                Free::Stop => {}
            }
        }
        if state.closing.is_empty() {
            state.closing.clone_from(&self.closings);
        }
        close(state, draw.row)
    }

    /// A token of the explanation. Refused, and chosen again without it: a token that would leave the explanation
    /// empty (a stop at once, blanks alone, nothing but the prefix once more, a verdict line with nothing before it).
    fn explain(&self, ids: &[u32], row: sample::RowLogits<'_>, tokenizer: &TextTokenizer) -> Result<Free> {
        let mut refused: Vec<u32> = Vec::new();
        let mut next_ids = ids.to_vec();
        loop {
            let id = row.choose_without(&refused)?;
            next_ids.truncate(ids.len());
            let stops = tokenizer.stop_ids().contains(&id);
            if !stops {
                next_ids.push(id);
            }
            let text = tokenizer.decode(&next_ids)?;
            let rest = self.open_header(&text);
            if self.explains(&text, rest) {
                return Ok(match rest {
                    _ if stops => Free::Stop,
                    Some(rest) => Free::Header(id, self.tails_after(rest)),
                    None => Free::Token(id),
                });
            }
            refused.push(id);
        }
    }

    /// What is written after the verdict's opening on the last line, if that line is one and a label can still follow.
    fn open_header<'t>(&self, text: &'t str) -> Option<&'t str> {
        let line = text.rsplit('\n').next()?.trim_start();
        let rest = line.strip_prefix(self.verdict.opening())?;
        self.endings.iter().any(|ending| ending.starts_with(rest)).then_some(rest)
    }

    /// The token sequences that complete the line after `rest`.
    fn tails_after(&self, rest: &str) -> Vec<Vec<u32>> {
        let of_class = self.endings.iter().zip(&self.tails).filter(|(ending, _)| ending.starts_with(rest));
        of_class.filter_map(|(_, tails)| tails.get(rest.len())?.clone()).collect()
    }

    /// Whether the answer would have an explanation if it were closed after `text`.
    fn explains(&self, text: &str, open: Option<&str>) -> bool {
        let closed = |ending: &String| match open {
            Some(rest) => ending.strip_prefix(rest).map(|tail| format!("{text}{tail}")),
            None => Some(format!("{text}\n\n{}{ending}", self.verdict.opening())),
        };
        self.endings
            .iter()
            .find_map(closed)
            .is_some_and(|closed| self.verdict.parse(&closed, &self.labels, &self.prefix).explanation.is_some())
    }
}

/// The next token of the closing, or all that is left of it once the label is decided.
fn close(state: &mut State, row: sample::RowLogits<'_>) -> Result<Next> {
    // Each once: a token that begins two labels is not twice as likely for it.
    let mut allowed: Vec<u32> = Vec::new();
    for id in state.closing.iter().filter_map(|ids| ids.get(state.written).copied()) {
        if !allowed.contains(&id) {
            allowed.push(id);
        }
    }
    let chosen = match allowed[..] {
        [only] => only,
        _ => row.choose_among(&allowed)?,
    };
    state.closing.retain(|ids| ids.get(state.written) == Some(&chosen));
    if let [first, others @ ..] = &state.closing[..]
        && others.iter().all(|ids| ids == first)
    {
        return Ok(Next::Close(first[state.written..].to_vec()));
    }
    state.written += 1;
    Ok(Next::Token(chosen))
}

/// A choice made while the explanation is open.
enum Free {
    Token(u32),
    /// This token, which leaves the row on an open verdict line with these ways to complete it.
    Header(u32, Vec<Vec<u32>>),
    Stop,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::tests::byte_tokenizer, *};
    use crate::prompt::TokenizerFiles;

    /// A model that wants to write `wish` and then stop, and prefers `label` among bytes it did not wish for.
    fn write(wish: &str, labels: [&str; 2], prefers: usize, cap: usize) -> String {
        let tokenizer = byte_tokenizer();
        let named = Labels::two(labels[0], labels[1]);
        let constraint = Constraint::of(&tokenizer, &named, &Verdict::default(), "Reasoning: ").unwrap();
        let mut state = State::default();
        let mut ids = Vec::new();
        loop {
            let mut logits = vec![0.0; 257];
            for (rank, byte) in labels[prefers].bytes().enumerate() {
                logits[usize::from(byte)] = 3.0 - rank as f32 * 0.1;
            }
            logits[wish.as_bytes().get(ids.len()).map_or(256, |&byte| usize::from(byte))] = 9.0;
            let greedy = sample::Draw { sampling: sample::Sampling::greedy(), step: 0, position: ids.len() as u64 };
            let draw = Draw { row: sample::RowLogits::new(&logits, greedy), remaining: cap - ids.len() };
            match constraint.next(&mut state, &ids, draw, &tokenizer).unwrap() {
                Next::Token(id) => ids.push(id),
                Next::Close(tail) => {
                    ids.extend(&tail);
                    assert_eq!(ids.pop(), Some(tokenizer.eog()));
                    assert!(ids.len() < cap);
                    return tokenizer.decode(&ids).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_stop_or_the_cap_closes_the_answer() {
        let labels = ["0:alive", "1:death"];
        assert_eq!(write("Stable.", labels, 0, 90), "Stable.\n\nClassification: 0:alive\n\n");
        assert_eq!(write("Stable.", labels, 1, 90), "Stable.\n\nClassification: 1:death\n\n");
        let long = write(&"word ".repeat(50), labels, 1, 90);
        assert!(long.starts_with("word word word") && long.ends_with("\n\nClassification: 1:death\n\n"), "{long}");
        assert!(long.len() > 80);
    }

    #[test]
    fn a_verdict_line_of_the_models_own_is_completed_with_a_label() {
        let labels = ["FALSE", "TRUE"];
        let wish = "No effect.\n\nClassification: ";
        assert_eq!(write(&format!("{wish}TRUE\n\n"), labels, 0, 90), format!("{wish}TRUE\n\n"));
        assert_eq!(write(&format!("{wish}unclear, because"), labels, 0, 90), format!("{wish}FALSE\n\n"));
        assert_eq!(write(&format!("{wish}unclear, because"), labels, 1, 90), format!("{wish}TRUE\n\n"));
        assert_eq!(
            write("No effect.\n  Classification:maybe", labels, 1, 90),
            "No effect.\n  Classification: TRUE\n\n"
        );
        assert_eq!(write("The Classification: x", labels, 1, 90), "The Classification: x\n\nClassification: TRUE\n\n");
    }

    #[test]
    fn a_label_that_begins_another_can_still_be_chosen() {
        let wish = "x\n\nClassification: 1:d";
        assert_eq!(write(&format!("{wish}\n\n"), ["1:d", "1:death"], 0, 90), format!("{wish}\n\n"));
        assert_eq!(write(&format!("{wish}eath\n\n"), ["1:d", "1:death"], 0, 90), format!("{wish}eath\n\n"));
    }

    #[test]
    fn closing_and_label_are_written_as_the_target_of_training_has_them() {
        let labels = Labels::two("0:alive", "1:death");
        let toy: Value = serde_json::from_str(include_str!("../../tests/golden/prompt_toy.json")).unwrap();
        for (name, kind) in toy["tokenizers"].as_object().unwrap() {
            let config = json!({"bos_token": kind["bos_token"], "eos_token": kind["eos_token"]});
            let tokenizer = TextTokenizer::from_files(&TokenizerFiles {
                tokenizer: kind["tokenizer"].to_string().into_bytes(),
                tokenizer_config: Some(config.to_string().into_bytes()),
                ..TokenizerFiles::default()
            })
            .unwrap();
            let constraint = Constraint::of(&tokenizer, &labels, &Verdict::default(), "Reasoning: ").unwrap();
            let explanation = tokenizer.encode("Stable").unwrap();
            for class in [0, 1] {
                let label = ["0:alive", "1:death"][class];
                let target = tokenizer.encode(&Verdict::default().response("Stable", label)).unwrap();
                let closing = constraint.closings[class].split_last().unwrap();
                assert_eq!([&explanation[..], closing.1].concat(), target, "{name}");
                assert_eq!(*closing.0, tokenizer.eog());
                let tail = constraint.tails[class][0].as_ref().unwrap().split_last().unwrap().1;
                assert!(target.ends_with(tail), "{name}: {target:?} {tail:?}");
            }
        }
    }

    #[test]
    fn an_empty_explanation_is_not_allowed() {
        for wish in ["", " \n ", "Classification: FALSE\n\n", "Reasoning: ", "Reasoning: \n\nClassification: TRUE"] {
            let text = write(wish, ["FALSE", "TRUE"], 1, 90);
            let parsed = Verdict::default().parse(&text, &Labels::two("FALSE", "TRUE"), "Reasoning: ");
            assert!(parsed.explanation.is_some_and(|explanation| !explanation.is_empty()), "{wish:?} gave {text:?}");
        }
    }
}
