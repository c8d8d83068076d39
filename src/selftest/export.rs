//! Inputs and our outputs of the kernels, for a comparison with PyTorch on the same machine: `tests/golden/kernels.py`.
//!
//! A tensor's name is `OP/CASE/in/NAME` or `OP/CASE/out/NAME`; gradients are called d and the input they are of,
//! gradients given `dy`. Inputs hold what bf16 holds; activations are of the type the device computes in (bf16, on a
//! CPU f32). Integers are written as f32.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::{
    Bench,
    attention_bf16::{blocks, table},
};
use crate::{
    error::Result,
    ops::{
        Offsets, attention, cross_entropy, embedding, linear, rms_norm,
        rope::{Rope, RopeParameters, RopeScaling},
        swiglu,
    },
};

/// Every case on `device`. Long ones only on a GPU: a CPU would take minutes.
pub fn export(device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let mut export = Export { bench: Bench::new(device, &[]), tensors: BTreeMap::new() };
    let long = if device.is_cuda() { 7424 } else { 257 };
    for lengths in [vec![1], vec![63], vec![64], vec![65], vec![65, 1, 200, 63, 128, 64], vec![long]] {
        for shape in [[9, 3, 64], [8, 2, 128]] {
            export.attention(&lengths, shape)?;
        }
    }
    for shape in [[9, 3, 64], [8, 2, 128]] {
        export.decode(shape)?;
    }
    for dims in [[1, 576], [63, 576], [65, 4096], [5, 63]] {
        export.rms_norm(dims)?;
        export.swiglu(dims)?;
        export.linear(dims)?;
    }
    for [heads, kv_heads, d] in [[9, 3, 64], [32, 8, 128], [3, 1, 10]] {
        export.rope(heads, kv_heads, d)?;
    }
    for dims in [[65, 63], [64, 49_152], [3, 128_256]] {
        export.cross_entropy(dims)?;
    }
    export.embedding()?;
    Ok(export.tensors)
}

struct Export<'a> {
    bench: Bench<'a>,
    tensors: BTreeMap<String, Tensor>,
}

