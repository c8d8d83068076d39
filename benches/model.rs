//! Speed of the model on SmolLM2-135M's shape with random weights and r = 8 on q, k, v, o: `cargo bench --bench model`.
//! Milliseconds of the best of three runs, and tokens a second.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clsgen::{
    config::{Lora, Parameters},
    model::{
        ActivationCheckpointing, Gradients, Llama, LlamaConfig, LoraConfig, LoraDropout, TrainingContext,
        kv_cache::SequenceCache,
    },
    ops::{
        Offsets,
        rope::{RopeParameters, RopeScaling},
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LAYERS: usize = 6;

fn llama() -> Llama {
    let config = LlamaConfig {
        vocab_size: 49152,
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: LAYERS,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        head_dim: 64,
        rms_norm_eps: 1e-5,
        rope: RopeParameters { theta: 1e5, scaling: RopeScaling::None },
        max_position_embeddings: 8192,
        attention_bias: false,
        mlp_bias: false,
        tie_word_embeddings: true,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
    };
    let mut llama = Llama::random(config, DType::F32, 1, &Device::Cpu).expect("model");
    llama.add_lora(&LoraConfig::from(&Lora::default()), 2).expect("adapters");
    llama
}

fn report(name: &str, tokens: usize, mut run: impl FnMut()) {
    let seconds = (0..3).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    let best = seconds.fold(f64::INFINITY, f64::min);
    println!("{name:<44} {:>10.1} ms {:>9.0} tokens/s", best * 1e3, tokens as f64 / best);
}

fn train(llama: &Llama, tokens: usize, memory: ActivationCheckpointing, dropout: bool) {
    let ids: Vec<u32> = (0..tokens as u32).map(|i| i * 7 % 49152).collect();
    let offsets = Offsets::from_lengths(&[tokens]);
    let dropout = dropout.then(|| LoraDropout { seed: 1, record_keys: vec![3] });
    let context = TrainingContext { dropout, memory, trains: Parameters::Lora, read_from: None };
    let (hidden, saved) = llama.forward(&ids, &offsets, &context).expect("forward");
    let d_hidden = Tensor::ones_like(&hidden).expect("gradient");
    llama.backward(saved, &d_hidden, &mut Gradients::new()).expect("backward");
}

fn main() {
    let llama = llama();
    println!("{LAYERS} layers of SmolLM2-135M, f32");
    for tokens in [512, 2048] {
        let ids: Vec<u32> = (0..tokens as u32).collect();
        let offsets = Offsets::from_lengths(&[tokens]);
        report(&format!("prefill {tokens}"), tokens, || {
            drop(llama.prefill_hidden_only(&ids, &offsets).expect("prefill"))
        });
        report(&format!("train {tokens} keep"), tokens, || train(&llama, tokens, ActivationCheckpointing::Keep, false));
        report(&format!("train {tokens} keep, dropout"), tokens, || {
            train(&llama, tokens, ActivationCheckpointing::Keep, true)
        });
        report(&format!("train {tokens} recompute, dropout"), tokens, || {
            train(&llama, tokens, ActivationCheckpointing::Recompute, true)
        });
    }
    for rows in [1, 8] {
        let mut caches: Vec<SequenceCache> = (0..rows).map(|_| SequenceCache::default()).collect();
        let ids = vec![5; 512 * rows];
        llama.prefill(&ids, &Offsets::from_lengths(&vec![512; rows]), &mut caches).expect("prefill");
        report(&format!("decode 16 tokens after 512, {rows} rows"), 16 * rows, || {
            for _ in 0..16 {
                let mut all: Vec<&mut SequenceCache> = caches.iter_mut().collect();
                let hidden = llama.decode(&vec![7; rows], &mut all).expect("decode");
                llama.decode_logits(&hidden).expect("logits");
            }
        });
    }
}
