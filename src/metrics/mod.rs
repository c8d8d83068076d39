//! The paper's metrics as pure functions on slices. Layer 1.
