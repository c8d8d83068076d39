//! What a training run takes of a GPU and for how long: told on a machine that has none (`train --dry-run`).

use candle_core::DType;

use super::{
    examples::Example,
    memory::{Estimate, F32, Largest, tied_gradient_bytes},
    plan::BatchPlan,
};
use crate::{
    config::{self, ActivationMemory, Config, Parameters, Quantize},
    device::format_bytes,
    model::{
        ActivationCheckpointing, Footprint, LlamaConfig, LoraConfig, Precision,
        footprint::{head_parameters, lora_parameters, usable},
        tensor_spec,
    },
};

/// Memory of the cards that clusters have, in GB.
const CARDS: [u64; 5] = [24, 40, 48, 80, 141];
/// Ranks that hours are told for.
const RANKS: [usize; 4] = [1, 2, 4, 8];

/// What each rank takes of its GPU.
pub struct Needs {
    estimate: Estimate,
    setting: ActivationMemory,
    quantize: Quantize,
    weights: u64,
    /// Trained parameters beside the weights, their gradients, both moments, adapters as a pass rounds them.
    trained: u64,
    /// Keys and values of dev's longest record: more are held where there is room.
    dev: u64,
}

impl Needs {
    /// Of a run of `config` on a base of this shape, whose largest micro-batch is `largest`, with weights as on a GPU.
    pub fn of(config: &Config, llama: &LlamaConfig, largest: Largest) -> Self {
        let dtype = dtype(config);
        let precision = Precision::new(dtype, config.model.quantize);
        let weights = tensor_spec::bytes(llama, precision, true);
        let head = head_parameters(llama, config.head.hidden, config.task.labels.count());
        let (lora, trained) = match config.train.parameters {
            Parameters::Lora => {
                let lora = LoraConfig::from(&config.lora);
                let adapters = lora_parameters(llama, &lora);
                let rounded = if dtype == DType::BF16 { adapters * dtype.size_in_bytes() as u64 } else { 0 };
                (Some(lora), 4 * F32 * (adapters + head) + rounded)
            }
            Parameters::Full => (None, 3 * F32 * tensor_spec::count(llama) + 4 * F32 * head),
        };
        let trained = trained + tied_gradient_bytes(llama, config.train.parameters);
        let footprint = Footprint::of(llama, precision, true, lora.as_ref());
        let kv = 2 * llama.num_hidden_layers * llama.num_key_value_heads * llama.head_dim * dtype.size_in_bytes();
        let dev = ((config.model.max_input_tokens + config.model.max_output_tokens) * kv) as u64;
        let estimate = Estimate { footprint, fixed: weights + trained, largest };
        let setting = config.train.activation_memory;
        Self { estimate, setting, quantize: config.model.quantize, weights, trained, dev }
    }

    /// Bytes of a step in which so many layers keep their activations, or of dev where that takes more.
    fn total(&self, kept: u64) -> u64 {
        self.estimate.total(kept).max(self.weights + self.trained + self.dev)
    }

    /// What takes how much.
    pub fn describe(&self) -> String {
        let layers = self.estimate.footprint.layers;
        let [keep, recompute] = [layers, 0].map(|kept| format_bytes(self.estimate.activations(kept)));
        format!(
            "weights {}; trained parameters, gradients, moments {}; activations of {} tokens {keep}, or {recompute} \
             where backward recomputes every layer; logits {}; dev's keys and values {} at least",
            format_bytes(self.weights),
            format_bytes(self.trained),
            self.estimate.largest.rows,
            format_bytes(self.estimate.logits()),
            format_bytes(self.dev)
        )
    }

    /// Which cards a rank fits on, and what it then keeps under `train.activation_memory`.
    pub fn cards(&self) -> String {
        let layers = self.estimate.footprint.layers;
        let told = CARDS.map(|gigabytes| {
            let available = usable(gigabytes * 1_000_000_000, true);
            let fits = self.estimate.plan(self.setting, available).ok().filter(|_| self.total(0) <= available);
            let how = match fits {
                None => "too small".into(),
                Some(ActivationCheckpointing::Keep) => "fits, every layer keeps its activations".into(),
                Some(ActivationCheckpointing::KeepLast(n)) => format!("fits, {n} of {layers} layers keep theirs"),
                Some(ActivationCheckpointing::Recompute) => "fits, every layer is recomputed".into(),
            };
            format!("{gigabytes} GB: {how}")
        });
        let only = if self.quantize == Quantize::Fp8 { "; fp8 needs compute capability 9.0 (H100, H200)" } else { "" };
        told.join("; ") + only
    }
}

/// The arithmetic that `model.dtype` means on a GPU; a full training has none but f32.
pub fn dtype(config: &Config) -> DType {
    let wide = config.model.dtype == config::Dtype::F32 || config.train.parameters == Parameters::Full;
    if wide { DType::F32 } else { DType::BF16 }
}

/// How long training takes on 1, 2, 4 and 8 ranks, each of which trains so many tokens a second: those of the records
/// that are drawn, up to `train.max_steps`. `plan` is that of any number of ranks.
pub fn hours(examples: &[Example], plan: &BatchPlan, settings: &config::Train, tokens_per_second: f64) -> String {
    let tokens_on = |ranks| {
        let lengths = examples.iter().map(|example| example.prompt.len()).collect();
        // Where `train.effective_batch` cannot be dealt to so many there is no such run.
        let plan = BatchPlan::new(settings, lengths, plan.balanced.clone(), ranks, plan.seed).ok()?;
        Some(tokens(examples, &plan, plan.last_step(settings.max_steps)))
    };
    let on = RANKS.iter().filter_map(|&ranks| {
        let hours = tokens_on(ranks)? as f64 / (tokens_per_second * ranks as f64) / 3600.0;
        Some(format!("{hours:.*} on {ranks}", if hours < 10.0 { 2 } else { 1 }))
    });
    let on: Vec<String> = on.collect();
    let planned = tokens(examples, plan, plan.last_step(settings.max_steps));
    format!("{} ranks; {planned} tokens on {}; scoring dev is not counted", on.join(", "), plan.ranks)
}

