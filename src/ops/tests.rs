//! What the ops' tests share.

use candle_core::{Device, Tensor};

use crate::ops::cpu::simd::tests::WITHOUT_TILES;
use crate::rng::{Rng, streams};

/// `n` standard normal numbers.
pub fn random(seed: u64, n: usize) -> Vec<f32> {
    let rng = Rng::new(seed, streams::MODEL_INIT);
    (0..n as u64).map(|i| rng.normal(0, i)).collect()
}

/// A tensor of standard normal numbers.
pub fn random_tensor(seed: u64, dims: &[usize]) -> Tensor {
    Tensor::from_vec(random(seed, dims.iter().product()), dims, &Device::Cpu).unwrap()
}

/// The elements of an f32 tensor.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Runs `f` in a pool of so many threads.
pub fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    let without_tiles = WITHOUT_TILES.get();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
        WITHOUT_TILES.set(without_tiles);
        f()
    })
}

/// Every element within `tolerance·(1 + |expected|)`.
pub fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - e).abs() <= tolerance * (1.0 + e.abs()), "{what}: element {i} is {a}, not {e}");
    }
}

/// Were the sanitizer off, every other test under it would pass all the same: a child that writes past the end of an
/// op's output is stopped, and told why.
#[cfg(address_sanitizer)]
#[test]
#[allow(unsafe_code)]
fn a_write_past_the_end_is_stopped() {
    const CHILD: &str = "CLSGEN_WRITE_PAST_THE_END";
    if std::env::var_os(CHILD).is_some() {
        let mut output = vec![0f32; 16];
        let end = std::hint::black_box(output.len());
        // SAFETY: none, that is the point.
        unsafe { output.as_mut_ptr().add(end).write(1.0) };
        std::hint::black_box(output);
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "ops::tests::a_write_past_the_end_is_stopped"]).env(CHILD, "1");
    let output = child.output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("AddressSanitizer: heap-buffer-overflow"), "{told}");
}
