//! Losses, optimizer steps, checkpoints, model selection. Layer 4.
