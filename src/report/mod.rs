//! Tables, figures, HTML. Layer 5.

pub mod baselines;
pub mod card;
pub mod compare;
mod decision_tables;
pub mod figures;
pub mod html;
mod journal_tables;
pub mod metrics_table;
mod multiclass_beside;
mod multiclass_tables;
pub mod paper;
mod readings;
pub mod table;

pub use decision_tables::decision_tables;
pub use journal_tables::{evidence_table, operating_table, perplexity_table, smooth_table, subgroup_table};
pub use metrics_table::{in_sample_note, metrics_table};
pub use multiclass_beside::{multiclass_baseline_tables, multiclass_compare_table};
pub use multiclass_tables::{confusion_table, multiclass_table};
pub use table::Table;
