//! Textbook formulas in f64, and central differences of them.

/// `y (m, out) = x (m, in)·wᵀ + b`, `w (out, in)`.
pub(super) fn linear(x: &[f64], w: &[f64], b: Option<&[f64]>, n_in: usize) -> Vec<f64> {
    let n_out = w.len() / n_in;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    x.chunks(n_in)
        .flat_map(|row| (0..n_out).map(move |o| dot(row, &w[o * n_in..(o + 1) * n_in]) + b.map_or(0.0, |b| b[o])))
        .collect()
}

/// The transpose of a matrix with `columns` columns.
pub(super) fn transpose(a: &[f64], columns: usize) -> Vec<f64> {
    let rows = a.len() / columns;
    (0..a.len()).map(|i| a[(i % rows) * columns + i / rows]).collect()
}

/// `x·w / √(mean(x²) + eps)`, row by row.
pub(super) fn rms_norm(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    x.chunks(w.len())
        .flat_map(|row| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            row.iter().zip(w).map(move |(x, w)| x * w / (mean + eps).sqrt())
        })
        .collect()
}

/// Each row's `log Σ exp(logits) − logits[target]`.
pub(super) fn cross_entropy(logits: &[f64], targets: &[u32]) -> Vec<f64> {
    let vocab = logits.len() / targets.len();
    logits
        .chunks(vocab)
        .zip(targets)
        .map(|(row, &target)| {
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln() - row[target as usize]
        })
        .collect()
}

/// Rotates the pair of channels (c, c + head_dim/2) by `position·frequency[c]` (HF's `rotate_half`);
/// `x (tokens, heads, head_dim)`.
pub(super) fn rope(x: &[f64], positions: &[u32], heads: usize, frequencies: &[f64]) -> Vec<f64> {
    let half = frequencies.len();
    let mut y = x.to_vec();
    for (i, head) in y.chunks_mut(2 * half).enumerate() {
        for (c, frequency) in frequencies.iter().enumerate() {
            let (sin, cos) = (f64::from(positions[i / heads]) * frequency).sin_cos();
            let a = head[c];
            let b = head[c + half];
            (head[c], head[c + half]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
    y
}

/// Query heads, key/value heads and head dimension.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub d: usize,
}

/// `softmax(scale·q·kᵀ)·v` of one sequence, causal and aligned to the last key: query `i` of `n` sees keys
/// `0..=m − n + i` of `m ≥ n`. Query head h reads kv head ⌊h·kv_heads/heads⌋.
pub(super) fn attention(q: &[f64], k: &[f64], v: &[f64], shape: Heads, scale: f64) -> Vec<f64> {
    let Heads { heads, kv_heads, d } = shape;
    let n = q.len() / (heads * d);
    let m = k.len() / (kv_heads * d);
    let mut out = vec![0.0; q.len()];
    for i in 0..n {
        for h in 0..heads {
            let query = &q[(i * heads + h) * d..][..d];
            let of = |all: &[f64], j: usize, c: usize| all[(j * kv_heads + h * kv_heads / heads) * d + c];
            let scores: Vec<f64> =
                (0..=m - n + i).map(|j| scale * (0..d).map(|c| query[c] * of(k, j, c)).sum::<f64>()).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for c in 0..d {
                out[(i * heads + h) * d + c] =
                    scores.iter().enumerate().map(|(j, s)| (s - max).exp() / total * of(v, j, c)).sum();
            }
        }
    }
    out
}

/// `gate·sigmoid(gate)·up`.
pub(super) fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
}

/// `x·Φ(x)`, with erf by its Maclaurin series, so as not to share a formula with the op (for |x| < 5, where its terms
/// do not cancel too far).
pub(super) fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let mut term = z;
    let mut sum = z;
    for n in 1..120 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    0.5 * x * (1.0 + sum * 2.0 / std::f64::consts::PI.sqrt())
}

/// Vector–Jacobian product `dyᵀ·∂f/∂x` at the indices `at`, by central differences.
pub(super) fn gradient(x: &[f64], at: &[usize], dy: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    at.iter()
        .map(|&i| {
            let value = x[i];
            x[i] = value + STEP;
            let above = f(&x);
            x[i] = value - STEP;
            let below = f(&x);
            x[i] = value;
            // Difference first, then sum: most outputs do not depend on x[i], and must cancel exactly.
            above.iter().zip(&below).zip(dy).map(|((a, b), dy)| (a - b) * dy).sum::<f64>() / (2.0 * STEP)
        })
        .collect()
}
