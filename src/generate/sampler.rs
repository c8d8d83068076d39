//! How a token is chosen ([`crate::ops::sample`]), and the random step of each sample.

pub use crate::ops::sample::Sampling;

/// The random step of sample `sample` of the request named `key`: splitmix64's finaliser, so that the trials of one
/// record and the same trial of two records never meet.
pub fn step(key: u64, sample: usize) -> u64 {
    let mut z = key.wrapping_add((sample as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_differ_between_trials_and_records() {
        let steps: std::collections::BTreeSet<u64> =
            (0..50).flat_map(|key| (0..50).map(move |sample| step(key, sample))).collect();
        assert_eq!(steps.len(), 2500);
    }
}
