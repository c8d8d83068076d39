//! Each op at the shapes of one record, against its floors.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use clsgen::{
    config,
    error::Result,
    ops::{
        Offsets, add, attention, cross_entropy,
        dropout::{self, DropoutKey},
        embedding,
        kv_store::{self, PagedBatch, PagedSequence},
        linear,
        lora::{self, Backward, LoraA, LoraB, Rows},
        random, rms_norm,
        rope::Rope,
        swiglu,
    },
    rng::{Rng, streams},
    train::optimizer::Optimizer,
};

use crate::{
    Subject,
    report::{Report, Work},
    train::attention_forward,
};

/// Rank of the adapters.
const RANK: usize = 8;

pub fn measure(subject: &Subject, report: &mut Report) {
    let kernels = Kernels { subject, t: subject.longest() };
    report.attempt("attention", |report| kernels.attention(report));
    report.attempt("decode attention", |report| kernels.decode_attention(report));
    report.attempt("rows", |report| kernels.rows(report));
    report.attempt("SwiGLU", |report| kernels.swiglu(report));
    report.attempt("cross-entropy", |report| kernels.cross_entropy(report));
    report.attempt("AdamW", |report| kernels.adamw(report));
    report.attempt("linear", |report| kernels.linear(report));
    report.attempt("adapters with dropout", |report| kernels.adapters(report));
}

struct Kernels<'a> {
    subject: &'a Subject,
    /// Tokens.
    t: usize,
}

