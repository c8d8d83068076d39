//! `config.json` of a Llama, in the forms transformers 4 and 5 write.

/// Shape and constants of a Llama; fields carry Hugging Face's names.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// q, k, v and o projections have biases.
    pub attention_bias: bool,
    /// gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// The LM head is the embedding.
    pub tie_word_embeddings: bool,
    /// Begin-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// End tokens, of one or several.
    pub eos_token_ids: Vec<u32>,
}
