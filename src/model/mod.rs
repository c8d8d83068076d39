//! The Llama, its adapters, its two heads, and the files they live in. Layer 3.
