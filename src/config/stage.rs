//! The results that commands keep on disk and go on with.

/// A result that later commands continue or reuse, if it was made by the same settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A split's explanations: `RUN/construct/<split>.jsonl`.
    Construct,
    /// A run's weights, its log and its dev predictions.
    Train,
    /// A file of predictions, of `predict` or of `eval`.
    Predict,
    /// What is measured on predictions.
    Measure,
    /// Answers of a prompted baseline.
    Baselines,
    /// Verdicts of the judge.
    Judge,
    /// The CNN baseline's networks and answers.
    Cnn,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 7] =
        [Self::Construct, Self::Train, Self::Predict, Self::Measure, Self::Baselines, Self::Judge, Self::Cnn];
}
