//! The inner kernel of every product: a tile of up to 14 × 32 sums held in registers.
//!
//! `c[r][j] (+)= Σ_p a(r, p)·b[p][j]` for `rows` ≤ 14 and 32 columns, `a(r, p) = a[r·RS + p·CS]`. With AVX-512
//! that is 28 accumulators of 16 lanes; a step is two loads of `b`, 14 broadcasts of `a` and 28 FMAs. Two FMAs and two
//! loads start a cycle, so a step's FMAs take 14 cycles and its loads 8: the FMAs are the limit. The strides of `a` are
//! constants, so that its 14 addresses are offsets from one register.
//!
//! Of f32 operands each sum starts at zero and runs over `p` in order, each multiplication fused with its addition:
//! every instruction set and row count gives the same bits. With AVX512-BF16 a step can take a pair of bf16 from each
//! operand instead, in half the time and to bits of its own.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::ops::cpu::simd::{Isa, has_bf16_products};

/// Rows of a full tile.
pub(crate) const MR: usize = 14;
/// Columns of every tile.
pub(crate) const NR: usize = 32;

/// Calls `$f::<R, RS, CS>` with the constant `R` equal to `$rows`.
macro_rules! with_rows {
    ($rows:expr, $($r:literal)*; $f:ident $args:tt) => {
        match $rows {
            $($r => with_rows!(@call $f $r $args),)*
            rows => debug_assert_eq!(rows, 0, "more rows than a tile has"),
        }
    };
    (@call $f:ident $r:literal ($($arg:expr),*)) => { $f::<$r, RS, CS>($($arg),*) };
}

/// One tile. `a(r, p)` lies at `a[r·RS + p·CS]`, `b` is `(k, ≥32)` with row stride `ldb`, `c` is `(rows, ≥32)` with
/// row stride `ldc`; with `add` the sums are added to `c`, else written over it. With `PAIRS`, an element of `a` and
/// `b` is a pair of bf16 in the 32 bits of an f32: `k`, `RS`, `CS` and `ldb` count pairs, and a step adds two products.
///
/// # Safety
/// With `PAIRS` the CPU has AVX512-BF16 (and `isa` is AVX-512). `a`, `b` and `c` are valid for the elements named
/// above, and nothing else touches those of `c` meanwhile.
#[allow(clippy::too_many_arguments)]
#[inline]
pub(crate) unsafe fn tile<const PAIRS: bool, const RS: usize, const CS: usize>(
    isa: Isa,
    rows: usize,
    k: usize,
    a: *const f32,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    debug_assert!(rows <= MR);
    debug_assert!(!PAIRS || has_bf16_products(), "pairs on a CPU that does not multiply them");
    // SAFETY: each kernel asks for what the caller promises.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) if PAIRS => {
                with_rows!(rows, 1 2 3 4 5 6 7 8 9 10 11 12 13 14; avx512_pairs(k, a, b, ldb, c, ldc, add))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => with_rows!(rows, 1 2 3 4 5 6 7 8 9 10 11 12 13 14; avx512(k, a, b, ldb, c, ldc, add)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => {
                for r in (0..rows).step_by(6) {
                    for j in (0..NR).step_by(16) {
                        let a = a.add(r * RS);
                        let b = b.add(j);
                        let c = c.add(r * ldc + j);
                        with_rows!((rows - r).min(6), 1 2 3 4 5 6; avx2(k, a, b, ldb, c, ldc, add));
                    }
                }
            }
            Isa::Portable => {
                for r in 0..rows {
                    portable::<CS>(k, a.add(r * RS), b, ldb, c.add(r * ldc), add);
                }
            }
        }
    }
}

/// `c (m, n) (+)= a·b` of small operands that are not packed first: `a(r, p) = a[r·RS + p·CS]`, `b (k, n)`, `n` a
/// multiple of 32, `k` at least 1; of pairs of bf16, as in [`tile`], with `PAIRS`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn product<const PAIRS: bool, const RS: usize, const CS: usize>(
    isa: Isa,
    [m, k, n]: [usize; 3],
    a: &[f32],
    b: &[f32],
    ldb: usize,
    c: &mut [f32],
    ldc: usize,
    add: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(k > 0, "a product over nothing");
    assert!(!PAIRS || has_bf16_products(), "pairs on a CPU that does not multiply them");
    assert!(n % NR == 0 && a.len() > (m - 1) * RS + (k - 1) * CS);
    assert!(b.len() >= (k - 1) * ldb + n && c.len() >= (m - 1) * ldc + n);
    for first in (0..m).step_by(MR) {
        let rows = MR.min(m - first);
        for column in (0..n).step_by(NR) {
            let a = &a[first * RS..];
            // SAFETY: the assertions cover the last row, step and column of each operand; `c` is borrowed mutably.
            unsafe {
                let c = c.as_mut_ptr().add(first * ldc + column);
                tile::<PAIRS, RS, CS>(isa, rows, k, a.as_ptr(), b.as_ptr().add(column), ldb, c, ldc, add);
            }
        }
    }
}

