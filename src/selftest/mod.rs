//! Every op on a device against a plain f64 reference, then whole training passes in bf16 against f32: the rows that
//! `clsgen selftest` prints. Layer 5.
//!
//! Forward passes are compared with the textbook formula in f64; backward passes with central differences of that same
//! formula, so no derivative is trusted twice. Errors are ‖ours − reference‖ / ‖reference‖.

mod attention;
mod attention_bf16;
mod bf16;
mod decoding;
mod elementwise;
mod export;
mod fp8;
mod lora;
mod reference;
mod rows;
mod sample;
mod training;

use candle_core::{DType, Device, Tensor};
pub use export::export;

use crate::{
    error::Result,
    model::ModelSource,
    ops::{
        attention::has_wgmma,
        cuda::{ATTENTION, ATTENTION_BACKWARD, DECODE, LORA, Switch},
    },
    rng::{Rng, streams},
};

/// One op's pass and how far it is from its reference.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckResult {
    /// The op, with what is special about the case.
    pub op: &'static str,
    /// `forward`, `backward`, or the name of the function.
    pub pass: String,
    /// Shape of the result, `rows x columns`.
    pub shape: String,
    /// ‖ours − reference‖ / ‖reference‖.
    pub error: f64,
    /// The most it may be.
    pub bound: f64,
}

impl CheckResult {
    /// Within its bound? (Not a number is not.)
    pub fn ok(&self) -> bool {
        self.error <= self.bound
    }
}

/// What can be checked alone: the first word of a [`CheckResult::op`], and the training passes.
pub const OPS: [&str; 18] = [
    "linear",
    "lora",
    "rms_norm",
    "cross_entropy",
    "embedding",
    "rope",
    "attention",
    "attention_long",
    "swiglu",
    "activation",
    "dropout",
    "random",
    "quantize",
    "adamw",
    "sample",
    "add",
    "decoding",
    "training",
];

/// Those of [`OPS`] that have no check on a CPU: other kernels, or lengths, than it has.
pub const ON_A_GPU_ALONE: [&str; 2] = ["attention_long", "add"];

/// Runs the checks of these [`OPS`], all of them where none is named, on `device`; the last is a training pass of
/// `given`. A check that fails altogether is a miss, and the others go on.
///
/// # Errors
/// The given model cannot be read; the host has no memory for its pass (exit 5, before anything is run).
pub fn run(device: &Device, only: &[String], given: Option<&ModelSource>) -> Result<Vec<CheckResult>> {
    let given = given.filter(|_| only.is_empty() || only.iter().any(|op| op == "training"));
    if let Some(source) = given {
        training::check_memory(source)?;
    }
    let mut rows = ops(device, only);
    rows.extend(decoding::rows(device, only));
    rows.extend(training::tiny(device, only, ""));
    if device.is_cuda() {
        let all = [&ATTENTION, &ATTENTION_BACKWARD, &DECODE, &LORA];
        rows.extend(Switch::turned(&all, || training::tiny(device, only, OTHERS)));
        // Both of attention's switches turned is one pass by mma.sync: that by wgmma is trained by here.
        if has_wgmma(device).unwrap_or(false) {
            rows.extend(Switch::turned(&[&ATTENTION_BACKWARD], || training::tiny(device, only, OTHER_PASSES)));
        }
    }
    if let Some(source) = given {
        rows.extend(training::model(source, device)?);
    }
    Ok(rows)
}

/// The checks of single ops.
fn ops(device: &Device, only: &[String]) -> Vec<CheckResult> {
    let mut bench = Bench::new(device, only);
    bench.attempt("linear", rows::linear);
    bench.attempt("lora", lora::lora);
    bench.attempt("rms_norm", rows::rms_norm);
    bench.attempt("cross_entropy", rows::cross_entropy);
    bench.attempt("embedding", rows::embedding);
    bench.attempt("rope", attention::rope);
    bench.attempt("attention", attention::attention);
    bench.attempt("attention, decode", attention::decode);
    bench.attempt("swiglu", elementwise::swiglu);
    bench.attempt("activation", elementwise::activation);
    bench.attempt("dropout", elementwise::dropout);
    bench.attempt("random", elementwise::random);
    bench.attempt("quantize", elementwise::quantize);
    bench.attempt("quantize, fp8", fp8::fp8);
    bench.attempt("adamw", elementwise::adamw);
    bench.attempt("sample", sample::sample);
    if device.is_cuda() {
        bench.attempt("attention_long", attention_bf16::long);
        bf16::all(&mut bench);
        other_kernels(&mut bench);
    }
    bench.rows
}

