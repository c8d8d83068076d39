//! The CNN of the paper's Table 6: trained from scratch on frozen word-piece embeddings (Kim, EMNLP 2014).
//!
//! ```text
//! ids ─▶ word embeddings (frozen, L × D) ─▶ convolutions, kernels 2 3 4 5, 512 filters each
//!     ─▶ max over time ─▶ ReLU (2,048)
//!     ─▶ dropout ½ ─▶ projection 256 ─▶ ReLU
//!     ─▶ dropout ½ ─▶ a logit a class ─▶ cross-entropy
//! ```
//!
//! The paper leaves open, and we choose: embeddings frozen (Kim's *static* variant: of a BERT folder nothing else is
//! read); kernels 512 filters *each*; ReLU; PyTorch's initial distributions; warmup over a tenth of all steps; no
//! clipping; unweighted cross-entropy. Fields of a record are joined by `[SEP]`, no `[CLS]`.
//!
//! One grid (seed 42) picks learning rate and epoch by mean(AUROC, F1 of the minority class) on dev; then each test
//! seed is trained under that schedule up to that epoch. Of more than two classes, which the paper has not, it is the
//! macro AUROC and the F1 of the rarest class ([`selection_score`]).

mod embeddings;
mod network;
mod training;

pub use embeddings::{Document, Embeddings};
pub use network::{KERNELS, Network};
pub use training::{EpochResult, Trainer, predict, rarest, selection_score};

/// Peak learning rates of Table 6.
pub const GRID: [f64; 3] = [5e-4, 1e-4, 5e-5];

/// Seed of the grid (Table 6).
pub const GRID_SEED: u64 = 42;
