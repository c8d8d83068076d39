use candle_core::{DType, Device, Tensor};
use half::bf16;

use super::*;
use crate::ops::cpu::simd::tests::{same_on_every_isa, with_and_without_tiles};
use crate::ops::linear::{decode_add, scaled_decode_each, scaled_forward_each};
use crate::ops::tests::{on_threads, random, values};

/// `f64` product by the definition, with operands read through closures.
fn reference([m, k, n]: [usize; 3], a: impl Fn(usize, usize) -> f32, b: impl Fn(usize, usize) -> f32) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            y[i * n + j] = (0..k).map(|p| f64::from(a(i, p)) * f64::from(b(p, j))).sum();
        }
    }
    y
}

fn assert_close(y: &[f32], expected: &[f64], k: usize, what: &str) {
    for (i, (y, e)) in y.iter().zip(expected).enumerate() {
        let tolerance = 2e-6 * (k as f64).sqrt() * (1.0 + e.abs());
        assert!((f64::from(*y) - e).abs() <= tolerance, "{what}: element {i} is {y}, not {e}");
    }
}

const SIZES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [1, 64, 65],
    [63, 65, 64],
    [64, 63, 1],
    [14, 512, 32],
    [15, 513, 33],
    [65, 1030, 63],
    [200, 70, 600],
    [29, 8, 1100],
    [300, 33, 8],
    [14, 600, 8],
    [33, 600, 14],
];

#[test]
fn products_equal_an_f64_reference_on_every_instruction_set() {
    for (seed, sizes @ [m, k, n]) in SIZES.into_iter().enumerate() {
        let x = random(seed as u64, m * k);
        let w = random(seed as u64 + 100, n * k);
        let run = |f: &(dyn Fn(&mut [f32]) + Sync)| {
            same_on_every_isa(|| {
                let mut y = vec![f32::NAN; m * n];
                f(&mut y);
                y
            })
        };
        let what = format!("{sizes:?}");
        let y = run(&|y| x_wt(&x, [m, k], [Rhs { w: Weight::F32(&w), n, y: Output::initialised(y) }], false));
        assert_close(&y, &reference(sizes, |i, p| x[i * k + p], |p, j| w[j * k + p]), k, &what);
        let y = run(&|y| dy_w(&x, Weight::F32(&w), sizes, Output::initialised(y), false));
        assert_close(&y, &reference(sizes, |i, p| x[i * k + p], |p, j| w[p * n + j]), k, &what);
        let y = run(&|y| dyt_x(&x, &w, sizes, Output::initialised(y)));
        assert_close(&y, &reference(sizes, |i, p| x[p * m + i], |p, j| w[p * n + j]), k, &what);
        let y = run(&|y| {
            super::super::skinny_gemm::x_wt(&x, [m, k], [Rhs { w: Weight::F32(&w), n, y: Output::initialised(y) }])
        });
        assert_close(&y, &reference(sizes, |i, p| x[i * k + p], |p, j| w[j * k + p]), k, &what);
    }
}

#[test]
fn bf16_weights_meet_rounded_activations() {
    for (seed, sizes @ [m, k, n]) in SIZES.into_iter().enumerate() {
        let x = random(seed as u64, m * k);
        let w = random(seed as u64 + 100, n * k);
        let halves: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
        let narrow = |x: f32| bf16::from_f32(x).to_f32();
        let forward = reference(sizes, |i, p| narrow(x[i * k + p]), |p, j| narrow(w[j * k + p]));
        let backward = reference(sizes, |i, p| narrow(x[i * k + p]), |p, j| narrow(w[p * n + j]));
        with_and_without_tiles(|| {
            let mut y = vec![f32::NAN; m * n];
            x_wt(&x, [m, k], [Rhs { w: Weight::Bf16(&halves), n, y: Output::initialised(&mut y) }], false);
            assert_close(&y, &forward, k, "x_wt");
            y.fill(f32::NAN);
            dy_w(&x, Weight::Bf16(&halves), sizes, Output::initialised(&mut y), false);
            assert_close(&y, &backward, k, "dy_w");
        });
        let mut y = vec![f32::NAN; m * n];
        super::super::skinny_gemm::x_wt(
            &x,
            [m, k],
            [Rhs { w: Weight::Bf16(&halves), n, y: Output::initialised(&mut y) }],
        );
        assert_close(&y, &forward, k, "few rows");
    }
}

#[test]
fn products_add_to_what_is_there() {
    let sizes @ [m, k, n] = [70, 8, 100];
    let x = random(1, m * k);
    let w = random(2, n * k);
    let y = random(3, m * n);
    let halves: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
    let check = |multiply: &dyn Fn(&mut [f32], bool)| {
        let mut sum = y.clone();
        let mut product = vec![f32::NAN; m * n];
        multiply(&mut sum, true);
        multiply(&mut product, false);
        assert_eq!(sum, y.iter().zip(&product).map(|(y, product)| y + product).collect::<Vec<_>>());
    };
    for w in [Weight::F32(&w), Weight::Bf16(&halves)] {
        with_and_without_tiles(|| {
            check(&|y, add| x_wt(&x, [m, k], [Rhs { w, n, y: Output::initialised(y) }], add));
            check(&|y, add| dy_w(&x, w, sizes, Output::initialised(y), add));
        });
    }
}

