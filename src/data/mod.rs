//! Records in, predictions out: readers, splits, leakage. Layer 2.
