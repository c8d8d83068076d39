//! The embedded tiny model. Layer 2 (data).
