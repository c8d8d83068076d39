//! What the paper compares with, and the judge it asks. Layer 5.
//!
//! | file | what | paper |
//! |---|---|---|
//! | [`prompting`] | verbalized probability, label prediction, self-consistency, token probability | §5.2, A.4 |
//! | [`cnn`] | a convolutional network over frozen word-piece embeddings | §5.2, Table 6 |
//! | [`judge`] | LLM-as-a-judge: what an explanation implies, whether it can be read | §5.3.2, A.4.1 |
//! | [`prompts`] | their prompt files | A.4 |
//!
//! The prompted baselines and the judge run on the one engine of [`crate::generate`].

pub mod cnn;
pub mod judge;
pub mod prompting;
pub mod prompts;

use crate::error::{Error, Result};

/// A baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Baseline {
    /// The base model says a probability in words.
    Verbalized,
    /// The base model names a label.
    Label,
    /// Majority over the runs of [`Baseline::Label`].
    SelfConsistency,
    /// The base model's own probability of the two labels.
    TokenProbability,
    /// The CNN of Table 6.
    Cnn,
}

impl Baseline {
    /// All of them, in the paper's order.
    pub const ALL: [Self; 5] =
        [Self::Verbalized, Self::Label, Self::SelfConsistency, Self::TokenProbability, Self::Cnn];

    /// Its name on the command line, in files and in the paper's tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verbalized => "verbalized",
            Self::Label => "label",
            Self::SelfConsistency => "self_consistency",
            Self::TokenProbability => "token_probability",
            Self::Cnn => "cnn",
        }
    }

    /// Its name for a reader.
    pub fn title(self) -> &'static str {
        match self {
            Self::Verbalized => "Verbalized probability",
            Self::Label => "Label prediction",
            Self::SelfConsistency => "Self-consistency",
            Self::TokenProbability => "Token probability of the label",
            Self::Cnn => "CNN",
        }
    }

    /// Whether an answer may be unparsable.
    pub fn is_written(self) -> bool {
        matches!(self, Self::Verbalized | Self::Label | Self::SelfConsistency)
    }

    /// The baselines of these names, each once, in the paper's order; an unknown name is a usage error (exit 2).
    pub fn parse_all(names: &[String]) -> Result<Vec<Self>> {
        for name in names {
            if !Self::ALL.iter().any(|baseline| baseline.name() == name) {
                let known: Vec<&str> = Self::ALL.iter().map(|baseline| baseline.name()).collect();
                return Err(Error::usage(format!("{name:?} is no baseline"))
                    .hint(format!("the baselines are {}", known.join(", "))));
            }
        }
        Ok(Self::ALL.into_iter().filter(|baseline| names.iter().any(|name| name == baseline.name())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_in_the_papers_order() {
        let names = ["cnn", "label", "cnn"].map(String::from);
        assert_eq!(Baseline::parse_all(&names).unwrap(), [Baseline::Label, Baseline::Cnn]);
        assert_eq!(Baseline::parse_all(&["svm".to_owned()]).unwrap_err().exit_code(), 2);
    }
}
