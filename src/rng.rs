//! Counter-based random numbers: every draw is a pure function `f(seed, stream, step, index)`.
//!
//! Philox4x32-10 (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011). There is no state to
//! save, to share between threads or to lose at a restart, and a GPU thread computes the same numbers.
//!
//! ```
//! use clsgen::rng::{Rng, streams};
//! let rng = Rng::new(42, streams::SHUFFLE);
//! assert_eq!(rng.uniform(3, 7), rng.uniform(3, 7));
//! assert_ne!(rng.uniform(3, 7), rng.uniform(3, 8));
//! ```

/// Streams keep uses of the same seed apart. A stream number is written once, here.
pub mod streams {
    /// Order of records in an epoch (step = epoch).
    pub const SHUFFLE: u32 = 1;
    /// Initial LoRA weights (step = hash of the tensor's name).
    pub const LORA_INIT: u32 = 2;
    /// Initial CLS-head weights (step = hash of the tensor's name).
    pub const HEAD_INIT: u32 = 3;
    /// Dropout masks of LoRA inputs (step = hash of the tensor's name and the record's key, index = element of the
    /// record's rows).
    pub const LORA_DROPOUT: u32 = 4;
    /// Dropout masks of the CLS head.
    pub const HEAD_DROPOUT: u32 = 5;
    /// Sampled tokens (step = hash of record and trial, index = position).
    pub const SAMPLING: u32 = 6;
    /// Bootstrap resamples of the metrics.
    pub const BOOTSTRAP: u32 = 7;
    /// Random base weights (`parameters = "full"` from scratch, tests, benches).
    pub const MODEL_INIT: u32 = 8;
    /// Synthetic discharge notes.
    pub const NOTES: u32 = 9;
    /// Baselines that train (the CNN).
    pub const BASELINE: u32 = 10;
    /// Order of a class's records under `train.sample = "balanced"` (step = class and pass).
    pub const CLASS_ORDER: u32 = 11;
}

/// One stream of one seed. `Copy`, stateless, the same on every thread and device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rng {
    seed: u64,
    stream: u32,
}

impl Rng {
    /// The stream `stream` (one of [`streams`]) of `seed`.
    pub fn new(seed: u64, stream: u32) -> Self {
        Self { seed, stream }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The stream's number.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// The four 32-bit words of block `block` at `step`.
    ///
    /// The counter is (block, step low, step high, stream); the key is the seed. Blocks beyond 2^32 (2^34 words of
    /// one step) spill into the stream word's upper half, which no stream number reaches.
    pub fn block(&self, step: u64, block: u64) -> [u32; 4] {
        let stream = self.stream ^ (((block >> 32) as u32) << 16);
        philox4x32(
            [block as u32, step as u32, (step >> 32) as u32, stream],
            [self.seed as u32, (self.seed >> 32) as u32],
        )
    }

    /// The 32-bit word at (`step`, `index`).
    pub fn word(&self, step: u64, index: u64) -> u32 {
        self.block(step, index / 4)[(index % 4) as usize]
    }

    /// Uniform in `[0, 1)` with 24 random bits: the same f32 on every device.
    pub fn uniform(&self, step: u64, index: u64) -> f32 {
        to_unit(self.word(step, index))
    }

    /// The words of sixteen blocks from `block` on, in order: inlined, so that a caller compiled for wider vectors
    /// draws as wide.
    #[inline(always)]
    pub fn sixteen_blocks(&self, step: u64, block: u64) -> [u32; 4 * LANES] {
        let mut counter = [[0; LANES], [step & LOW; LANES], [step >> 32; LANES], [0; LANES]];
        let [low, _, _, streams] = &mut counter;
        for (block, (low, stream)) in (block..).zip(low.iter_mut().zip(streams)) {
            *low = block & LOW;
            *stream = u64::from(self.stream) ^ (((block >> 32) << 16) & LOW);
        }
        let [first, second, third, fourth] = philox_lanes(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        let mut words = [0; 4 * LANES];
        for (lane, words) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *words = [first[lane] as u32, second[lane] as u32, third[lane] as u32, fourth[lane] as u32];
        }
        words
    }

    /// The numbers [`Self::uniform`] gives from `first` on.
    pub fn fill_uniform(&self, step: u64, first: u64, numbers: &mut [f32]) {
        let until = first + numbers.len() as u64;
        for start in (first / 4..until.div_ceil(4)).step_by(LANES) {
            let uniform = self.sixteen_blocks(step, start).map(to_unit);
            let from = first.max(start * 4);
            let to = until.min((start + LANES as u64) * 4);
            let drawn = &uniform[(from - start * 4) as usize..(to - start * 4) as usize];
            numbers[(from - first) as usize..(to - first) as usize].copy_from_slice(drawn);
        }
    }

    /// Standard normal, by Box–Muller from the block at `index` (in f64, rounded once).
    pub fn normal(&self, step: u64, index: u64) -> f32 {
        let words = self.block(step, index);
        let unit = |high: u32, low: u32| ((u64::from(high) << 21) ^ u64::from(low >> 11)) as f64 / (1u64 << 53) as f64;
        let radius = (-2.0 * (1.0 - unit(words[0], words[1])).ln()).sqrt();
        (radius * (std::f64::consts::TAU * unit(words[2], words[3])).cos()) as f32
    }

    /// Uniform integer in `0..bound`, by the multiply-shift of a 64-bit word (bias below 2^-32 for our bounds).
    pub fn below(&self, step: u64, index: u64, bound: usize) -> usize {
        let words = self.block(step, index);
        scaled(words[0], words[1], bound)
    }

    /// The numbers [`Self::below`] gives from `first` on, as many as `bound`: what a resample draws.
    pub fn each_below(&self, step: u64, first: u64, bound: usize, mut each: impl FnMut(usize)) {
        let mut left = bound;
        for start in (first..first + bound as u64).step_by(LANES) {
            let words = self.sixteen_blocks(step, start);
            let blocks = words.as_chunks::<4>().0;
            blocks.iter().take(left).for_each(|block| each(scaled(block[0], block[1], bound)));
            left = left.saturating_sub(LANES);
        }
    }

    /// A Fisher–Yates permutation of `0..n` that depends on `step` alone.
    pub fn permutation(&self, step: u64, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(step, i as u64, i + 1));
        }
        order
    }
}