impl Kernels<'_> {
    fn random(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        random::normal(Rng::new(1, streams::MODEL_INIT), 1, 1.0, shape, dtype, &self.subject.device)
    }

    fn activations(&self, shape: &[usize]) -> Result<Tensor> {
        self.random(shape, self.subject.activations())
    }

    /// Bytes of `n` activations.
    fn bytes(&self, n: usize) -> f64 {
        (n * self.subject.activations().size_in_bytes()) as f64
    }

    /// Work that only moves `n` activations.
    fn moves(&self, n: usize) -> Work {
        Work { bytes: self.bytes(n), operations: 0.0 }
    }

    fn attention(&self, report: &mut Report) -> Result<()> {
        let config = &self.subject.config;
        let t = self.t;
        let heads = config.num_attention_heads;
        let kv_heads = config.num_key_value_heads;
        let d = config.head_dim;
        let operand = |heads| self.random(&[t, heads, d], DType::BF16);
        let q = operand(heads)?;
        let k = operand(kv_heads)?;
        let v = operand(kv_heads)?;
        let dout = self.activations(&[t, heads, d])?;
        let offsets = Offsets::from_lengths(&[t]);
        let scale = 1.0 / (d as f32).sqrt();
        let shape = format!("{t} tokens, {heads}/{kv_heads} heads of {d}");
        let operations = attention_forward(config, t);
        let work = Work { bytes: self.bytes(2 * t * (heads + kv_heads) * d), operations };
        report.kernel(&format!("attention forward, {shape}"), work, || {
            attention::forward(&q, &k, &v, &offsets, &offsets, scale)
        });
        let (out, lse) = attention::forward(&q, &k, &v, &offsets, &offsets, scale)?;
        // Five products where forward has two.
        let work = Work { bytes: self.bytes(4 * t * (heads + kv_heads) * d), operations: 2.5 * operations };
        report.kernel(&format!("attention backward, {shape}"), work, || {
            attention::backward(&q, &k, &v, &out, &lse, &dout, &offsets, scale)
        });
        Ok(())
    }

    fn decode_attention(&self, report: &mut Report) -> Result<()> {
        let config = &self.subject.config;
        let heads = config.num_attention_heads;
        let kv_heads = config.num_key_value_heads;
        let d = config.head_dim;
        let t = self.t - self.subject.target;
        let scale = 1.0 / (d as f32).sqrt();
        let all = self.subject.rows;
        for (rows, prompts) in [(1, 1), (all, all), (all, 1)] {
            let q = self.activations(&[rows, heads, d])?;
            let cache = || self.activations(&[t, kv_heads, d]);
            let held = (0..prompts).map(|_| kv_store::blocks_of(&cache()?, &cache()?)).collect::<Result<Vec<_>>>()?;
            let row = |i: usize| PagedSequence { blocks: held[i % prompts].iter().collect(), len: t, new: 0 };
            let step = PagedBatch::new((0..rows).map(row).collect())?;
            let decoding = attention::Decoding::new(&step, heads)?;
            let work =
                Work { operations: 4.0 * (rows * t * heads * d) as f64, ..self.moves(2 * prompts * t * kv_heads * d) };
            let of = if prompts < rows { " of one prompt" } else { "" };
            report.kernel(&format!("attention decode, {rows} rows behind {t} tokens{of}"), work, || {
                decoding.attend(&q, 0, scale)
            });
        }
        Ok(())
    }

    /// RMSNorm, RoPE, residual, dropout, embedding: each element is read and written.
    fn rows(&self, report: &mut Report) -> Result<()> {
        let config = &self.subject.config;
        let t = self.t;
        let d = config.hidden_size;
        let heads = config.num_attention_heads;
        let n = self.t * config.hidden_size;
        let x = self.activations(&[t, d])?;
        let y = self.activations(&[t, d])?;
        let weight = self.random(&[d], DType::F32)?;
        report
            .kernel(&format!("RMSNorm forward, {t} x {d}"), self.moves(2 * n), || rms_norm::forward(&x, &weight, 1e-5));
        // On a CPU the sum is written over its first operand: let it grow.
        let residual = || rms_norm::add_forward(x.clone(), &y, &weight, 1e-5);
        report.kernel(&format!("residual and RMSNorm, {t} x {d}"), self.moves(4 * n), residual);
        let (_, rstd) = rms_norm::forward(&x, &weight, 1e-5)?;
        let backward = || rms_norm::backward_add(&x, &weight, &rstd, &y, &y);
        report.kernel(&format!("RMSNorm backward and residual, {t} x {d}"), self.moves(4 * n), backward);
        report.kernel(&format!("sum, {t} x {d}"), self.moves(3 * n), || add(x.clone(), &y));
        let rope = Rope::new(config.rope, config.head_dim)?;
        let positions = (0..t as u32).collect::<Vec<_>>();
        let q = self.activations(&[t, heads, config.head_dim])?;
        report.kernel(&format!("RoPE, {t} x {heads} x {}", config.head_dim), self.moves(2 * q.elem_count()), || {
            rope.forward(&q, &positions)
        });
        let key = DropoutKey { p: 0.05, rng: Rng::new(1, streams::LORA_DROPOUT), steps: vec![1] };
        let offsets = Offsets::from_lengths(&[t]);
        report.kernel(&format!("dropout, {t} x {d}"), self.moves(2 * n), || dropout::forward(&x, &key, &offsets));
        let table = self.random(&[config.vocab_size, d], DType::BF16)?;
        // Each a row of its own: what is read twice may not come from memory.
        let ids = positions.iter().map(|i| i * 7919 % config.vocab_size as u32).collect::<Vec<_>>();
        report.kernel(&format!("embedding, {t} x {d}"), self.moves(2 * n), || embedding::forward(&table, &ids));
        Ok(())
    }

    fn swiglu(&self, report: &mut Report) -> Result<()> {
        let t = self.t;
        let ffn = self.subject.config.intermediate_size;
        let [gate, up, dact] = [(); 3].map(|()| self.activations(&[t, ffn]));
        let gate = gate?;
        let up = up?;
        let dact = dact?;
        report.kernel(&format!("SwiGLU forward, {t} x {ffn}"), self.moves(3 * t * ffn), || swiglu::forward(&gate, &up));
        report.kernel(&format!("SwiGLU backward, {t} x {ffn}"), self.moves(5 * t * ffn), || {
            swiglu::backward(&gate, &up, &dact)
        });
        Ok(())
    }

    fn cross_entropy(&self, report: &mut Report) -> Result<()> {
        let n = self.subject.targets(self.t);
        let vocab = self.subject.config.vocab_size;
        let logits = self.activations(&[n, vocab])?;
        let targets: Vec<u32> = (0..n as u32).collect();
        let scales: Vec<f32> = vec![1.0 / n as f32; n];
        // In place: what it reads the second time is what it wrote the first, and as long to read.
        let run = || cross_entropy::forward_backward(logits.clone(), &targets, &scales);
        report.kernel(&format!("cross-entropy, both passes, {n} x {vocab}"), self.moves(2 * n * vocab), run);
        Ok(())
    }

    /// The optimizer over every adapter and the head: norm, clipping and AdamW, as in a training step.
    fn adamw(&self, report: &mut Report) -> Result<()> {
        let config = &self.subject.config;
        let d = config.hidden_size;
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;
        let mut shapes = vec![[2048, d], [2, 2048]];
        for _ in 0..config.num_hidden_layers {
            shapes.extend(
                [(d, q), (d, kv), (d, kv), (q, d)].into_iter().flat_map(|(input, out)| [[RANK, input], [out, RANK]]),
            );
        }
        let tensors = || -> Result<BTreeMap<String, Tensor>> {
            shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| Ok((format!("{i:04}"), self.random(shape, DType::F32)?)))
                .collect()
        };
        let gradients = tensors()?;
        let mut optimizer = Optimizer::new(tensors()?, &config::Train::default())?;
        let n = optimizer.elements() as f64;
        // The norm reads the gradients; the update reads four numbers and writes three.
        let work = Work { bytes: 4.0 * 8.0 * n, operations: 0.0 };
        let name = format!("gradient norm and AdamW, {} tensors of {:.1}M numbers", shapes.len(), n / 1e6);
        report.kernel(&name, work, || optimizer.step(&gradients, 1, 1e-4));
        Ok(())
    }

    fn linear(&self, report: &mut Report) -> Result<()> {
        let config = &self.subject.config;
        let d = config.hidden_size;
        let ffn = config.intermediate_size;
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;
        let shapes =
            [("q, o", self.t, d, q), ("k, v", self.t, d, kv), ("gate, up", self.t, d, ffn), ("down", self.t, ffn, d)];
        for (name, m, k, n) in
            shapes.into_iter().chain([("LM head", self.subject.targets(self.t), d, config.vocab_size)])
        {
            let x = self.activations(&[m, k])?;
            let dy = self.activations(&[m, n])?;
            let w = self.random(&[n, k], DType::BF16)?;
            let work =
                Work { bytes: self.bytes(m * (k + n)) + 2.0 * (n * k) as f64, operations: 2.0 * (m * k * n) as f64 };
            report.kernel(&format!("{name} forward, {m} x {k} x {n}"), work, || linear::forward(&x, &w, None));
            report.kernel(&format!("{name} backward, {m} x {n} x {k}"), work, || linear::backward_input(&dy, &w));
        }
        // What an adapter adds: A and B forward, then their gradients and its part of dx.
        let m = self.t;
        let x = self.activations(&[self.t, d])?;
        let dy = self.activations(&[self.t, q])?;
        let u = self.activations(&[self.t, RANK])?;
        let a = self.random(&[RANK, d], DType::F32)?;
        let b = self.random(&[q, RANK], DType::F32)?;
        let through = |n: usize, passes: usize| Work {
            bytes: self.bytes(m * (n * passes + RANK)),
            operations: 2.0 * (m * n * RANK) as f64,
        };
        report.kernel(&format!("adapter A, {m} x {d} x {RANK}"), through(d, 1), || linear::forward(&x, &a, None));
        report.kernel(&format!("adapter B added, {m} x {RANK} x {q}"), through(q, 2), || {
            linear::add_forward(dy.clone(), &u, &b)
        });
        let offsets = Offsets::from_lengths(&[m]);
        report.kernel(&format!("adapter dB, {q} x {m} x {RANK}"), through(q, 1), || {
            lora::add_b_gradients(vec![None], &[(&dy, &u)], &offsets)
        });
        report.kernel(&format!("adapter dA, {RANK} x {m} x {d}"), through(d, 1), || linear::backward_weight(&u, &x));
        report.kernel(&format!("adapter dx added, {m} x {RANK} x {d}"), through(d, 2), || {
            linear::add_backward_input(x.clone(), &u, &a)
        });
        Ok(())
    }

    /// q, k and v's adapters before B, with dropout: forward, and the gradients of A and x.
    fn adapters(&self, report: &mut Report) -> Result<()> {
        let m = self.t;
        let d = self.subject.config.hidden_size;
        let x = self.activations(&[m, d])?;
        let dx = self.activations(&[m, d])?;
        let du = self.activations(&[m, RANK])?;
        let a = self.random(&[RANK, d], DType::F32)?;
        let offsets = Offsets::from_lengths(&[m]);
        let rows = Rows { offsets: &offsets, first: None };
        let key = |step| DropoutKey { p: 0.05, rng: Rng::new(1, streams::LORA_DROPOUT), steps: vec![step] };
        let lora_as: [LoraA<'_>; 3] =
            std::array::from_fn(|i| LoraA { a: &a, stacked_a: None, scaling: 2.0, dropout: Some(key(i as u64)) });
        // x once, and dx read and written in the backward pass.
        let passes = |n: usize, products: usize| Work {
            bytes: self.bytes(m * (n * d + 3 * RANK)),
            operations: 2.0 * (products * m * d * 3 * RANK) as f64,
        };
        let name = format!("{m} x {d}, three of rank {RANK}");
        report.kernel(&format!("adapters with dropout, A, {name}"), passes(1, 1), || {
            lora::forward_each(&x, lora_as.each_ref().map(Some), rows)
        });
        let u = self.activations(&[m, RANK])?;
        report.kernel(&format!("adapters with dropout, dA and dx, {name}"), passes(3, 2), || {
            let mut each: [Backward<'_>; 3] = std::array::from_fn(|i| Backward {
                lora_a: lora_as[i].clone(),
                du: du.clone(),
                u: Some(u.clone()),
                da: None,
            });
            lora::backward_each(&x, &mut each, Some(dx.clone()), rows)
        });
        self.outputs(report)
    }

    /// What q, k and v's adapters do after A: B forward, and the gradients of u and B.
    fn outputs(&self, report: &mut Report) -> Result<()> {
        let m = self.t;
        let config = &self.subject.config;
        let kv = config.num_key_value_heads;
        let widths = [config.num_attention_heads, kv, kv].map(|heads| heads * config.head_dim);
        let all: usize = widths.iter().sum();
        let ys = widths.iter().map(|&width| self.activations(&[m, width])).collect::<Result<Vec<_>>>()?;
        let bs = widths.iter().map(|&width| self.activations(&[width, RANK])).collect::<Result<Vec<_>>>()?;
        let u = self.activations(&[m, RANK])?;
        let offsets = Offsets::from_lengths(&[m]);
        let passes =
            |n: usize| Work { bytes: self.bytes(m * (n * all + 3 * RANK)), operations: 2.0 * (m * all * RANK) as f64 };
        let name = format!("{m} x {all}, three of rank {RANK}");
        report.kernel(&format!("adapters, B added, {name}"), passes(2), || {
            let each: [Tensor; 3] = std::array::from_fn(|i| ys[i].clone());
            lora::add_forward_each(each, std::array::from_fn(|i| Some((&u, &bs[i]))))
        });
        let outputs: Vec<LoraB<'_>> = ys.iter().zip(&bs).map(|(dy, b)| LoraB { dy, b, scaling: 2.0 }).collect();
        report.kernel(&format!("adapters, du, {name}"), passes(1), || lora::backward_u_each(&outputs));
        let pairs: Vec<(&Tensor, &Tensor)> = ys.iter().map(|dy| (dy, &u)).collect();
        report.kernel(&format!("adapters, dB, {name}"), passes(1), || {
            lora::add_b_gradients(vec![None; 3], &pairs, &offsets)
        });
        Ok(())
    }
}
