//! Which vector instructions this CPU has, and the two ways ops use them.
//!
//! Plain loops are written once in portable Rust inside [`vectorised!`], which compiles them for AVX-512, for AVX2+FMA
//! and for the baseline, and picks one at run time; hand-written kernels `match` on [`isa`]. All three give the same
//! bits: sums run over 16 lanes in one fixed order, and `mul_add` is fused everywhere (in hardware or not).
#![allow(unsafe_code)]

/// Vector instructions, the widest first. Who holds one may use them: [`isa`] alone makes those that not every CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// AVX-512 F, BW, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Detected),
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Detected),
    /// Whatever the target's baseline has.
    Portable,
}

/// That this CPU was asked and has them.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Detected(());

impl Isa {
    /// Whether it is AVX-512.
    pub fn is_avx512(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self, Self::Avx512(_));
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// The widest instructions of this CPU (the standard library caches the detection).
pub(crate) fn isa() -> Isa {
    #[cfg(test)]
    if let Some(forced) = tests::FORCED.get() {
        return forced;
    }
    #[cfg(target_arch = "x86_64")]
    {
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx512 {
            return Isa::Avx512(Detected(()));
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Isa::Avx2(Detected(()));
        }
    }
    Isa::Portable
}

/// Whether the CPU multiplies pairs of bf16 and adds them up in f32 (AVX512-BF16).
pub(crate) fn has_bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa().is_avx512() && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether it does so in tiles (AMX-BF16), and the kernel lets this process use them: their state, 8 KB a thread, is
/// saved and restored only for a process that asked.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bf16_tiles() -> bool {
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    static GRANTED: OnceLock<bool> = OnceLock::new();
    #[cfg(test)]
    if tests::WITHOUT_TILES.get() {
        return false;
    }
    has_bf16_products()
        && *GRANTED.get_or_init(|| {
            let bf16 = 1 << 22;
            let tile = 1 << 24;
            // Leaf 7 is there wherever AVX-512 is.
            let has = __cpuid_count(7, 0).edx & (bf16 | tile) == bf16 | tile;
            // SAFETY: the call takes two numbers and touches no memory of ours.
            has && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) } == 0
        })
}

/// Whether pairs of bf16 are worth it where tiles are not used: the CPUs that have tiles multiply pairs at half the
/// rate of f32 (`benches/ceilings.rs` on a Sapphire Rapids: 165 against 339 GFLOP/s), the others at twice the rate.
pub(crate) fn has_fast_bf16_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return has_bf16_products() && !has_bf16_tiles();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Defines functions whose portable body is compiled for each [`Isa`] and chosen at run time.
macro_rules! vectorised {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                /// # Safety
                /// The CPU has these features.
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $type),*) $(-> $ret)? { body($($arg),*) }
                /// # Safety
                /// The CPU has these features.
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $ret)? { body($($arg),*) }
                match $crate::ops::cpu::simd::isa() {
                    // SAFETY: `isa` found these features on this CPU.
                    $crate::ops::cpu::simd::Isa::Avx512(_) => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::ops::cpu::simd::Isa::Avx2(_) => return unsafe { avx2($($arg),*) },
                    $crate::ops::cpu::simd::Isa::Portable => {}
                }
            }
            body($($arg),*)
        }
    )*};
}
pub(crate) use vectorised;

/// [`prefetch`] into L1.
pub(crate) const L1: bool = true;
/// [`prefetch`] into L2.
pub(crate) const L2: bool = false;

/// Prefetches `count` elements from `from` on, a cache line at a time. They may lie beyond the allocation: nothing is
/// read.
#[inline(always)]
pub(crate) fn prefetch<const LEVEL: bool, T>(from: *const T, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for byte in (0..count * size_of::<T>()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let line = from.cast::<i8>().wrapping_add(byte);
        // SAFETY: a prefetch reads nothing.
        unsafe { if LEVEL { _mm_prefetch::<_MM_HINT_T0>(line) } else { _mm_prefetch::<_MM_HINT_T1>(line) } }
    }
    let _ = (from, count);
}

/// Lanes that every sum is spread over.
pub(crate) const LANES: usize = 16;

/// `eˣ` within 2 ulp; 0 below −87, ∞ above 88.7, NaN for NaN. Branch-free, so loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds x/ln 2 to an integer and leaves that integer in the low mantissa bits.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    // ln 2 in two parts (Cephes): the first product is exact.
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let mut y = 1.987_569_1e-4f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        y = y.mul_add(r, c);
    }
    let y = y.mul_add(r * r, r) + 1.0;
    let y = f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23));
    let y = if x < -87.0 { 0.0 } else { y };
    if x > 88.7 { f32::INFINITY } else { y }
}

