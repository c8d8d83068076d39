use super::*;
use crate::ops::cast::to_bf16;
use crate::ops::cpu::simd::tests::{same_on_every_isa, with_and_without_tiles};
use crate::ops::kv_store::blocks_of;
use crate::ops::tests::{assert_close, on_threads, random_tensor, values};

/// Everything attention computes for one sequence, in f64 by the definition.
struct Reference {
    out: Vec<f64>,
    lse: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

/// `q, dout (tq, heads, d)`, `k, v (tk, kv_heads, d)`; `lse` is (heads, tq).
fn reference(q: &[f32], k: &[f32], v: &[f32], dout: &[f32], dims: Dims, [tq, tk]: [usize; 2], scale: f64) -> Reference {
    let Dims { heads, kv_heads, d } = dims;
    let mut r = Reference {
        out: vec![0.0; tq * heads * d],
        lse: vec![0.0; heads * tq],
        dq: vec![0.0; tq * heads * d],
        dk: vec![0.0; tk * kv_heads * d],
        dv: vec![0.0; tk * kv_heads * d],
    };
    for h in 0..heads {
        for i in 0..tq {
            let row = (i * heads + h) * d;
            let at = |j: usize, c: usize| (j * kv_heads + h / (heads / kv_heads)) * d + c;
            let seen = tk - tq + i + 1;
            let scores: Vec<f64> = (0..seen)
                .map(|j| scale * (0..d).map(|c| f64::from(q[row + c]) * f64::from(k[at(j, c)])).sum::<f64>())
                .collect();
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            r.lse[h * tq + i] = total.ln();
            let p: Vec<f64> = scores.iter().map(|s| s.exp() / total).collect();
            let dp: Vec<f64> =
                (0..seen).map(|j| (0..d).map(|c| f64::from(dout[row + c]) * f64::from(v[at(j, c)])).sum()).collect();
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for j in 0..seen {
                let ds = scale * p[j] * (dp[j] - mean);
                for c in 0..d {
                    r.out[row + c] += p[j] * f64::from(v[at(j, c)]);
                    r.dv[at(j, c)] += p[j] * f64::from(dout[row + c]);
                    r.dq[row + c] += ds * f64::from(k[at(j, c)]);
                    r.dk[at(j, c)] += ds * f64::from(q[row + c]);
                }
            }
        }
    }
    r
}

const SHAPES: [Dims; 6] = [
    Dims { heads: 4, kv_heads: 2, d: 64 },
    Dims { heads: 3, kv_heads: 1, d: 128 },
    Dims { heads: 2, kv_heads: 2, d: 16 },
    Dims { heads: 2, kv_heads: 1, d: 32 },
    Dims { heads: 6, kv_heads: 3, d: 8 },
    Dims { heads: 1, kv_heads: 1, d: 40 },
];

#[test]
fn forward_and_backward_equal_an_f64_reference() {
    for dims @ Dims { heads, kv_heads, d } in SHAPES {
        let lengths = [1, 63, 64, 65, 0, 150];
        let offsets = Offsets::from_lengths(&lengths);
        let t = offsets.total();
        let q = random_tensor(1, &[t, heads, d]);
        let dout = random_tensor(2, &[t, heads, d]);
        let k = random_tensor(3, &[t, kv_heads, d]);
        let v = random_tensor(4, &[t, kv_heads, d]);
        let scale = 1.0 / (d as f32).sqrt();
        let (out, lse) = forward(&q, &k, &v, &offsets, &offsets, scale).unwrap();
        let (dq, dk, dv) = backward(&q, &k, &v, &out, &lse, &dout, &offsets, scale).unwrap();
        for range in offsets.ranges() {
            let n = range.len();
            let part = |x: &Tensor| values(&x.narrow(0, range.start, n).unwrap());
            let r = reference(&part(&q), &part(&k), &part(&v), &part(&dout), dims, [n, n], f64::from(scale));
            let what = |name: &str| format!("{name} of {n} rows, {dims:?}");
            assert_close(&part(&out), &r.out, 1e-5, &what("out"));
            assert_close(&values(&lse.narrow(1, range.start, n).unwrap()), &r.lse, 1e-5, &what("lse"));
            assert_close(&part(&dq), &r.dq, 2e-5, &what("dq"));
            assert_close(&part(&dk), &r.dk, 2e-5, &what("dk"));
            assert_close(&part(&dv), &r.dv, 2e-5, &what("dv"));
        }
    }
}

/// Rows whose gradient is 0 are left out, to the bits of all rows: what they would add is 0.
#[test]
fn queries_without_a_gradient_change_no_bit() {
    let Dims { heads, kv_heads, d } = SHAPES[3];
    let offsets = Offsets::from_lengths(&[200]);
    let q = random_tensor(1, &[200, heads, d]);
    let [k, v] = [3, 4].map(|seed| random_tensor(seed, &[200, kv_heads, d]));
    let (out, lse) = forward(&q, &k, &v, &offsets, &offsets, 0.2).unwrap();
    for silent in [63, 64, 130, 199, 200] {
        let gradients = |first: f32| {
            let mut dout = values(&random_tensor(2, &[200, heads, d]));
            dout[..silent * heads * d].fill(0.0);
            dout[0] = first;
            let dout = Tensor::from_vec(dout, (200, heads, d), q.device()).unwrap();
            let (dq, dk, dv) = backward(&q, &k, &v, &out, &lse, &dout, &offsets, 0.2).unwrap();
            [values(&dq), values(&dk), values(&dv)]
        };
        // The smallest number in the first row has every row looked at, and adds nothing that f32 could hold beside the
        // others.
        let flushed = |x: f32| if x.abs() < 1e-30 { 0.0 } else { x };
        let looked_at = gradients(f32::MIN_POSITIVE).map(|all| all.into_iter().map(flushed).collect::<Vec<f32>>());
        assert_eq!(gradients(0.0), looked_at);
    }
}

/// Products of bf16: the reference is given the rounded operands, and what is left is the rounding of probabilities and
/// of the gradient (2⁻⁹ each, relative).
#[test]
fn bf16_stays_within_its_rounding_and_repeats_its_bits() {
    with_and_without_tiles(check_bf16);
}

fn check_bf16() {
    for dims @ Dims { heads, kv_heads, d } in SHAPES {
        let offsets = Offsets::from_lengths(&[1, 63, 65, 150]);
        let t = offsets.total();
        let half = |seed: u64, heads: usize| to_bf16(&random_tensor(seed, &[t, heads, d])).unwrap();
        let q = half(1, heads);
        let k = half(3, kv_heads);
        let v = half(4, kv_heads);
        let dout = half(2, heads).to_dtype(DType::F32).unwrap();
        let scale = 1.0 / (d as f32).sqrt();
        let run = |first: usize, n: usize, offsets: &Offsets| -> Vec<Tensor> {
            let part = |x: &Tensor| x.narrow(0, first, n).unwrap();
            let (out, lse) = forward(&part(&q), &part(&k), &part(&v), offsets, offsets, scale).unwrap();
            let (dq, dk, dv) =
                backward(&part(&q), &part(&k), &part(&v), &out, &lse, &part(&dout), offsets, scale).unwrap();
            vec![out, dq, dk, dv]
        };
        let all = on_threads(2, || run(0, t, &offsets));
        for range in offsets.ranges() {
            let n = range.len();
            let wide = |x: &Tensor| values(&x.narrow(0, range.start, n).unwrap().to_dtype(DType::F32).unwrap());
            let r = reference(&wide(&q), &wide(&k), &wide(&v), &wide(&dout), dims, [n, n], f64::from(scale));
            let alone = run(range.start, n, &Offsets::from_lengths(&[n]));
            for ((all, alone), exact) in all.iter().zip(&alone).zip([&r.out, &r.dq, &r.dk, &r.dv]) {
                assert_eq!(wide(all), values(alone));
                assert_close(&values(alone), exact, 1e-2, &format!("{n} rows, {dims:?}"));
            }
        }
    }
}

/// Central differences of `L = Σ out ⊙ dout` in f64, through the reference's forward pass.
#[test]
fn the_reference_gradient_is_the_slope() {
    let dims = Dims { heads: 2, kv_heads: 1, d: 8 };
    let n = 5;
    let scale = 0.4;
    let q = values(&random_tensor(1, &[n, 2, 8]));
    let k = values(&random_tensor(2, &[n, 1, 8]));
    let v = values(&random_tensor(3, &[n, 1, 8]));
    let dout = values(&random_tensor(4, &[n, 2, 8]));
    let loss = |q: &[f32], k: &[f32], v: &[f32]| -> f64 {
        reference(q, k, v, &dout, dims, [n, n], scale).out.iter().zip(&dout).map(|(o, d)| o * f64::from(*d)).sum()
    };
    let r = reference(&q, &k, &v, &dout, dims, [n, n], scale);
    let step = 1.0 / 256.0;
    let shifted = |x: &[f32], i: usize, by: f32| -> Vec<f32> {
        x.iter().enumerate().map(|(j, x)| if j == i { x + by } else { *x }).collect()
    };
    for i in 0..k.len() {
        let slope = |f: &dyn Fn(f32) -> f64| (f(step) - f(-step)) / (2.0 * f64::from(step));
        assert!((slope(&|by| loss(&shifted(&q, i, by), &k, &v)) - r.dq[i]).abs() < 1e-4);
        assert!((slope(&|by| loss(&q, &shifted(&k, i, by), &v)) - r.dk[i]).abs() < 1e-4);
        assert!((slope(&|by| loss(&q, &k, &shifted(&v, i, by))) - r.dv[i]).abs() < 1e-4);
    }
}

#[test]
fn a_prefill_after_a_cached_prefix_equals_the_whole_to_the_bit() {
    let Dims { heads, kv_heads, d } = SHAPES[0];
    let n = 200;
    let whole = Offsets::from_lengths(&[n]);
    let q = random_tensor(1, &[n, heads, d]);
    let k = random_tensor(2, &[n, kv_heads, d]);
    let v = random_tensor(3, &[n, kv_heads, d]);
    let out = values(&forward(&q, &k, &v, &whole, &whole, 0.125).unwrap().0);
    for past in [1, 63, 64, 65, 130, 199] {
        let tail =
            forward(&q.narrow(0, past, n - past).unwrap(), &k, &v, &Offsets::from_lengths(&[n - past]), &whole, 0.125)
                .unwrap()
                .0;
        assert_eq!(values(&tail), out[past * heads * d..]);
    }
}

#[test]
fn bits_depend_neither_on_batch_nor_threads_nor_instruction_set() {
    for dims in [SHAPES[0], SHAPES[1], SHAPES[4]] {
        let Dims { heads, kv_heads, d } = dims;
        let offsets = Offsets::from_lengths(&[70, 129, 3]);
        let t = offsets.total();
        let q = random_tensor(1, &[t, heads, d]);
        let dout = random_tensor(2, &[t, heads, d]);
        let k = random_tensor(3, &[t, kv_heads, d]);
        let v = random_tensor(4, &[t, kv_heads, d]);
        let run = |first: usize, n: usize, offsets: &Offsets| -> Vec<Vec<f32>> {
            let part = |x: &Tensor| x.narrow(0, first, n).unwrap();
            let q = part(&q);
            let k = part(&k);
            let v = part(&v);
            let dout = part(&dout);
            let (out, lse) = forward(&q, &k, &v, offsets, offsets, 0.2).unwrap();
            let (dq, dk, dv) = backward(&q, &k, &v, &out, &lse, &dout, offsets, 0.2).unwrap();
            [out, dq, dk, dv].iter().map(values).collect()
        };
        let all = same_on_every_isa(|| run(0, t, &offsets));
        assert_eq!(on_threads(2, || run(0, t, &offsets)), all);
        for range in offsets.ranges() {
            let alone = run(range.start, range.len(), &Offsets::from_lengths(&[range.len()]));
            for (alone, all) in alone.iter().zip(&all) {
                let width = all.len() / t;
                assert_eq!(alone[..], all[range.start * width..range.end * width]);
            }
        }
    }
}

fn row(blocks: &[Tensor], len: usize) -> PagedSequence<'_> {
    PagedSequence { blocks: blocks.iter().collect(), len, new: 0 }
}

