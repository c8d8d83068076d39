//! The device's own limits: products of bf16 by its library, bytes copied and bytes read.

use candle_core::{DType, Tensor};
use clsgen::{
    error::Result,
    ops::{grad_norm, linear, random},
    rng::{Rng, streams},
};

use crate::{Subject, report::Report};

pub fn measure(subject: &Subject, report: &mut Report) {
    report.attempt("ceiling: product", |report| product(subject, report));
    report.attempt("ceiling: copy", |report| memory(subject, report));
}

/// The best of several shapes: the library has kernels for each.
fn product(subject: &Subject, report: &mut Report) -> Result<()> {
    let shapes: &[[usize; 3]] = if subject.device.is_cuda() {
        &[[8192, 8192, 8192], [16_384, 8192, 8192], [7424, 4096, 14_336]]
    } else {
        &[[1024, 1024, 1024]]
    };
    let mut best = f64::NAN;
    for &[m, k, n] in shapes {
        let operand = |step, shape: [usize; 2], dtype| {
            random::normal(Rng::new(1, streams::MODEL_INIT), step, 1.0, (shape[0], shape[1]), dtype, &subject.device)
        };
        let x = operand(1, [m, k], subject.activations())?;
        let w = operand(2, [n, k], DType::BF16)?;
        let seconds = report.time(|| linear::forward(&x, &w, None))?;
        let operations = 2.0 * (m * k * n) as f64;
        best = best.max(operations / seconds);
        report.row(
            &format!("ceiling: product {m} x {k} x {n}, bf16"),
            Some(seconds),
            format!("{:.1} TFLOP/s", operations / seconds / 1e12),
            None,
        );
    }
    report.ceilings.operations = best;
    Ok(())
}

/// A copy reads and writes each byte; a sum of squares only reads.
fn memory(subject: &Subject, report: &mut Report) -> Result<()> {
    let numbers = if subject.device.is_cuda() { 1usize << 30 } else { 1 << 24 };
    let x = Tensor::ones(numbers, DType::F32, &subject.device)?;
    let copy = report.time(|| Ok(x.copy()?))?;
    let read = report.time(|| grad_norm([&x]))?;
    let bytes = 4.0 * numbers as f64;
    let rates = [("copied", copy, 2.0 * bytes / copy), ("read", read, bytes / read)];
    for (what, seconds, rate) in rates {
        report.row(
            &format!("ceiling: {:.1} GB {what}", bytes / 1e9),
            Some(seconds),
            format!("{:.0} GB/s", rate / 1e9),
            None,
        );
    }
    report.ceilings.bytes = rates[0].2.max(rates[1].2);
    Ok(())
}