/// The 64-bit word of two halves, scaled down to `0..bound`.
fn scaled(high: u32, low: u32, bound: usize) -> usize {
    let word = (u64::from(high) << 32) | u64::from(low);
    ((u128::from(word) * bound as u128) >> 64) as usize
}

/// A word's upper 24 bits as a number in `[0, 1)`.
pub fn to_unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A stable 64-bit hash of a name, for use as a `step` (first 8 bytes of BLAKE3).
pub fn hash_name(name: &str) -> u64 {
    let digest = blake3::hash(name.as_bytes());
    digest.as_bytes()[..8].iter().fold(0, |acc, &byte| (acc << 8) | u64::from(byte))
}

/// Blocks [`Rng::sixteen_blocks`] computes side by side.
const LANES: usize = 16;
/// The word of a lane.
const LOW: u64 = 0xffff_ffff;

/// [`philox4x32`] on every lane at once. A lane's word is the lower half of 64 bits and what stands above it is left
/// there: products of lower halves are what vector instructions multiply.
#[inline(always)]
fn philox_lanes(mut counter: [[u64; LANES]; 4], mut key: [u32; 2]) -> [[u64; LANES]; 4] {
    for _ in 0..10 {
        let before = counter;
        for lane in 0..LANES {
            let product0 = (before[0][lane] & LOW) * 0xD251_1F53;
            let product1 = (before[2][lane] & LOW) * 0xCD9E_8D57;
            counter[0][lane] = (product1 >> 32) ^ before[1][lane] ^ u64::from(key[0]);
            counter[1][lane] = product1;
            counter[2][lane] = (product0 >> 32) ^ before[3][lane] ^ u64::from(key[1]);
            counter[3][lane] = product0;
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Ten rounds of Philox with four 32-bit words.
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product0 = u64::from(counter[0]) * 0xD251_1F53;
        let product1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (product1 >> 32) as u32 ^ counter[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ counter[3] ^ key[1],
            product0 as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// The same numbers are asked of `src/ops/dropout/philox.cuh` in `tests/emulation/elements.cpp`.
    #[test]
    fn a_block_is_counted_as_on_a_gpu() {
        let published = Rng::new(0x299f_31d0_a409_3822, 0x0370_7344).block(0x1319_8a2e_85a3_08d3, 0x243f_6a88);
        assert_eq!(published, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
        let beyond_32_bits = Rng::new(0x1234_5678_9abc, streams::LORA_DROPOUT).block(u64::MAX - 1, (3 << 32) | 7);
        assert_eq!(beyond_32_bits, [0xf634_a615, 0xef2a_c1e9, 0x0269_b18d, 0x11e1_f601]);
    }

    #[test]
    fn many_uniforms_are_the_single_ones() {
        let rng = Rng::new(0x1234_5678_9abc, streams::LORA_DROPOUT);
        for (step, first, n) in [(0, 0, 1), (7, 3, 63), (u64::MAX - 1, 64, 64), (5, (1 << 34) - 7, 130)] {
            let mut numbers = vec![0.0; n];
            rng.fill_uniform(step, first, &mut numbers);
            assert_eq!(numbers, (0..n as u64).map(|i| rng.uniform(step, first + i)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let rng = Rng::new(7, streams::MODEL_INIT);
        let draws: Vec<f64> = (0..20_000).map(|i| f64::from(rng.normal(0, i))).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn a_permutation_holds_every_index_once_and_changes_with_the_step() {
        let rng = Rng::new(1, streams::SHUFFLE);
        let first = rng.permutation(0, 100);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_ne!(first, rng.permutation(1, 100));
    }
}
