//! The model against PyTorch, PEFT and published numbers; its files against damage.
//!
//! Fixtures: `tests/golden/model/`, made by `tests/golden/model.py`, where their format is written down.

mod common;

#[path = "golden/cache.rs"]
mod cache;
#[path = "golden/damage.rs"]
mod damage;
#[path = "golden/files.rs"]
mod files;
#[path = "golden/fixture.rs"]
mod fixture;
#[path = "golden/fp8.rs"]
mod fp8;
#[path = "golden/gguf.rs"]
mod gguf;
#[path = "golden/gradients.rs"]
mod gradients;
#[path = "golden/quantize.rs"]
mod quantize;
#[path = "golden/smollm2.rs"]
mod smollm2;
#[path = "golden/sources.rs"]
mod sources;
