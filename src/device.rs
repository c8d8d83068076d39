//! Device choice and memory budget. Layer 1.
