//! What a run needs, before it starts: memory and disk (exit 5 in seconds, naming what would fit).

use std::iter::repeat_n;

use candle_core::Device;

use super::{class_balance::BalancedSampler, examples::Example, optimizer::Optimizer};
use crate::{
    config::{ActivationMemory, Parameters},
    device::format_bytes,
    error::{Error, Result},
    model::{
        ActivationCheckpointing, Footprint, LlamaConfig, LoraConfig, Model, Precision,
        footprint::{LIBRARIES, usable},
        tensor_spec,
    },
};

/// Bytes of an f32.
pub(super) const F32: u64 = 4;

/// The largest micro-batch a run can meet: as if its longest records came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Largest {
    /// Rows of the forward pass.
    pub rows: usize,
    /// Rows of the LM head.
    pub target_rows: usize,
}

impl Largest {
    /// Over all batches of `batch_size` that a shuffle, or `sampler`, can make; the LM head takes a record at a time.
    ///
    /// `whole`: the LM head reads the prompt's rows too.
    pub fn of(examples: &[Example], batch_size: usize, sampler: Option<&BalancedSampler>, whole: bool) -> Self {
        let drawn = |example: &Example| sampler.map_or(1, |sampler| sampler.most_often(example.class));
        let mut rows: Vec<usize> =
            examples.iter().flat_map(|one| repeat_n(one.rows(), drawn(one).min(batch_size))).collect();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        let read = |example: &Example| if whole { example.rows() } else { example.target.len() };
        let target_rows = examples.iter().map(read).max().unwrap_or(0);
        Self { rows: rows.iter().take(batch_size).sum(), target_rows }
    }
}

/// Bytes of gradients; parameters and moments exist by the time this is asked. On their way to other ranks gradients
/// take host memory once more.
pub fn gradient_bytes(optimizer: &Optimizer, ranks: usize, device: &Device) -> u64 {
    let copies = if ranks > 1 && device.is_cpu() { 2 } else { 1 };
    copies * F32 * optimizer.elements()
}

/// The program and a tokenizer of fifty thousand tokens. What the process holds before the first step is no measure: it
/// has freed copies of the weights and not yet touched moments that are zero.
const PROCESS: u64 = 80 << 20;

/// Bytes that this process takes of the device between steps: weights, adapters, head, both moments, and itself.
pub fn held_bytes(model: &Model, optimizer: &Optimizer, parameters: Parameters) -> u64 {
    let llama = &model.llama;
    let cuda = llama.device().is_cuda();
    // In full training the weights are the parameters, but for the small head.
    let beside = if parameters == Parameters::Full { 2 } else { 3 };
    let weights = tensor_spec::bytes(&llama.config, llama.precision(), cuda);
    let itself = if cuda { LIBRARIES } else { PROCESS };
    itself + weights + beside * F32 * optimizer.elements()
}

/// Chooses what layers keep, or fails (exit 5) naming what would fit. Beside the `held` bytes a step takes `fixed` ones
/// of gradients and of adapters that are rounded for it.
pub fn plan(
    model: &Model,
    held: u64,
    fixed: u64,
    setting: ActivationMemory,
    largest: Largest,
    available: u64,
) -> Result<ActivationCheckpointing> {
    let available = usable(available, model.llama.device().is_cuda());
    let estimate = Estimate { footprint: model.llama.footprint(), fixed, largest };
    let memory = estimate.plan(setting, available)?;
    let [held, free] = [held, available].map(format_bytes);
    tracing::info!("{}; {free} are free, {held} held by this process", estimate.describe(memory));
    Ok(memory)
}

/// What a training pass takes beyond what is there already.
pub(super) struct Estimate {
    pub footprint: Footprint,
    /// Bytes that do not depend on the rows.
    pub fixed: u64,
    pub largest: Largest,
}

impl Estimate {
    /// Bytes that the activations of `kept` layers take, and all that is needed to compute them.
    pub fn activations(&self, kept: u64) -> u64 {
        self.largest.rows as u64 * self.footprint.row(kept)
    }

    pub fn logits(&self) -> u64 {
        self.largest.target_rows as u64 * self.footprint.logits
    }

    pub fn total(&self, kept: u64) -> u64 {
        self.fixed + self.logits() + self.activations(kept)
    }

