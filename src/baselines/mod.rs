//! What the paper compares with. Layer 5.
