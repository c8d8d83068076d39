//! Losses, optimizer steps, checkpoints, model selection. Layer 4.
//!
//! ```text
//! plan (which records, when) ─▶ examples (ids, t_n, targets) ─▶ step: forward, loss, backward, clip, AdamW
//!     each step   ─▶ log ─▶ metrics.jsonl, TensorBoard
//!     each epoch  ─▶ checkpoint ─▶ checkpoints/epoch-NN, last
//!                 ─▶ dev predictions ─▶ select ─▶ best.json
//! ```

pub mod cards;
pub mod checkpoint;
pub mod class_balance;
pub mod consistency;
pub mod dev;
pub mod examples;
mod heads;
pub mod history;
pub mod log;
pub mod loss;
pub mod memory;
pub mod mfu;
pub mod micro_batch;
pub mod optimizer;
pub mod plan;
pub mod replicas;
pub mod schedule;
pub mod select;
pub mod session;
pub mod step;
pub mod tensorboard;
