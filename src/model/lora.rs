//! Low-rank adapters (Hu et al. 2021): `y = W x + scaling · B A dropout(x)`, `scaling = α/r` (or `α/√r`, rsLoRA).

/// Shape of the adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank r.
    pub rank: usize,
    /// α.
    pub alpha: f64,
    /// Dropout on an adapter's input.
    pub dropout: f64,
    /// Adapted projections: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`.
    pub targets: Vec<String>,
    /// Scale by α/√r.
    pub use_rslora: bool,
}

impl LoraConfig {
    /// Factor of the adapter's output.
    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

impl From<&crate::config::Lora> for LoraConfig {
    fn from(lora: &crate::config::Lora) -> Self {
        Self { rank: lora.rank, alpha: lora.alpha, dropout: lora.dropout, targets: lora.targets.clone(), use_rslora: false }
    }
}
