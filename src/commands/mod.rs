//! The recipes: one flat, readable file a command. Layer 6.
