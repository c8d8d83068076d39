//! What a GPU does with the model, without weights or files: `cargo bench --features cuda --bench gpu [-- OPTIONS]`.
//!
//! ```text
//! --device cuda|cuda:N|cpu          where (cuda)
//! --shape 8b|b|tiny                 Llama-3.1-8B's shape (the default), SmolLM2-135M's, or 3.4M weights
//! --only ceilings|kernels|train|decode
//! ```
//!
//! Random bf16 weights, made on the device. Measured first are the ceilings: the rate of a large product and of a large
//! copy. Every time is the median of several, the device waited for before and after; each stands beside its floor,
//! which is the greater of the necessary bytes over the measured bandwidth and the necessary operations over the
//! measured rate of products. What fails (for want of memory, say) is a row that says so, and the rest goes on.
//! Progress goes to stderr; the table, in markdown, comes last. With `--device cpu --shape tiny` the same program runs
//! anywhere: to see that it runs, not how fast.

#[path = "gpu/ceilings.rs"]
mod ceilings;
#[path = "gpu/decode.rs"]
mod decode;
#[path = "common/inference.rs"]
mod inference;
#[path = "gpu/kernels.rs"]
mod kernels;
#[path = "gpu/report.rs"]
mod report;
#[path = "gpu/train.rs"]
mod train;
#[path = "common/training.rs"]
mod training;

use candle_core::{DType, Device};
use clsgen::{
    device,
    error::{Error, Result},
    model::{Llama, LlamaConfig},
    ops::cuda,
};
use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured, and where.
pub struct Subject {
    pub device: Device,
    pub config: LlamaConfig,
    /// Tokens of a training step; the last is also the length of kernels' operands and of prompts.
    pub tokens: [usize; 3],
    /// Target tokens of a training step, at most.
    pub target: usize,
    /// Rows of the larger batch in decoding.
    pub rows: usize,
}

impl Subject {
    fn new(device: &str, shape: &str) -> Result<Self> {
        let device = device::select(device, 0, cuda::open)?;
        let (tokens, target, rows) = if shape == "tiny" { ([32, 64, 96], 16, 4) } else { ([512, 2048, 7424], 384, 32) };
        Ok(Self { device, config: training::config(shape)?, tokens, target, rows })
    }

    /// Tokens of the longest operands.
    pub fn longest(&self) -> usize {
        self.tokens[2]
    }

    /// The type of activations: on a CPU they are f32 whatever the weights are.
    pub fn activations(&self) -> DType {
        if self.device.is_cuda() { DType::BF16 } else { DType::F32 }
    }

    /// Target tokens of a record of `tokens`.
    pub fn targets(&self, tokens: usize) -> usize {
        self.target.min(tokens / 4)
    }
}

/// The value of `--name`, one of `values`; the first when it is not there.
fn option<'a>(arguments: &'a [String], name: &str, values: &[&'a str]) -> Result<&'a str> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(values[0]) };
    let given = arguments.get(at + 1).map_or("", String::as_str);
    let known = values.contains(&given) || (name == "--device" && given.starts_with("cuda:"));
    known.then_some(given).ok_or_else(|| Error::usage(format!("{name} {given:?}: one of {}", values.join(", "))))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` adds `--bench` of its own; `cargo test` runs benches without.
    if arguments.is_empty() {
        println!(
            "usage: cargo bench --features cuda --bench gpu [-- --device cuda|cpu --shape 8b|b|tiny --only SECTION]"
        );
    } else if let Err(error) = run(&arguments) {
        eprintln!("error: {error}{}", error.hint_text().map(|hint| format!("\nhint: {hint}")).unwrap_or_default());
        std::process::exit(error.exit_code().into());
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let subject = Subject::new(
        option(arguments, "--device", &["cuda", "cpu"])?,
        option(arguments, "--shape", &["8b", "b", "tiny"])?,
    )?;
    let only = option(arguments, "--only", &["all", "ceilings", "kernels", "train", "decode"])?;
    let wanted = |section: &str| only == "all" || only == section;
    let mut report = Report::new(&subject.device);
    ceilings::measure(&subject, &mut report);
    if wanted("kernels") {
        kernels::measure(&subject, &mut report);
    }
    if wanted("train") || wanted("decode") {
        report.attempt("model", |report| {
            let llama = Llama::random(subject.config.clone(), DType::BF16, 1, &subject.device)?;
            let mut trainer = training::trainer(llama, clsgen::model::ActivationCheckpointing::Recompute, 100)?;
            if wanted("train") {
                train::measure(&subject, &mut trainer, report);
            }
            if wanted("decode") {
                trainer.model.llama.prepare_inference()?;
                decode::measure(&subject, &trainer.model.llama, report);
            }
            Ok(())
        });
    }
    println!("{}", report.markdown());
    Ok(())
}
