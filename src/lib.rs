//! `clsgen`: one pass over a document gives a probability, and the same model writes the explanation.
//!
//! The method is *CLSGen: A Dual-Head Fine-Tuning Framework for Joint Probabilistic Classification and Verbalized
//! Explanation* (arXiv 2604.11801).
//!
//! ```text
//! records ─▶ prompt ─▶ token ids ─▶ Llama + LoRA ─▶ h_n ─▶ CLS head ─▶ probability ┐
//!                                        │                                         ├▶ loss ─▶ AdamW
//!                                        └▶ hidden at target rows ─▶ LM head ──────┘   ─▶ checkpoint
//! checkpoint ─▶ generate ─▶ predictions.jsonl ─▶ metrics ─▶ tables, figures, report.html
//! ```
//!
//! Modules import only downward (`tests/layers.rs` enforces it): 0 [`error`], [`rng`] · 1 [`storage`], [`config`],
//! [`device`], [`fingerprint`], [`metrics`], [`progress`] · 2 [`data`], [`ops`], [`prompt`], [`demo`] · 3 [`model`]
//! · 4 [`train`], [`generate`] · 5 [`baselines`], [`report`], [`selftest`] · 6 [`commands`] · 7 [`cli`].
//!
//! # Dimensions
//!
//! Sequences are concatenated, never padded: activations are `(tokens, hidden)` and [`ops::Offsets`] says where each
//! sequence begins. `tokens` = rows of a batch, `hidden` = `hidden_size`, `heads` = `num_attention_heads`, `kv_heads` =
//! `num_key_value_heads`, `head_dim`, `ffn` = `intermediate_size`, `vocab` = `vocab_size`, `rank` = LoRA's r.
#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod baselines;
pub mod cli;
pub mod commands;
pub mod config;
pub mod context;
pub mod data;
pub mod demo;
pub mod device;
pub mod error;
pub mod evaluation;
pub mod fingerprint;
pub mod generate;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod progress;
pub mod prompt;
pub mod report;
pub mod rng;
pub mod selftest;
pub mod storage;
pub mod train;
