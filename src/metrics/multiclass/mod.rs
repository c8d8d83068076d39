//! The metrics of K > 2 classes. Two classes never come here.
//!
//! A class is called where its probability is the highest, of equals the lowest. What two classes have of "the
//! positives" is had here of every class against the rest, and its macro mean, which is null where one class has none.
//!
//! | file | what | source |
//! |---|---|---|
//! | `sample` | predictions in columns, one class against the rest | |
//! | `confusion` | K × K counts, macro precision, recall, F1, κ | Brodersen 2010; Cohen 1960, 1968 |
//! | `ranking` | macro AUROC, one against the rest | Provost & Domingos 2000 |
//! | `calibration` | Brier, class-wise ECE, log loss | Brier 1950; Kull 2019 |
//! | `temperature` | one temperature for all logits | Guo 2017 |
//! | `answers` | answers that name a class or none, over runs | |
//! | [`methods`] | baselines over runs, and each against the model, paired | |
//! | [`paired`] | two sets of predictions of the same records: before and after tuning | |
//! | `evaluate` | all of them: `metrics.json` | |

mod answers;
mod calibration;
mod confusion;
mod evaluate;
mod evaluation;
pub mod methods;
pub mod paired;
mod ranking;
mod sample;
mod temperature;

pub use answers::ClassAnswers;
pub use calibration::evaluate_calibration;
pub use confusion::{ClassOutcome, Confusion, Disagreement};
pub use evaluate::{AgreementMetrics, evaluate, evaluate_agreement, judge, judge_differences};
pub use evaluation::{
    Averages, Calibration, CalibrationAfter, ClassCalls, ClassMetrics, DefaultCalls, Evaluation, MacroMeans, Positive,
};
pub use ranking::macro_auroc;
pub use sample::{Row, Sample};
pub use temperature::Temperature;