/// Tokens of the optimizer steps up to `last`.
fn tokens(examples: &[Example], plan: &BatchPlan, last: usize) -> usize {
    let of_epoch = |epoch: usize| {
        let steps = last - last.min((epoch - 1) * plan.steps_per_epoch());
        let records = plan.records.min(steps * plan.group_size());
        plan.order(epoch)[..records].iter().map(|&record| examples[record].rows()).sum::<usize>()
    };
    (1..=last.div_ceil(plan.steps_per_epoch())).map(of_epoch).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{class_balance::BalancedSampler, memory::tests::llama_8b};

    fn needs(change: impl FnOnce(&mut Config)) -> Needs {
        let mut config = Config::default();
        (config.model.max_input_tokens, config.model.max_output_tokens) = (7040, 384);
        change(&mut config);
        Needs::of(&config, &llama_8b(), Largest { rows: 7424, target_rows: 384 })
    }

    #[test]
    fn an_8b_model_is_told_the_cards_it_fits_on() {
        let lora = needs(|_| {});
        assert_eq!(lora.weights, 2 * 8_030_261_248 + 2 * 65 * 4096);
        // As many numbers as the ranks of such a run add up; the adapters of rank 8 once more in bf16.
        let adapters = 32 * 8 * 2 * ((4096 + 4096) + (4096 + 1024));
        assert_eq!(lora.trained, 16 * 15_210_498 + 2 * adapters);
        assert_eq!(lora.dev, 7424 * 131_072);
        let cards = lora.cards();
        assert!(cards.starts_with("24 GB: fits, "), "{cards}");
        assert!(cards.ends_with("141 GB: fits, every layer keeps its activations"), "{cards}");
        // 16 bytes a weight.
        let full = needs(|config| config.train.parameters = Parameters::Full);
        assert!(full.cards().contains("80 GB: too small; 141 GB: fits"), "{}", full.cards());
        let wide = needs(|config| config.model.dtype = config::Dtype::F32);
        assert!(wide.cards().starts_with("24 GB: too small; 40 GB: "), "{}", wide.cards());
        // With every layer recomputed at most 12 GB in nf4 and 16 GB in int8, where bf16 takes 20.
        let gigabytes = |quantize| needs(|config| config.model.quantize = quantize).total(0) / 1_000_000_000;
        let all = [config::Quantize::None, config::Quantize::Int8, config::Quantize::Nf4].map(gigabytes);
        assert_eq!(all, [20, 13, 10]);
        // Both copies of each projection: W's codes and those of its transpose, with a scale for each row of either.
        let fp8 = needs(|config| config.model.quantize = config::Quantize::Fp8);
        let projections = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14_336 * 4096);
        let rows = 32 * (4096 + 2 * 1024 + 4096 + 2 * 14_336 + 4096);
        let columns = 32 * (3 * 4096 + 4096 + 2 * 4096 + 14_336);
        assert_eq!(fp8.weights, lora.weights - 2 * projections + 2 * projections + 4 * (rows + columns));
        assert!(fp8.cards().ends_with("(H100, H200)"), "{}", fp8.cards());
    }

    #[test]
    fn hours_are_those_of_the_tokens() {
        let example = |n, class| Example { prompt: vec![1; n], target: vec![1; 24], class, record: 0 };
        let examples = [example(7401, 0), example(3575, 1), example(3575, 1), example(3575, 1)];
        let told = |change: fn(&mut config::Train)| {
            let mut settings = config::Train { grad_accumulation: 1, ..config::Train::default() };
            change(&mut settings);
            let classes: Vec<u32> = examples.iter().map(|example| example.class).collect();
            let balanced = settings.sample == config::EpochSample::Balanced;
            let sampler = balanced.then(|| BalancedSampler::new(&classes, 2).unwrap());
            let lengths = examples.iter().map(|example| example.prompt.len()).collect();
            let plan = BatchPlan::new(&settings, lengths, sampler, 1, 7).unwrap();
            hours(&examples, &plan, &settings, 100.0)
        };
        // 20 epochs of 7424 + 3 · 3598 tokens.
        let all = "1.01 on 1, 0.51 on 2, 0.25 on 4, 0.13 on 8 ranks; 364360 tokens on 1; scoring dev is not counted";
        assert_eq!(told(|_| {}), all);
        // Two draws of each class: the long record comes twice.
        assert!(told(|settings| settings.sample = config::EpochSample::Balanced).contains("; 440880 tokens on 1;"));
        // A whole epoch on one rank is two on two, each of half as many steps, and stays one of a batch that is given.
        let stopped = told(|settings| settings.max_steps = Some(4));
        assert!(stopped.starts_with("0.05 on 1, 0.05 on 2, 0.05 on 4, 0.03 on 8 ranks; 18218 tokens"), "{stopped}");
        let given = told(|settings| (settings.max_steps, settings.effective_batch) = (Some(2), Some(2)));
        assert!(given.starts_with("0.05 on 1, 0.03 on 2 ranks; 18218 tokens"), "{given}");
    }
}