#[test]
fn decode_equals_the_reference_whatever_is_shared_and_the_batch() {
    for (dims, dtype) in SHAPES.into_iter().flat_map(|dims| [(dims, DType::F32), (dims, DType::BF16)]) {
        let Dims { heads, kv_heads, d } = dims;
        for length in [1, 64, 65, 511, 513, 1100] {
            let q = random_tensor(1, &[3, heads, d]);
            let cached = |seed| random_tensor(seed, &[length, kv_heads, d]).to_dtype(dtype).unwrap();
            let wide = |x: &Tensor| values(&x.to_dtype(DType::F32).unwrap());
            let k = cached(2);
            let v = cached(3);
            let scale = 1.0 / (d as f32).sqrt();
            let blocks = blocks_of(&k, &v).unwrap();
            let out =
                values(&decode(&q, vec![row(&blocks, length), row(&blocks, 1), row(&blocks, length)], scale).unwrap());
            for i in [0, 2] {
                let query = q.narrow(0, i, 1).unwrap();
                let out = &out[i * heads * d..(i + 1) * heads * d];
                let r = reference(
                    &values(&query),
                    &wide(&k),
                    &wide(&v),
                    &values(&query),
                    dims,
                    [1, length],
                    f64::from(scale),
                );
                assert_close(out, &r.out, 1e-5, &format!("{length} keys in {dtype:?}, {dims:?}"));
                let alone = |blocks: &[Tensor]| values(&decode(&query, vec![row(blocks, length)], scale).unwrap());
                assert_eq!(same_on_every_isa(|| alone(&blocks)), out);
                assert_eq!(on_threads(2, || alone(&blocks)), out);
                assert_eq!(alone(&blocks_of(&k, &v).unwrap()), out);
            }
        }
    }
}

