//! Low-rank adapters (Hu et al. 2021): `y = W x + scaling · B A dropout(x)`, `scaling = α/r` (or `α/√r`, rsLoRA).

use candle_core::{Device, Tensor};

use crate::{
    error::{Error, Result},
    foreign,
    ops::lora::LoraA,
    rng::{Rng, hash_name, streams},
};

/// Projections an adapter may sit on, in a layer's order.
pub const PROJECTIONS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Shape of the adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank r.
    pub rank: usize,
    /// α.
    pub alpha: f64,
    /// Dropout on an adapter's input.
    pub dropout: f64,
    /// Adapted projections, of [`PROJECTIONS`].
    pub targets: Vec<String>,
    /// Scale by α/√r.
    pub use_rslora: bool,
}

/// Dropout of LoRA inputs: masks depend on the seed, the tensor's name and the record's key, not on the batch.
#[derive(Debug, Clone)]
pub struct LoraDropout {
    /// Seed of the run.
    pub seed: u64,
    /// A key a sequence (record and step).
    pub record_keys: Vec<u64>,
}

impl LoraConfig {
    /// Factor of the adapter's output.
    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Whether two adapters hold the same tensors and mean the same by them; dropout is not part of that.
    pub fn same_shape(&self, other: &Self) -> bool {
        let sorted = |config: &Self| {
            let mut targets = config.targets.clone();
            targets.sort();
            targets.dedup();
            targets
        };
        self.rank == other.rank && self.scaling() == other.scaling() && sorted(self) == sorted(other)
    }

    /// In words, for messages.
    pub fn describe(&self) -> String {
        let kind = if self.use_rslora { " (rsLoRA)" } else { "" };
        format!("rank {}, alpha {}{kind} on {}", self.rank, self.alpha, self.targets.join(", "))
    }

    /// Refuses a rank of 0, no target at all, and targets a Llama does not have.
    pub fn check(&self) -> Result<()> {
        if self.rank == 0 || self.targets.is_empty() {
            return Err(Error::model("a LoRA adapter needs a rank of at least 1 and at least one target"));
        }
        match self.targets.iter().find(|target| !PROJECTIONS.contains(&target.as_str())) {
            Some(target) => Err(Error::model(format!(
                "LoRA target \"{}\" is not a projection of a Llama layer",
                foreign::name(target)
            ))
            .hint(format!("targets are {}", PROJECTIONS.join(", ")))),
            None => Ok(()),
        }
    }
}

impl From<&crate::config::Lora> for LoraConfig {
    fn from(lora: &crate::config::Lora) -> Self {
        Self {
            rank: lora.rank,
            alpha: lora.alpha,
            dropout: lora.dropout,
            targets: lora.targets.clone(),
            use_rslora: false,
        }
    }
}

/// One projection's adapter, f32; of a pass on CUDA in bf16 ([`super::rounded`]).
#[derive(Debug, Clone)]
pub(super) struct Adapter {
    /// `(rank, in)`.
    pub a: Tensor,
    /// In bf16, A of this projection and of those behind it that read the same input, one below the other: `(their
    /// ranks, in)`.
    pub stacked_a: Option<Tensor>,
    /// `(out, rank)`.
    pub b: Tensor,
    /// Factor of `B A x`.
    pub scaling: f64,
    /// Dropout on x.
    pub dropout: f32,
}

impl Adapter {
    /// The part before B, without dropout.
    pub fn lora_a(&self) -> LoraA<'_> {
        LoraA { a: &self.a, stacked_a: self.stacked_a.as_ref(), scaling: self.scaling, dropout: None }
    }

    /// PEFT's start: A Kaiming-uniform with a = √5, that is U(±1/√in), and B zero, so the model's function is
    /// unchanged.
    pub fn init(
        projection: &str,
        (out, input): (usize, usize),
        config: &LoraConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let rng = Rng::new(seed, streams::LORA_INIT);
        Ok(Self {
            a: uniform(rng, &name_a(projection), (config.rank, input), input, device)?,
            stacked_a: None,
            b: Tensor::zeros((out, config.rank), candle_core::DType::F32, device)?,
            scaling: config.scaling(),
            dropout: config.dropout as f32,
        })
    }
}

/// PEFT's name of a projection's A.
pub(super) fn name_a(projection: &str) -> String {
    format!("base_model.model.{projection}.lora_A.weight")
}

/// PEFT's name of a projection's B.
pub(super) fn name_b(projection: &str) -> String {
    format!("base_model.model.{projection}.lora_B.weight")
}

/// U(±1/√fan_in), drawn at the step that is the tensor's name.
pub(super) fn uniform(
    rng: Rng,
    name: &str,
    shape: impl Into<candle_core::Shape>,
    fan_in: usize,
    device: &Device,
) -> Result<Tensor> {
    let shape = shape.into();
    let step = hash_name(name);
    let bound = 1.0 / (fan_in as f64).sqrt();
    let draw = |i: usize| ((2.0 * f64::from(rng.uniform(step, i as u64)) - 1.0) * bound) as f32;
    let values: Vec<f32> = (0..shape.elem_count()).map(draw).collect();
    Ok(Tensor::from_vec(values, shape, device)?)
}