/// The same once more by the other kernels, where a pass has two: attention by mma.sync instead of wgmma, or over the
/// keys once instead of twice; rows that share keys decoded together; adapters fused. Or the other way round, where the
/// environment has asked for these.
fn other_kernels(bench: &mut Bench<'_>) {
    let ways: &[(&str, &[&Switch])] = if has_wgmma(bench.device).unwrap_or(false) {
        &[
            (", other products", &[&ATTENTION]),
            (OTHER_PASSES, &[&ATTENTION_BACKWARD]),
            (", other products and passes", &[&ATTENTION, &ATTENTION_BACKWARD]),
        ]
    } else {
        &[(OTHER_PASSES, &[&ATTENTION_BACKWARD])]
    };
    for &(note, switches) in ways {
        bench.note = note;
        Switch::turned(switches, || {
            bench.attempt("attention", attention::attention);
            bench.attempt("attention_long", attention_bf16::long);
        });
    }
    bench.note = OTHERS;
    Switch::turned(&[&DECODE, &LORA], || {
        bench.attempt("lora", lora::lora);
        bench.attempt("attention, decode", attention::decode);
    });
}

/// Behind the name of a pass by the kernels that are not the usual ones.
const OTHERS: &str = ", other kernels";
/// The same where the backward alone goes another way.
const OTHER_PASSES: &str = ", other passes";
/// Bound of a pass in f32 with a few hundred terms a sum.
const F32: f64 = 2e-6;
/// Bound of a pass that rounds intermediate numbers to bf16 (2⁻⁹ each at most) on the way.
const BF16: f64 = 4e-3;

/// The device and the rows so far.
///
/// Inputs are made on the host and copied to the device: the build for GPUs has candle's kernels for what commands
/// compute, and those alone.
struct Bench<'a> {
    device: &'a Device,
    only: &'a [String],
    /// Behind the name of each pass.
    note: &'static str,
    rows: Vec<CheckResult>,
}

impl<'a> Bench<'a> {
    fn new(device: &'a Device, only: &'a [String]) -> Self {
        Self { device, only, note: "", rows: Vec::new() }
    }

    /// Runs the checks of one op, if it is among those asked for; an error becomes a row.
    fn attempt(&mut self, op: &'static str, checks: impl FnOnce(&mut Self) -> Result<()>) {
        let name = op.split(',').next().unwrap_or(op);
        if !self.only.is_empty() && !self.only.iter().any(|only| only == name) {
            return;
        }
        if let Err(error) = checks(self) {
            tracing::error!("{op}: {error}");
            self.push(op, "stopped", &[], f64::NAN, 0.0);
        }
    }

    fn push(&mut self, op: &'static str, pass: &'static str, dims: &[usize], error: f64, bound: f64) {
        let shape = dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        self.rows.push(CheckResult { op, pass: format!("{pass}{}", self.note), shape, error, bound });
    }

    /// Compares a tensor with all of its reference.
    fn check(
        &mut self,
        op: &'static str,
        pass: &'static str,
        ours: &Tensor,
        reference: &[f64],
        bound: f64,
    ) -> Result<()> {
        let values = numbers(ours)?;
        self.compare(op, pass, ours.dims(), &values, reference, bound);
        Ok(())
    }

    /// Compares elements `at` of a tensor with a reference that has only those.
    fn check_at(
        &mut self,
        op: &'static str,
        pass: &'static str,
        ours: &Tensor,
        at: &[usize],
        reference: &[f64],
        bound: f64,
    ) -> Result<()> {
        let all = numbers(ours)?;
        let values: Vec<f64> = at.iter().map(|&i| all.get(i).copied().unwrap_or(f64::NAN)).collect();
        self.compare(op, pass, ours.dims(), &values, reference, bound);
        Ok(())
    }