/// Sum of the lanes: halves added pairwise, always in this order.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of `f` of each element: element `i` goes to lane `i % 64`, and the lanes are folded in a fixed order.
#[inline(always)]
pub(crate) fn sum<const N: usize>(inputs: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [[0.0f32; LANES]; 4];
    let n = inputs[0].len();
    // Views of one length, so that the loop has no bounds to check.
    let blocks = inputs.map(|input| &input[..n].as_chunks::<64>().0[..n / 64]);
    for block in 0..n / 64 {
        for (part, lanes) in lanes.iter_mut().enumerate() {
            for (i, lane) in lanes.iter_mut().enumerate() {
                *lane += f(blocks.map(|input| input[block][part * LANES + i]));
            }
        }
    }
    for i in n / 64 * 64..n {
        lanes[i % 64 / LANES][i % LANES] += f(inputs.map(|input| input[i]));
    }
    let mut total = [0.0; LANES];
    for (i, total) in total.iter_mut().enumerate() {
        *total = (lanes[0][i] + lanes[1][i]) + (lanes[2][i] + lanes[3][i]);
    }
    sum_lanes(total)
}

/// The largest of the values, −∞ of none. NaN is skipped (it comes back through the sum that follows).
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 2 * LANES];
    let (blocks, rest) = values.as_chunks::<32>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = if x > *lane { x } else { *lane };
    }
    let mut width = LANES;
    while width > 0 {
        for i in 0..width {
            lanes[i] = if lanes[i + width] > lanes[i] { lanes[i + width] } else { lanes[i] };
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Makes [`isa`] answer this on this thread.
        pub static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
        /// Makes [`has_bf16_tiles`] say no on this thread.
        pub static WITHOUT_TILES: Cell<bool> = const { Cell::new(false) };
    }

    /// Every instruction set this CPU can run.
    pub fn available() -> Vec<Isa> {
        let mut all = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            // Whoever has AVX-512 has AVX2.
            if isa() != Isa::Portable {
                all.push(Isa::Avx2(Detected(())));
            }
            if isa().is_avx512() {
                all.push(isa());
            }
        }
        all
    }

    /// Runs `f` on one thread with each instruction set in turn; the answers must be equal.
    pub fn same_on_every_isa<T: PartialEq + std::fmt::Debug + Send>(f: impl Fn() -> T + Send + Sync) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let mut answers = available().into_iter().map(|isa| {
            pool.install(|| {
                FORCED.set(Some(isa));
                let answer = f();
                FORCED.set(None);
                answer
            })
        });
        let first = answers.next().unwrap();
        for other in answers {
            assert!(first == other, "instruction sets disagree");
        }
        first
    }

    /// Runs `f` with tiles, where this CPU has them, and without.
    pub fn with_and_without_tiles(f: impl Fn()) {
        f();
        WITHOUT_TILES.set(true);
        f();
        WITHOUT_TILES.set(false);
    }

    vectorised! {
        fn exp_all(x: &[f32]) -> Vec<f32> {
            x.iter().map(|&x| exp(x)).collect()
        }
        fn sum_all(x: &[f32]) -> f32 {
            sum([x], |[x]| x)
        }
    }

    #[test]
    fn exp_is_within_two_ulp_and_keeps_the_special_values() {
        let xs: Vec<f32> = (0..200_000).map(|i| -86.9 + i as f32 * 0.000_878).collect();
        for (x, y) in xs.iter().zip(same_on_every_isa(|| exp_all(&xs))) {
            let exact = f64::from(*x).exp();
            assert!((f64::from(y) - exact).abs() <= 2.4e-7 * exact, "exp({x}) = {y}, not {exact}");
        }
        assert_eq!(
            exp_all(&[f32::NEG_INFINITY, -1e9, 0.0, 1e9, f32::INFINITY]),
            [0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY]
        );
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY - f32::INFINITY).is_nan());
    }

    #[test]
    fn sums_agree_between_instruction_sets_to_the_bit() {
        let xs: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
        for n in [0, 1, 15, 16, 63, 64, 65, 1000] {
            let exact: f64 = xs[..n].iter().map(|&x| f64::from(x)).sum();
            assert!((f64::from(same_on_every_isa(|| sum_all(&xs[..n]))) - exact).abs() < 1e-4);
            assert_eq!(max(&xs[..n]), xs[..n].iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
