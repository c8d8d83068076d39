//! Tables, figures, HTML. Layer 5.

pub mod baselines;
pub mod metrics_table;
pub mod paper;
pub mod table;

pub use metrics_table::metrics_table;
pub use table::Table;
