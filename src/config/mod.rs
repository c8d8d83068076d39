//! TOML → a validated [`Config`]. Layer 1.

mod schema;

pub use schema::*;
