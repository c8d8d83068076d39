//! From a record to token ids and from generated text to a verdict. Layer 2.