    /// Fails where not even recomputing every layer fits.
    fn check(&self, available: u64, what: &str) -> Result<()> {
        if self.total(0) <= available {
            return Ok(());
        }
        Err(too_little(
            self.total(0),
            available,
            available.saturating_sub(self.fixed + self.logits()) / self.footprint.row(0),
            what,
        ))
    }

    /// What layers keep in so much memory.
    pub fn plan(&self, setting: ActivationMemory, available: u64) -> Result<ActivationCheckpointing> {
        self.check(available, "training")?;
        let layers = self.footprint.layers;
        match setting {
            ActivationMemory::Recompute => Ok(ActivationCheckpointing::Recompute),
            ActivationMemory::Keep if self.total(layers) > available => {
                let needed = format_bytes(self.total(layers));
                let message = format!(
                    "keeping every layer's activations needs about {needed}, {} are free",
                    format_bytes(available)
                );
                Err(Error::resources(message)
                    .hint("train.activation_memory = \"auto\" keeps what fits, \"recompute\" takes the least"))
            }
            ActivationMemory::Keep => Ok(ActivationCheckpointing::Keep),
            // A layer's worth is left over, for what no estimate sees.
            ActivationMemory::Auto => {
                let kept = (self.largest.rows as u64 * self.footprint.kept).max(1);
                Ok(match (available - self.total(0)) / kept {
                    0 => ActivationCheckpointing::Recompute,
                    n if n >= layers => ActivationCheckpointing::Keep,
                    n => ActivationCheckpointing::KeepLast(n as usize),
                })
            }
        }
    }

    fn describe(&self, memory: ActivationCheckpointing) -> String {
        let layers = self.footprint.layers;
        let kept = match memory {
            ActivationCheckpointing::Keep => layers,
            ActivationCheckpointing::Recompute => 0,
            ActivationCheckpointing::KeepLast(n) => n as u64,
        };
        format!(
            "a step needs about {} of memory beside the model: activations {} ({kept} of {layers} layers keep \
            theirs), logits {}, gradients {}",
            format_bytes(self.total(kept)),
            format_bytes(self.activations(kept)),
            format_bytes(self.logits()),
            format_bytes(self.fixed)
        )
    }
}

/// Fails (exit 5) before anything is loaded when `weights` (bytes of them, and how they are held), moments and the
/// smallest pass cannot fit.
pub fn check_before_loading(
    config: &LlamaConfig,
    (weights, precision): (u64, Precision),
    trained: (Parameters, &LoraConfig),
    largest: Largest,
    (device, available): (&Device, u64),
) -> Result<()> {
    let (parameters, lora) = trained;
    let (lora, state) = match parameters {
        Parameters::Lora => (Some(lora), 0),
        Parameters::Full => (None, 3 * F32 * tensor_spec::count(config) + tied_gradient_bytes(config, parameters)),
    };
    let estimate = Estimate {
        footprint: Footprint::of(config, precision, device.is_cuda(), lora),
        fixed: weights + state,
        largest,
    };
    estimate.check(usable(available, device.is_cuda()), "the model and its training")
}

/// Bytes of the LM head's gradient, which full training of a tied model sums beside the embedding's
/// ([`crate::model::Llama::tie_gradients`]).
pub fn tied_gradient_bytes(config: &LlamaConfig, parameters: Parameters) -> u64 {
    let bytes = F32 * (config.vocab_size * config.hidden_size) as u64;
    if parameters == Parameters::Full && config.tie_word_embeddings { bytes } else { 0 }
}

fn too_little(need: u64, available: u64, rows: u64, what: &str) -> Error {
    let error = Error::resources(format!(
        "{what} needs about {} of memory, {} are free",
        format_bytes(need),
        format_bytes(available)
    ));
    match rows {
        0 => error.hint("a smaller base model would fit, or model.dtype = \"bf16\" with train.parameters = \"lora\""),
        rows => error.hint(format!(
            "about {rows} tokens in a forward pass would fit: lower train.batch_size, or model.max_input_tokens + \
            model.max_output_tokens"
        )),
    }
}

