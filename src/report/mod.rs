//! Tables, figures, HTML. Layer 5.
