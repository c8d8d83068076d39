//! Adapter files exactly as PEFT writes them: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use super::{Llama, lora::LoraConfig};
use crate::error::Result;

/// Reads an adapter's configuration; refuses what we do not compute (DoRA, `rank_pattern`, `modules_to_save`, …).
pub fn read_config(dir: &Path) -> Result<LoraConfig> {
    let _ = dir;
    todo!()
}

/// Gives `llama` the adapter stored in `dir`.
pub fn load_adapter(llama: &mut Llama, dir: &Path) -> Result<()> {
    let _ = (llama, dir);
    todo!()
}
