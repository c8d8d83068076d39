//! The joint training step that benches time: shapes, trainer, one record, and how its steps are timed.

use std::time::Instant;

use clsgen::{
    config::{Activation, Lora, Objective, Parameters, Train},
    error::{Error, Result},
    model::{ActivationCheckpointing, ClsHead, Llama, LlamaConfig, LoraConfig, Model},
    parallel::Collective,
    train::{
        examples::Example,
        loss::{LossWeights, StepSettings},
        optimizer::Optimizer,
        plan::BatchPlan,
        schedule::{LinearSchedule, WeightSchedule},
        step::Trainer,
    },
};

/// `A` (`tiny`): a Llama of 3.4M weights; `B` (`b`): SmolLM2-135M's shape; `8b`: Llama-3.1-8B's.
pub fn config(shape: &str) -> Result<LlamaConfig> {
    let [vocab, hidden, intermediate, layers, heads, kv_heads] = match shape {
        "A" | "tiny" => [2048, 256, 688, 4, 4, 2],
        "B" | "b" => [49152, 576, 1536, 30, 9, 3],
        "8b" => [128_256, 4096, 14_336, 32, 32, 8],
        _ => return Err(Error::usage(format!("no shape {shape:?}"))),
    };
    let shape = serde_json::json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": intermediate,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0, "tie_word_embeddings": shape != "8b", "max_position_embeddings": 8192
    });
    LlamaConfig::parse(shape.as_object().ok_or_else(|| Error::run("no shape"))?)
}

/// LoRA r = 8 on q, k, v, o and the 2,048-wide head, AdamW, batch 1, no dropout (as in the PyTorch + PEFT scripts).
pub fn trainer(mut llama: Llama, memory: ActivationCheckpointing, steps: usize) -> Result<Trainer> {
    llama.add_lora(&LoraConfig::from(&Lora { dropout: 0.0, ..Lora::default() }), 1)?;
    let head = ClsHead::new(llama.config.hidden_size, 2048, 2, Activation::Gelu, 0.0, 1, llama.device())?;
    let model = Model::new(llama, head);
    let optimizer = Optimizer::new(model.trainable(Parameters::Lora)?, &Train::default())?;
    let plan = BatchPlan {
        records: 1,
        batch_size: 1,
        accumulation: 1,
        ranks: 1,
        epochs: steps + 1,
        shuffle: false,
        balanced: None,
        short_first: None,
        seed: 1,
    };
    let objective = Objective::Joint;
    let weights = LossWeights { objective, generation: 1.0, classification: 1.0, consistency: 0.0, prompt: 0.0 };
    let parameters = Parameters::Lora;
    let pass = StepSettings {
        weights,
        parameters,
        label_smoothing: 0.0,
        class_balance: None,
        label_tokens: None,
        memory,
        dropout: None,
    };
    let schedule = LinearSchedule { peak: 1e-4, warmup: 0, total: steps + 1 };
    let weight_schedule = WeightSchedule { end: None, total: steps + 1 };
    Ok(Trainer { model, optimizer, plan, schedule, weight_schedule, pass, ranks: Collective::one() })
}

/// A record of `tokens` tokens, the last `target` of them its explanation.
pub fn example(vocab: usize, tokens: usize, target: usize) -> Example {
    let ids: Vec<u32> = (0..tokens as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab as u32).collect();
    let (prompt, target) = ids.split_at(tokens - target);
    Example { prompt: prompt.to_vec(), target: target.to_vec(), class: 1, record: 0 }
}

/// Median seconds of `steps` optimizer steps. One more comes first: it touches fresh memory and does not count.
pub fn time_steps(trainer: &mut Trainer, example: Example, steps: usize) -> Result<f64> {
    let examples = [example];
    let mut seconds = Vec::new();
    for k in 1..=steps + 1 {
        trainer.model.llama.device().synchronize()?;
        let start = Instant::now();
        trainer.step(k, &examples, &[0])?;
        trainer.model.llama.device().synchronize()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[steps / 2])
}

/// Highest resident set of this process so far, in MB (Linux).
pub fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}