#[test]
fn several_weights_together_give_the_bits_of_each_alone() {
    let k = 1100;
    let x = random(1, 70 * 1100);
    let tensor = |values: Vec<f32>, n: usize| Tensor::from_vec(values, (n, k), &Device::Cpu).unwrap();
    let bias = Tensor::from_vec(random(9, 96), 96, &Device::Cpu).unwrap();
    for dtypes in [[DType::F32; 3], [DType::BF16; 3], [DType::F32, DType::BF16, DType::F32]] {
        let weights: Vec<Tensor> = [300, 96, 8]
            .iter()
            .zip(dtypes)
            .map(|(&n, d)| tensor(random(n as u64, n * k), n).to_dtype(d).unwrap())
            .collect();
        let each = [(&weights[0], None), (&weights[1], Some(&bias)), (&weights[2], None)];
        for rows in [1, 3, 70] {
            let x = tensor(x[..rows * k].to_vec(), rows);
            let together = crate::ops::linear::forward_each(&x, each).unwrap();
            let decoded = crate::ops::linear::decode_each(&x, each).unwrap();
            for (i, (weight, bias)) in each.into_iter().enumerate() {
                assert_eq!(values(&together[i]), values(&crate::ops::linear::forward(&x, weight, bias).unwrap()));
                assert_eq!(values(&decoded[i]), values(&crate::ops::linear::decode(&x, weight, bias).unwrap()));
            }
            let scaled = scaled_forward_each(&x, [&weights[0], &weights[2]], 0.3).unwrap();
            let scaled_decoded = scaled_decode_each(&x, [&weights[0], &weights[2]], 0.3).unwrap();
            for (i, together) in [(0, &together[0]), (1, &together[2])] {
                assert_eq!(values(&scaled[i]), values(together).iter().map(|y| y * 0.3).collect::<Vec<_>>());
            }
            assert_eq!(values(&scaled_decoded[1]), values(&decoded[2]).iter().map(|y| y * 0.3).collect::<Vec<_>>());
            let onto = decode_add(decoded[0].copy().unwrap(), &x, &weights[0]).unwrap();
            assert_eq!(values(&onto), values(&decoded[0]).iter().map(|y| y + y).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads() {
    let m = 150;
    let k = 1100;
    let n = 700;
    let x = Tensor::from_vec(random(1, m * k), (m, k), &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::BF16] {
        let w = Tensor::from_vec(random(2, n * k), (n, k), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        type Op = fn(&Tensor, &Tensor) -> Tensor;
        let forward: Op = |x, w| crate::ops::linear::forward(x, w, None).unwrap();
        let decode: Op = |x, w| crate::ops::linear::decode(x, w, None).unwrap();
        // Training leaves rows without a gradient out of some products.
        let backward: Op = |x, w| crate::ops::linear::backward_input(x, &w.t().unwrap().contiguous().unwrap()).unwrap();
        let check = |op: Op| {
            let whole = values(&op(&x, &w));
            for threads in [1, 2, 3] {
                assert_eq!(values(&on_threads(threads, || op(&x, &w))), whole);
            }
            for (first, rows) in [(0, 1), (149, 1), (13, 2), (14, 7), (5, 100)] {
                let part = op(&x.narrow(0, first, rows).unwrap(), &w);
                assert_eq!(values(&part), whole[first * n..(first + rows) * n]);
            }
        };
        with_and_without_tiles(|| check(forward));
        with_and_without_tiles(|| check(backward));
        check(decode);
    }
}

#[test]
fn the_bias_is_added_to_every_row_and_shapes_are_checked() {
    let x = Tensor::from_vec(random(1, 3 * 5), (3, 5), &Device::Cpu).unwrap();
    let w = Tensor::from_vec(random(2, 4 * 5), (4, 5), &Device::Cpu).unwrap();
    let b = Tensor::from_vec(random(3, 4), 4, &Device::Cpu).unwrap();
    let expected = x.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
    for y in
        [crate::ops::linear::forward(&x, &w, Some(&b)).unwrap(), crate::ops::linear::decode(&x, &w, Some(&b)).unwrap()]
    {
        for (y, e) in values(&y).iter().zip(values(&expected)) {
            assert!((y - e).abs() < 1e-5);
        }
    }
    assert!(crate::ops::linear::forward(&w, &b, None).is_err());
    assert!(crate::ops::linear::forward(&x, &w.t().unwrap(), None).is_err());
    assert!(crate::ops::linear::forward(&x, &w, Some(&x)).is_err());
}
