//! What this machine could do at best: `cargo bench --bench ceilings`. Multiply-adds a second in f32 and bf16 from
//! registers alone, and bytes a second read from memory, with as many threads as rayon has. Roofs for the floors in
//! README.md.
#![allow(unsafe_code)]

use std::{hint::black_box, time::Instant};

use rayon::prelude::*;

/// Best of three, in units of 1e9 a second; `amount` is what one call of `f` does in each thread.
fn rate(amount: f64, f: impl Fn() + Sync) -> f64 {
    let threads = rayon::current_num_threads();
    let run = || {
        let start = Instant::now();
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| f());
        start.elapsed().as_secs_f64()
    };
    amount * threads as f64 / (0..3).map(|_| run()).fold(f64::INFINITY, f64::min) / 1e9
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    pub const STEPS: usize = 20_000_000;
    /// Accumulators: enough to hide the latency.
    pub const SUMS: usize = 12;

    /// # Safety
    /// The CPU has AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub fn f32_products() {
        let x = _mm512_set1_ps(black_box(0.999));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(x, x, *sum));
        }
        black_box(sums);
    }

    /// # Safety
    /// The CPU has AVX-512 F and BF16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn bf16_products() {
        let x = _mm512_set1_ps(black_box(0.999));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        // SAFETY: both types are 64 bytes of any bits.
        let x = unsafe { std::mem::transmute::<__m512, __m512bh>(x) };
        for _ in 0..STEPS {
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, x, x));
        }
        black_box(sums);
    }
}

fn main() {
    println!("{} threads", rayon::current_num_threads());
    #[cfg(target_arch = "x86_64")]
    {
        let flops = 2.0 * 16.0 * (x86::STEPS * x86::SUMS) as f64;
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has it.
            println!("f32 products: {:.0} GFLOP/s", rate(flops, || unsafe { x86::f32_products() }));
        }
        if is_x86_feature_detected!("avx512bf16") {
            // SAFETY: the CPU has it.
            println!("bf16 products: {:.0} GFLOP/s", rate(2.0 * flops, || unsafe { x86::bf16_products() }));
        }
    }
    let words: Vec<u64> = (0..1u64 << 26).collect();
    let share = words.len() / rayon::current_num_threads();
    let read = || {
        let start = Instant::now();
        let sum = words
            .par_chunks(share)
            .map(|words| words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)))
            .sum::<u64>();
        black_box(sum);
        start.elapsed().as_secs_f64()
    };
    let best = (0..5).map(|_| read()).fold(f64::INFINITY, f64::min);
    println!("memory read: {:.1} GB/s", (words.len() * 8) as f64 / best / 1e9);
}