/// Rows of one prompt share its full blocks, and go on in their own; a stranger stands among them.
#[test]
fn rows_that_share_blocks_have_the_bits_of_each_alone() {
    let Dims { heads, kv_heads, d } = SHAPES[0];
    let random = |seed, n: usize| random_tensor(seed, &[n, kv_heads, d]);
    let prompt = blocks_of(&random(1, 640), &random(2, 640)).unwrap();
    let lengths = [10, 700, 130, 1, 64, 5, 63, 200, 33, 600];
    let tails: Vec<Vec<Tensor>> =
        (0..).zip(lengths).map(|(i, n)| blocks_of(&random(10 + 2 * i, n), &random(11 + 2 * i, n)).unwrap()).collect();
    let sequences = tails.iter().zip(lengths).enumerate().map(|(i, (tail, n))| match i {
        3 => (tail.clone(), n),
        _ => ([prompt.as_slice(), tail].concat(), 640 + n),
    });
    let sequences: Vec<(Vec<Tensor>, usize)> = sequences.collect();
    let q = random_tensor(3, &[lengths.len(), heads, d]);
    let all = values(&decode(&q, sequences.iter().map(|(blocks, len)| row(blocks, *len)).collect(), 0.2).unwrap());
    for (i, (blocks, len)) in sequences.iter().enumerate() {
        let copies: Vec<Tensor> = blocks.iter().map(|block| block.copy().unwrap()).collect();
        let alone = decode(&q.narrow(0, i, 1).unwrap(), vec![row(&copies, *len)], 0.2).unwrap();
        assert_eq!(values(&alone), all[i * heads * d..(i + 1) * heads * d], "row {i}");
    }
}

