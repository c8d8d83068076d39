//! Tensors of a model: random ones, and as llama.cpp stores them.

use candle_core::{Device, Tensor};
use clsgen::rng::{Rng, hash_name, streams};

/// Normally distributed numbers, the same ones for the same name and shape.
pub fn random(name: &str, shape: &[usize], std: f32) -> Tensor {
    let rng = Rng::new(17, streams::MODEL_INIT);
    let values: Vec<f32> =
        (0..shape.iter().product::<usize>()).map(|i| std * rng.normal(hash_name(name), i as u64)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// llama.cpp's name of an HF tensor.
pub fn gguf_name(hf: &str) -> String {
    let pairs = [
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj", ""),
    ];
    pairs.iter().fold(hf.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// The tensor as convert_hf_to_gguf.py permutes it: of q, which has `heads[0]` heads, and of k, which has `heads[1]`,
/// channel c of a head comes beside channel c + head_dim / 2.
pub fn gguf_permuted(hf: &str, tensor: &Tensor, heads: [usize; 2], head_dim: usize) -> Tensor {
    let heads = match hf {
        hf if hf.contains("q_proj") => heads[0],
        hf if hf.contains("k_proj") => heads[1],
        _ => return tensor.clone(),
    };
    // (heads, 2, head_dim / 2) → (heads, head_dim / 2, 2)
    let split = tensor.reshape((heads, 2, head_dim / 2, ())).unwrap();
    split.transpose(1, 2).unwrap().contiguous().unwrap().reshape(tensor.dims()).unwrap()
}
