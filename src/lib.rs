//! `clsgen`: one pass over a document gives a probability, and the same model writes the explanation.
//!
//! The method is *CLSGen: A Dual-Head Fine-Tuning Framework for Joint Probabilistic Classification and Verbalized
//! Explanation* (arXiv 2604.11801).
//!
//! ```text
//! records ─▶ prompt ─▶ token ids ─▶ Llama + LoRA
//!     ─▶ h_n ─▶ CLS head ─▶ probability     ┐
//!     ─▶ hidden at target rows ─▶ LM head   ┴▶ loss ─▶ AdamW ─▶ checkpoint
//! checkpoint ─▶ generate ─▶ predictions ─▶ evaluation ─▶ metrics ─▶ tables, figures, report
//! ```
//!
//! # Rooms
//!
//! Modules import only downward, or within their layer without a circle (`tests/layers.rs` enforces both).
//!
//! | Layer | Room | What is in it |
//! |---|---|---|
//! | 7 | [`cli`] | flags: parse, run, exit code |
//! | 6 | [`commands`] | construct, train, eval, predict, export, data, demo, selftest: recipes, read top to bottom |
//! | 5 | [`evaluation`] | a scored split: its predictions, thresholds, calibrators, judge, baselines, directory |
//! |   | [`baselines`] | the other methods' prompts, votes and CNN; the judge's questions |
//! |   | [`report`] | tables, figures, report.html, of what [`metrics`] measured |
//! |   | [`selftest`] | every op and a training pass against references |
//! | 4 | [`train`] | examples, losses, one optimizer step, checkpoints, selection |
//! |   | [`generate`] | the engine for every generated token, Algorithm 1's trials, a checkpoint that scores |
//! | 3 | [`model`] | Llama, LoRA, CLS head, key-value cache, the files that weights come from |
//! |   | [`remote`] | models on a server: how their prompts are sent, and what comes back |
//! | 2 | [`ops`] | one folder an op, forward and backward, CPU and CUDA |
//! |   | [`prompt`] | templates, chat templates, tokenizer, the verdict read back |
//! |   | [`data`] | readers of records and predictions, leakage; the LCD benchmark out of MIMIC |
//! |   | [`demo`] | the embedded model, its tokenizer, the notes that it reads |
//! |   | [`context`] | what every command is told: config, run directory, device, seed |
//! | 1 | [`config`] | the keys, their defaults and checks, which stage each decides |
//! |   | [`fingerprint`] | what decides the bytes of a stored result |
//! |   | [`storage`] | the only writer of files; `run.json` |
//! |   | [`metrics`] | pure functions on slices |
//! |   | [`parallel`] | one process, or the ranks of an MPI job: what they say to each other |
//! |   | [`device`], [`progress`] | device, memory and disk before any work; progress bars |
//! | 0 | [`labels`] | the classes of a task: their names, how many there are |
//! |   | [`shard`] | the part of the records that a process takes |
//! |   | [`signals`] | what asks a run to save and stop, and waits that it ends |
//! |   | [`error`], [`rng`] | errors with exit codes and hints; the random numbers, a function of their place |
//! |   | [`foreign`] | what others wrote: their files, their names in messages, libraries that panic over them |
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
pub mod foreign;
pub mod generate;
pub mod labels;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod parallel;
pub mod progress;
pub mod prompt;
pub mod remote;
pub mod report;
pub mod rng;
pub mod selftest;
pub mod shard;
pub mod signals;
pub mod storage;
pub mod train;
