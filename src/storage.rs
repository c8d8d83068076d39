//! The only module that writes files. Layer 1.