/// `R` rows × 32 columns in `2·R` registers of 16 lanes.
///
/// # Safety
/// The CPU has AVX-512 F; for the operands as [`tile`], with `R` rows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize, const RS: usize, const CS: usize>(
    k: usize,
    mut a: *const f32,
    mut b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: rows below R, steps below k and columns below 32 are within the caller's operands.
    unsafe {
        for _ in 0..k {
            let b0 = _mm512_loadu_ps(b);
            let b1 = _mm512_loadu_ps(b.add(16));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(r * RS));
                sums[0] = _mm512_fmadd_ps(x, b0, sums[0]);
                sums[1] = _mm512_fmadd_ps(x, b1, sums[1]);
            }
            a = a.wrapping_add(CS);
            b = b.wrapping_add(ldb);
        }
        store(sums, c, ldc, add);
    }
}

/// [`avx512`] with a pair of bf16 in each lane.
///
/// # Safety
/// The CPU has AVX-512 F and BF16; for the operands as [`tile`], with `R` rows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_pairs<const R: usize, const RS: usize, const CS: usize>(
    k: usize,
    mut a: *const f32,
    mut b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: rows below R, steps below k and columns below 32 are within the caller's operands; any bits are a pair.
    unsafe {
        let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
        for _ in 0..k {
            let b0 = pairs(_mm512_loadu_si512(b.cast()));
            let b1 = pairs(_mm512_loadu_si512(b.add(16).cast()));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = pairs(_mm512_set1_epi32((*a.add(r * RS)).to_bits() as i32));
                sums[0] = _mm512_dpbf16_ps(sums[0], x, b0);
                sums[1] = _mm512_dpbf16_ps(sums[1], x, b1);
            }
            a = a.wrapping_add(CS);
            b = b.wrapping_add(ldb);
        }
        store(sums, c, ldc, add);
    }
}

/// Writes `R` rows × 32 columns, or adds them to what is there.
///
/// # Safety
/// The CPU has AVX-512 F; `c` is valid for `R` rows of 32 numbers, `ldc` apart, which nothing else touches.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn store<const R: usize>(sums: [[__m512; 2]; R], c: *mut f32, ldc: usize, add: bool) {
    for (r, sums) in sums.iter().enumerate() {
        for (half, &sum) in sums.iter().enumerate() {
            // SAFETY: rows below R and columns below 32 are within the caller's output.
            unsafe {
                let c = c.add(r * ldc + half * 16);
                let sum = if add { _mm512_add_ps(_mm512_loadu_ps(c), sum) } else { sum };
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}

/// `R` ≤ 6 rows × 16 columns in `2·R` registers of 8 lanes.
///
/// # Safety
/// The CPU has AVX2 and FMA; for the operands as [`tile`], with `R` rows and 16 columns.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize, const RS: usize, const CS: usize>(
    k: usize,
    mut a: *const f32,
    mut b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: rows below R, steps below k and columns below 16 are within the caller's operands.
    unsafe {
        for _ in 0..k {
            let b0 = _mm256_loadu_ps(b);
            let b1 = _mm256_loadu_ps(b.add(8));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.add(r * RS));
                sums[0] = _mm256_fmadd_ps(x, b0, sums[0]);
                sums[1] = _mm256_fmadd_ps(x, b1, sums[1]);
            }
            a = a.wrapping_add(CS);
            b = b.wrapping_add(ldb);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (half, &sum) in sums.iter().enumerate() {
                let c = c.add(r * ldc + half * 8);
                let sum = if add { _mm256_add_ps(_mm256_loadu_ps(c), sum) } else { sum };
                _mm256_storeu_ps(c, sum);
            }
        }
    }
}

/// One row × 32 columns, in plain Rust: for processors without a kernel of their own.
///
/// # Safety
/// For the operands as [`tile`], with one row.
unsafe fn portable<const CS: usize>(k: usize, a: *const f32, b: *const f32, ldb: usize, c: *mut f32, add: bool) {
    let mut sums = [0.0f32; NR];
    // SAFETY: steps below k and columns below 32 are within the caller's operands.
    unsafe {
        for p in 0..k {
            let x = *a.add(p * CS);
            let b = std::slice::from_raw_parts(b.add(p * ldb), NR);
            sums.iter_mut().zip(b).for_each(|(sum, &b)| *sum = x.mul_add(b, *sum));
        }
        for (j, sum) in sums.into_iter().enumerate() {
            let c = c.add(j);
            c.write(if add { c.read() + sum } else { sum });
        }
    }
}