    /// `dims` is the result's shape, of which `ours` may be a part.
    fn compare(
        &mut self,
        op: &'static str,
        pass: &'static str,
        dims: &[usize],
        ours: &[f64],
        reference: &[f64],
        bound: f64,
    ) {
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let distance = norm(&mut ours.iter().zip(reference).map(|(a, b)| a - b));
        let size = norm(&mut reference.iter().copied());
        // Nothing but zeros expected and given is no error.
        let error = if ours.len() != reference.len() {
            f64::NAN
        } else if distance == 0.0 {
            0.0
        } else {
            distance / size
        };
        self.push(op, pass, dims, error, bound);
    }

    /// f32 values on the device, and the same in f64.
    fn random(&self, seed: u64, dims: &[usize]) -> Result<(Tensor, Vec<f64>)> {
        self.random_as(seed, dims, DType::F32)
    }

    /// Values of a type on the device, and the same, rounded to it, in f64.
    fn random_as(&self, seed: u64, dims: &[usize], dtype: DType) -> Result<(Tensor, Vec<f64>)> {
        let host = Tensor::from_vec(normals(seed, dims.iter().product()), dims, &Device::Cpu)?.to_dtype(dtype)?;
        Ok((host.to_device(self.device)?, numbers(&host)?))
    }

    /// A tensor in another type, by way of the host.
    fn cast(&self, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
        Ok(tensor.to_device(&Device::Cpu)?.to_dtype(dtype)?.to_device(self.device)?)
    }
}

/// A tensor's elements in f64.
fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().map(f64::from).collect())
}

fn normals(seed: u64, n: usize) -> Vec<f32> {
    let rng = Rng::new(seed, streams::MODEL_INIT);
    (0..n as u64).map(|i| rng.normal(0, i)).collect()
}

/// `count` distinct-enough indices below `n`, all of them when `n` is small.
fn some_of(n: usize, count: usize) -> Vec<usize> {
    if n <= count { (0..n).collect() } else { (0..count).map(|i| i * n / count + (i * 7) % (n / count)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_is_within_its_bound_on_the_cpu() {
        let rows = ops(&Device::Cpu, &[]);
        let missed: Vec<&CheckResult> = rows.iter().filter(|row| !row.ok()).collect();
        assert!(missed.is_empty(), "{missed:?}");
        for op in [
            "linear",
            "lora",
            "rms_norm",
            "rope",
            "attention",
            "swiglu",
            "cross_entropy",
            "dropout",
            "embedding",
            "adamw",
            "sample",
        ] {
            assert!(rows.iter().any(|row| row.op.starts_with(op)), "{op} is not tested");
        }
        let one = ops(&Device::Cpu, &["rope".into()]);
        assert!(!one.is_empty() && one.iter().all(|row| row.op.starts_with("rope")), "{one:?}");
        assert_eq!(one, rows.into_iter().filter(|row| row.op.starts_with("rope")).collect::<Vec<_>>());
    }

    #[test]
    fn a_wrong_result_is_a_miss() {
        let mut bench = Bench::new(&Device::Cpu, &[]);
        let (ours, reference) = bench.random(1, &[10]).unwrap();
        bench.check("x", "right", &ours, &reference, F32).unwrap();
        bench.check("x", "scaled", &(ours.clone() * 1.0001).unwrap(), &reference, F32).unwrap();
        bench.check("x", "short", &ours.narrow(0, 0, 9).unwrap(), &reference, F32).unwrap();
        bench.check("x", "nan", &(ours * f64::NAN).unwrap(), &reference, F32).unwrap();
        bench.attempt("y", |_| Err(crate::error::Error::run("no")));
        assert_eq!(bench.rows.iter().map(CheckResult::ok).collect::<Vec<_>>(), [true, false, false, false, false]);
        assert_eq!((bench.rows[0].shape.as_str(), bench.rows[4].op), ("10", "y"));
    }
}