/// Bytes a checkpoint takes on disk: trained tensors and both moments.
pub fn checkpoint_bytes(optimizer: &Optimizer) -> u64 {
    3 * F32 * optimizer.elements()
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::DType;

    use super::*;

    fn example(prompt: usize, target: usize) -> Example {
        Example { prompt: vec![1; prompt], target: vec![1; target], class: 0, record: 0 }
    }

    #[test]
    fn the_largest_batch_is_that_of_the_longest_records() {
        let examples = [example(10, 3), example(4, 0), example(7, 5)];
        assert_eq!(Largest::of(&examples, 1, None, false), Largest { rows: 12, target_rows: 5 });
        assert_eq!(Largest::of(&examples, 2, None, false), Largest { rows: 23, target_rows: 5 });
        assert_eq!(Largest::of(&examples, 9, None, false), Largest { rows: 27, target_rows: 5 });
        assert_eq!(Largest::of(&examples, 1, None, true), Largest { rows: 12, target_rows: 12 });
        // Three draws of each class: the one record of class 1 is all three of its own, and may fill a batch.
        let mut rare = [10, 4, 4, 4, 4, 4].map(|n| example(n, 0));
        rare[0].class = 1;
        let sampler = BalancedSampler::new(&rare.each_ref().map(|one| one.class), 2).unwrap();
        assert_eq!(Largest::of(&rare, 3, Some(&sampler), false), Largest { rows: 30, target_rows: 0 });
        assert_eq!(Largest::of(&rare, 4, Some(&sampler), false), Largest { rows: 34, target_rows: 0 });
    }

    /// Llama-3.1-8B.
    pub fn llama_8b() -> LlamaConfig {
        let config = serde_json::json!({
            "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0
        });
        LlamaConfig::parse(config.as_object().unwrap()).unwrap()
    }

    #[test]
    fn what_cannot_fit_is_refused_before_loading_and_told_what_would() {
        let config = llama_8b();
        assert_eq!(tensor_spec::count(&config), 8_030_261_248);
        let largest = Largest { rows: 7424, target_rows: 384 };
        let lora = LoraConfig::from(&crate::config::Lora::default());
        let check = |gib: u64, dtype: DType| {
            let weights = (tensor_spec::bytes(&config, dtype, false), dtype.into());
            check_before_loading(&config, weights, (Parameters::Lora, &lora), largest, (&Device::Cpu, gib << 30))
        };
        assert!(check(80, DType::F32).is_ok());
        let error = check(32, DType::F32).unwrap_err();
        assert_eq!((error.exit_code(), error.hint_text().unwrap().contains("tokens")), (5, true), "{error}");
        assert!(check(8, DType::BF16).unwrap_err().hint_text().unwrap().contains("smaller base model"));
    }

    fn estimate(cuda: bool) -> Estimate {
        let largest = Largest { rows: 7424, target_rows: 384 };
        let lora = LoraConfig::from(&crate::config::Lora::default());
        Estimate { footprint: Footprint::of(&llama_8b(), DType::BF16, cuda, Some(&lora)), fixed: 0, largest }
    }

    /// Llama-3.1-8B in bf16 takes 16 GB. The targets of one GPU, 75 and 30 GB in all, are met by the estimate.
    #[test]
    fn an_8b_step_on_a_gpu_is_counted_in_bf16() {
        let gpu = estimate(true);
        let gigabytes = |kept| (gpu.total(kept) + 2 * tensor_spec::count(&llama_8b())) / 1_000_000_000;
        assert_eq!((gigabytes(32), gigabytes(0)), (40, 20));
        assert!(estimate(false).total(32) > 3 * gpu.total(32) / 2);
    }

    #[test]
    fn auto_keeps_what_is_free_for_it() {
        use ActivationMemory::{Auto, Keep, Recompute};
        let gpu = estimate(true);
        let layer = 7424 * estimate(true).footprint.kept;
        let least = gpu.total(0);
        let planned = |setting, available| gpu.plan(setting, available).ok();
        assert_eq!(planned(Auto, least - 1), None);
        assert_eq!(planned(Auto, least), Some(ActivationCheckpointing::Recompute));
        assert_eq!(planned(Auto, least + 5 * layer), Some(ActivationCheckpointing::KeepLast(5)));
        assert_eq!(planned(Auto, least + 32 * layer), Some(ActivationCheckpointing::Keep));
        assert!(least + 32 * layer >= gpu.total(32));
        assert_eq!((planned(Keep, least), planned(Keep, gpu.total(32))), (None, Some(ActivationCheckpointing::Keep)));
        assert_eq!(planned(Recompute, 1 << 60), Some(ActivationCheckpointing::Recompute));
        assert!(gpu.describe(ActivationCheckpointing::KeepLast(5)).contains("5 of 32 layers"));
    }
}