/// 122 MB of the longest record: 64 rows of f32 a tile, as wide as the kernel.
#[test]
fn the_scratch_of_backward_in_one_pass_is_counted() {
    assert_eq!(7424 * sums_of_dq(32, 128), (32 * 7424 / 64) * 64 * 128 * 4);
    assert_eq!([sums_of_dq(9, 64), sums_of_dq(3, 10)], [9 * 64 * 4, 3 * 64 * 4]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let q = random_tensor(1, &[3, 4, 8]);
    let k = random_tensor(2, &[3, 3, 8]);
    let offsets = Offsets::from_lengths(&[3]);
    assert!(forward(&q, &k, &k, &offsets, &offsets, 1.0).is_err());
    assert!(forward(&q, &q, &k, &offsets, &offsets, 1.0).is_err());
    assert!(forward(&q, &q, &q, &offsets, &Offsets::from_lengths(&[2]), 1.0).is_err());
    let three = blocks_of(&k, &k).unwrap();
    let rows = |n: usize, len| vec![row(&three, len); n];
    assert!(decode(&q, rows(3, 3), 1.0).is_err(), "4 query heads of 3");
    let q = random_tensor(1, &[3, 3, 8]);
    assert!(decode(&q, rows(3, 3), 1.0).is_ok());
    assert!(decode(&q, rows(2, 3), 1.0).is_err(), "rows");
    assert!(decode(&q, rows(3, 0), 1.0).is_err(), "a row without keys");
    assert!(decode(&q, rows(3, 65), 1.0).is_err(), "keys beyond the blocks");
    assert!(decode(&q, vec![], 1.0).is_err());
    assert!(decode(&random_tensor(1, &[3, 3, 4]), rows(3, 3), 1.0).is_err(), "head_dim");
}
