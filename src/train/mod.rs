//! Losses, optimizer steps, checkpoints, model selection. Layer 4.
//!
//! ```text
//! plan (which records, when) ─▶ examples (ids, t_n, targets) ─▶ step: forward ─▶ loss ─▶ backward ─▶ clip ─▶ AdamW
//!                                                                 │
//!      metrics.jsonl, TensorBoard ◀── log ◀───────────────────────┤
//!      checkpoints/epoch-NN, last ◀── checkpoint ◀── epochs ◀─────┘──▶ dev predictions ─▶ select ─▶ best.json
//! ```

pub mod plan;
pub mod schedule;
pub mod select;
pub mod tensorboard;
