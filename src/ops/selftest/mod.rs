//! Every op on a device against a plain f64 reference: what `clsgen selftest` prints.
//!
//! Forward passes are compared with the textbook formula in f64; backward passes with central differences of that same
//! formula, so no derivative is trusted twice. Errors are ‖ours − reference‖ / ‖reference‖.

mod attention;
mod attention_bf16;
mod elementwise;
mod reference;
mod rows;

use candle_core::{DType, Device, Tensor};

use crate::{
    error::Result,
    rng::{Rng, streams},
};

/// One op's pass and how far it is from its reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The op, with what is special about the case.
    pub op: &'static str,
    /// `forward`, `backward`, or the name of the function.
    pub pass: &'static str,
    /// ‖ours − reference‖ / ‖reference‖.
    pub error: f64,
    /// The most it may be.
    pub bound: f64,
}

impl Row {
    /// Within its bound? (Not a number is not.)
    pub fn ok(&self) -> bool {
        self.error <= self.bound
    }
}

/// Runs every check on `device`.
pub fn run(device: &Device) -> Result<Vec<Row>> {
    let mut bench = Bench { device, rows: Vec::new() };
    rows::linear(&mut bench)?;
    rows::rms_norm(&mut bench)?;
    rows::cross_entropy(&mut bench)?;
    rows::embedding(&mut bench)?;
    attention::rope(&mut bench)?;
    attention::attention(&mut bench)?;
    attention::decode(&mut bench)?;
    elementwise::swiglu(&mut bench)?;
    elementwise::activation(&mut bench)?;
    elementwise::dropout(&mut bench)?;
    elementwise::adamw(&mut bench)?;
    Ok(bench.rows)
}

/// Bound of a pass in f32 with a few hundred terms a sum.
const F32: f64 = 2e-6;
/// Bound of a pass that rounds intermediate numbers to bf16 (2⁻⁹ each at most) on the way.
const BF16: f64 = 4e-3;

/// The device and the rows so far.
struct Bench<'a> {
    device: &'a Device,
    rows: Vec<Row>,
}

impl Bench<'_> {
    /// Compares a tensor with all of its reference.
    fn check(&mut self, op: &'static str, pass: &'static str, ours: &Tensor, reference: &[f64], bound: f64) -> Result<()> {
        let ours = numbers(ours)?;
        self.compare(op, pass, &ours, reference, bound);
        Ok(())
    }

    /// Compares elements `at` of a tensor with a reference that has only those.
    fn check_at(&mut self, op: &'static str, pass: &'static str, ours: &Tensor, at: &[usize], reference: &[f64], bound: f64) -> Result<()> {
        let all = numbers(ours)?;
        let ours: Vec<f64> = at.iter().map(|&i| all.get(i).copied().unwrap_or(f64::NAN)).collect();
        self.compare(op, pass, &ours, reference, bound);
        Ok(())
    }

    fn compare(&mut self, op: &'static str, pass: &'static str, ours: &[f64], reference: &[f64], bound: f64) {
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let distance = norm(&mut ours.iter().zip(reference).map(|(a, b)| a - b));
        let error = if ours.len() == reference.len() { distance / norm(&mut reference.iter().copied()) } else { f64::NAN };
        self.rows.push(Row { op, pass, error, bound });
    }

    /// f32 values on the device, and the same in f64.
    fn random(&self, seed: u64, dims: &[usize]) -> Result<(Tensor, Vec<f64>)> {
        let values = normals(seed, dims.iter().product());
        let tensor = Tensor::from_vec(values.clone(), dims, &Device::Cpu)?.to_device(self.device)?;
        Ok((tensor, values.into_iter().map(f64::from).collect()))
    }
}

/// A tensor's elements in f64.
fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    let values = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
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
        let rows = run(&Device::Cpu).unwrap();
        let missed: Vec<&Row> = rows.iter().filter(|row| !row.ok()).collect();
        assert!(missed.is_empty(), "{missed:?}");
        for op in ["linear", "rms_norm", "rope", "attention", "swiglu", "cross_entropy", "dropout", "embedding", "adamw"] {
            assert!(rows.iter().any(|row| row.op.starts_with(op)), "{op} is not tested");
        }
    }

    #[test]
    fn a_wrong_result_is_a_miss() {
        let mut bench = Bench { device: &Device::Cpu, rows: Vec::new() };
        let (ours, reference) = bench.random(1, &[10]).unwrap();
        bench.check("x", "right", &ours, &reference, F32).unwrap();
        bench.check("x", "scaled", &(ours.clone() * 1.0001).unwrap(), &reference, F32).unwrap();
        bench.check("x", "short", &ours.narrow(0, 0, 9).unwrap(), &reference, F32).unwrap();
        bench.check("x", "nan", &(ours * f64::NAN).unwrap(), &reference, F32).unwrap();
        assert_eq!(bench.rows.iter().map(Row::ok).collect::<Vec<_>>(), [true, false, false, false]);
    }
}
