//! candle-transformers' Llama, written by others, as a second oracle for the last row's logits.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, Llama3RopeConfig, Llama3RopeType, LlamaEosToks};
use clsgen::ops::Offsets;

use crate::fixture::*;

#[test]
fn candle_transformers_agrees() {
    let case = "llama3";
    let config = Config {
        hidden_size: 16,
        intermediate_size: 20,
        vocab_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 1,
        use_flash_attn: false,
        rms_norm_eps: 1e-5,
        rope_theta: 10000.0,
        bos_token_id: Some(1),
        eos_token_id: Some(LlamaEosToks::Single(2)),
        rope_scaling: Some(Llama3RopeConfig {
            factor: 4.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 32,
            rope_type: Llama3RopeType::Llama3,
        }),
        max_position_embeddings: 128,
        tie_word_embeddings: true,
    };
    let tensors = candle_core::safetensors::load(folder(case).join("model.safetensors"), &CPU).unwrap();
    let theirs = Llama::load(VarBuilder::from_tensors(tensors, DType::F32, &CPU), &config).unwrap();
    let ours = untuned(case);
    for sequence in batch(case) {
        let ids = sequence.ids();
        let mut cache = Cache::new(false, DType::F32, &config, &CPU).unwrap();
        let input = Tensor::new(ids.as_slice(), &CPU).unwrap().unsqueeze(0).unwrap();
        let expected = theirs.forward(&input, 0, &mut cache).unwrap();
        let hidden = ours.llama.prefill_hidden_only(&ids, &Offsets::from_lengths(&[ids.len()])).unwrap();
        assert_close("logits", &ours.llama.logits(&hidden).unwrap(), &expected, 1e-5);
    }
}
