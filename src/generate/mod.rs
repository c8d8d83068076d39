//! The one engine that generates for everything. Layer 4.