impl Export<'_> {
    /// Values that bf16 holds, as f32: weights and adapters that are kept in f32.
    fn rounded(&self, seed: u64, dims: &[usize]) -> Result<Tensor> {
        self.bench.cast(&self.operand(seed, dims)?, DType::F32)
    }

    /// Values in bf16: weights, and what attention reads.
    fn operand(&self, seed: u64, dims: &[usize]) -> Result<Tensor> {
        Ok(self.bench.random_as(seed, dims, DType::BF16)?.0)
    }

    /// Values in the device's type of activations.
    fn activation(&self, seed: u64, dims: &[usize]) -> Result<Tensor> {
        if self.bench.device.is_cuda() { self.operand(seed, dims) } else { self.rounded(seed, dims) }
    }

    fn put(&mut self, case: &str, side: &str, tensors: &[(&str, &Tensor)]) -> Result<()> {
        for (name, tensor) in tensors {
            self.tensors.insert(format!("{case}/{side}/{name}"), tensor.to_device(&Device::Cpu)?.contiguous()?);
        }
        Ok(())
    }

    fn put_numbers(&mut self, case: &str, side: &str, name: &str, values: &[f32]) -> Result<()> {
        self.put(case, side, &[(name, &Tensor::from_slice(values, values.len(), &Device::Cpu)?)])
    }

    fn attention(&mut self, lengths: &[usize], [heads, kv_heads, d]: [usize; 3]) -> Result<()> {
        let case = format!("attention/{} of {d}", lengths.iter().map(usize::to_string).collect::<Vec<_>>().join("+"));
        let offsets = Offsets::from_lengths(lengths);
        let scale = 1.0 / (d as f32).sqrt();
        let t = offsets.total();
        let q = self.operand(13, &[t, heads, d])?;
        let k = self.operand(14, &[t, kv_heads, d])?;
        let v = self.operand(15, &[t, kv_heads, d])?;
        let dy = self.activation(16, &[t, heads, d])?;
        let (y, lse) = attention::forward(&q, &k, &v, &offsets, &offsets, scale)?;
        let (dq, dk, dv) = attention::backward(&q, &k, &v, &y, &lse, &dy, &offsets, scale)?;
        self.put_numbers(&case, "in", "lengths", &lengths.iter().map(|&n| n as f32).collect::<Vec<_>>())?;
        self.put(&case, "in", &[("q", &q), ("k", &k), ("v", &v), ("dy", &dy)])?;
        self.put(&case, "out", &[("y", &y), ("dq", &dq), ("dk", &dk), ("dv", &dv)])
    }

    /// One query a row over a prefix that all share and keys of its own: `lengths (rows, 2)`.
    fn decode(&mut self, [heads, kv_heads, d]: [usize; 3]) -> Result<()> {
        let case = format!("decode/7 rows of {d}");
        let lengths = [(700, 5), (700, 80), (0, 1), (0, 64), (63, 2), (256, 1), (511, 65)];
        let prefix_k = self.operand(20, &[700, kv_heads, d])?;
        let prefix_v = self.operand(21, &[700, kv_heads, d])?;
        let own_k = self.operand(22, &[80, kv_heads, d])?;
        let own_v = self.operand(23, &[80, kv_heads, d])?;
        let q = self.activation(24, &[lengths.len(), heads, d])?;
        let held = lengths.map(|row| blocks(row, [&prefix_k, &own_k], [&prefix_v, &own_v], &[]));
        let held = held.into_iter().collect::<Result<Vec<_>>>()?;
        let y = attention::decode(&q, table(&held), 1.0 / (d as f32).sqrt())?;
        let flat: Vec<f32> = lengths.iter().flat_map(|&(prefix, own)| [prefix as f32, own as f32]).collect();
        self.put_numbers(&case, "in", "lengths", &flat)?;
        self.put(
            &case,
            "in",
            &[("q", &q), ("prefix_k", &prefix_k), ("prefix_v", &prefix_v), ("own_k", &own_k), ("own_v", &own_v)],
        )?;
        self.put(&case, "out", &[("y", &y)])
    }

    fn rms_norm(&mut self, dims @ [rows, hidden]: [usize; 2]) -> Result<()> {
        let case = format!("rms_norm/{rows}x{hidden}");
        let eps = 1e-5;
        let x = self.activation(41, &dims)?;
        let residual = self.activation(42, &dims)?;
        let dy = self.activation(43, &dims)?;
        let weight = self.rounded(44, &[hidden])?;
        let (sum, y, rstd) = rms_norm::add_forward(x.copy()?, &residual, &weight, eps)?;
        let dx = rms_norm::backward(&sum, &weight, &rstd, &dy)?;
        let dweight = rms_norm::backward_weight(&sum, &rstd, &dy)?;
        // The norm is of the rounded sum, so its own input is that.
        self.put(&case, "in", &[("x", &sum), ("weight", &weight), ("dy", &dy)])?;
        self.put(&case, "out", &[("y", &y), ("dx", &dx), ("dweight", &dweight)])?;
        let case = format!("add/{rows}x{hidden}");
        self.put(&case, "in", &[("a", &x), ("b", &residual)])?;
        self.put(&case, "out", &[("y", &sum)])
    }

    fn swiglu(&mut self, dims @ [rows, width]: [usize; 2]) -> Result<()> {
        let case = format!("swiglu/{rows}x{width}");
        let gate = self.activation(46, &dims)?;
        let up = self.activation(47, &dims)?;
        let dy = self.activation(48, &dims)?;
        let y = swiglu::forward(&gate, &up)?;
        let (dgate, dup) = swiglu::backward(&gate, &up, &dy)?;
        self.put(&case, "in", &[("gate", &gate), ("up", &up), ("dy", &dy)])?;
        self.put(&case, "out", &[("y", &y), ("dgate", &dgate), ("dup", &dup)])
    }

    /// Two projections of one input with their adapters, as the model's do it.
    fn linear(&mut self, [tokens, input]: [usize; 2]) -> Result<()> {
        let case = format!("linear/{tokens}x{input}, LoRA");
        let out = 192;
        let rank = 8;
        let scaling = 2.0;
        let x = self.activation(50, &[tokens, input])?;
        let weights = [self.operand(51, &[out, input])?, self.operand(52, &[out / 3, input])?];
        let a = [self.rounded(53, &[rank, input])?, self.rounded(54, &[rank, input])?];
        let b = [self.rounded(55, &[out, rank])?, self.rounded(56, &[out / 3, rank])?];
        let dy = [self.activation(57, &[tokens, out])?, self.activation(58, &[tokens, out / 3])?];
        let [first, second] = linear::forward_each(&x, weights.each_ref().map(|weight| (weight, None)))?;
        let u = linear::scaled_forward_each(&x, a.each_ref(), scaling)?;
        let y = [linear::add_forward(first, &u[0], &b[0])?, linear::add_forward(second, &u[1], &b[1])?];
        let mut dx = linear::backward_input(&dy[0], &weights[0])?;
        for i in 0..2 {
            if i > 0 {
                dx = linear::add_backward_input(dx, &dy[i], &weights[i])?;
            }
            let du = linear::scaled_backward_input(&dy[i], &b[i], scaling)?;
            let da = linear::backward_weight(&du, &x)?;
            let db = linear::backward_weight(&dy[i], &u[i])?;
            dx = linear::add_backward_input(dx, &du, &a[i])?;
            let name = |what: &str| format!("{what}{i}");
            self.put(
                &case,
                "in",
                &[(&name("w"), &weights[i]), (&name("a"), &a[i]), (&name("b"), &b[i]), (&name("dy"), &dy[i])],
            )?;
            self.put(&case, "out", &[(&name("y"), &y[i]), (&name("da"), &da), (&name("db"), &db)])?;
        }
        self.put_numbers(&case, "in", "scaling", &[scaling as f32])?;
        self.put(&case, "in", &[("x", &x)])?;
        self.put(&case, "out", &[("dx", &dx)])
    }

    fn rope(&mut self, heads: usize, kv_heads: usize, d: usize) -> Result<()> {
        let case = format!("rope/{heads}+{kv_heads} of {d}");
        let positions = [0u32, 1, 63, 64, 65, 7423];
        let rope = Rope::new(RopeParameters { theta: 500_000.0, scaling: RopeScaling::None }, d)?;
        let q = self.activation(60, &[positions.len(), heads, d])?;
        let k = self.activation(61, &[positions.len(), kv_heads, d])?;
        let [turned_q, turned_k] = rope.forward_both(&q, &k, &positions)?;
        // The gradients given are q and k again.
        let [dq, dk] = rope.backward_both(&q, &k, &positions)?;
        self.put_numbers(&case, "in", "positions", &positions.map(|p| p as f32))?;
        self.put_numbers(&case, "in", "inv_freq", rope.inv_freq())?;
        self.put(&case, "in", &[("q", &q), ("k", &k)])?;
        self.put(&case, "out", &[("q", &turned_q), ("k", &turned_k), ("dq", &dq), ("dk", &dk)])
    }

    fn cross_entropy(&mut self, dims @ [rows, vocab]: [usize; 2]) -> Result<()> {
        let case = format!("cross_entropy/{rows}x{vocab}");
        let logits = self.activation(62, &dims)?;
        let targets: Vec<u32> =
            (0..rows).map(|row| if row == 0 { vocab - 1 } else { row * 31 % vocab } as u32).collect();
        let scales: Vec<f32> = (0..rows).map(|row| 0.25 + row as f32 / 64.0).collect();
        let (losses, dlogits) = cross_entropy::forward_backward(logits.copy()?, &targets, &scales)?;
        self.put_numbers(&case, "in", "targets", &targets.iter().map(|&target| target as f32).collect::<Vec<_>>())?;
        self.put_numbers(&case, "in", "scales", &scales)?;
        self.put(&case, "in", &[("logits", &logits)])?;
        self.put_numbers(&case, "out", "losses", &losses)?;
        self.put(&case, "out", &[("dlogits", &dlogits)])
    }

    fn embedding(&mut self) -> Result<()> {
        let case = "embedding/65 of 300";
        let ids = (0..65).map(|i| i * i % 300).collect::<Vec<u32>>();
        let weight = self.operand(63, &[300, 576])?;
        let dy = self.activation(64, &[ids.len(), 576])?;
        let y = embedding::forward(&weight, &ids)?;
        let dweight = embedding::backward(300, &ids, &dy)?;
        self.put_numbers(case, "in", "ids", &ids.iter().map(|&id| id as f32).collect::<Vec<_>>())?;
        self.put(case, "in", &[("weight", &weight), ("dy", &dy)])?;
        self.put(case, "out", &[("y", &y), ("dweight", &dweight)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_finite_outputs_and_inputs_that_bf16_holds() {
        let tensors = export(&Device::Cpu).unwrap();
        for op in ["attention", "decode", "rms_norm", "add", "swiglu", "linear", "rope", "cross_entropy", "embedding"] {
            assert!(tensors.keys().any(|name| name.starts_with(&format!("{op}/")) && name.contains("/out/")), "{op}");
        }
        for (name, tensor) in &tensors {
            let values = super::super::numbers(tensor).unwrap();
            assert!(values.iter().all(|x| x.is_finite()), "{name}");
            let exact = name.ends_with("/dy") || name.ends_with("/in/q") || name.ends_with("/weight");
            assert!(!exact || values.iter().all(|&x| f64::from(half::bf16::from_f64(x)) == x), "{name}");
        }
    }
}
