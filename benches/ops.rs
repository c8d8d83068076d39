//! Speed of the ops: `cargo bench --bench ops [-- FILTER]`. Best of several runs; GFLOP/s counts 2·m·n·k, GB/s the
//! bytes of the operand that has to be read.
use std::hint::black_box;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clsgen::ops::{Offsets, adamw, attention, cross_entropy, kv_store, linear, rms_norm, rope, swiglu};
use clsgen::rng::{Rng, streams};

fn random(seed: u64, dims: &[usize]) -> Tensor {
    // Repeats a block of normals: drawing gigabytes of them would take longer than the benchmark.
    let rng = Rng::new(seed, streams::MODEL_INIT);
    let block: Vec<f32> = (0..65_537).map(|i| rng.normal(0, i)).collect();
    let values = block.iter().copied().cycle().take(dims.iter().product()).collect::<Vec<_>>();
    Tensor::from_vec(values, dims, &Device::Cpu).expect("tensor")
}

struct Bench {
    filter: Option<String>,
}

impl Bench {
    /// Times `f` and prints its best run in units of `amount` 1e9 a second.
    fn run<T>(&self, name: &str, amount: f64, unit: &str, f: impl Fn() -> T) {
        if self.filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            return;
        }
        let mut best = f64::INFINITY;
        let begin = Instant::now();
        let mut runs = 0;
        while runs < 3 || (begin.elapsed().as_secs_f64() < 2.0 && runs < 200) {
            let start = Instant::now();
            black_box(f());
            best = best.min(start.elapsed().as_secs_f64());
            runs += 1;
        }
        println!("{name:<52} {:>10.3} ms {:>9.1} {unit}", best * 1e3, amount / best / 1e9);
    }

    fn product(&self, label: &str, [m, k, n]: [usize; 3]) {
        let x = random(1, &[m, k]);
        let dy = random(2, &[m, n]);
        let w = random(3, &[n, k]);
        let flops = 2.0 * (m * k * n) as f64;
        let name = |what: &str| format!("linear {what} {m}x{k}x{n} {label}");
        self.run(&name("forward"), flops, "GFLOP/s", || linear::forward(&x, &w, None).expect("forward"));
        self.run(&name("backward_input"), flops, "GFLOP/s", || linear::backward_input(&dy, &w).expect("backward"));
        self.run(&name("backward_weight"), flops, "GFLOP/s", || linear::backward_weight(&dy, &x).expect("backward"));
        let half = w.to_dtype(DType::BF16).expect("bf16");
        self.run(&name("forward bf16"), flops, "GFLOP/s", || linear::forward(&x, &half, None).expect("forward"));
    }

    fn decode(&self, rows: usize, [k, n]: [usize; 2]) {
        let x = random(1, &[rows, k]);
        let w = random(3, &[n, k]);
        let bytes = 4.0 * (k * n) as f64;
        self.run(&format!("linear decode {rows}x{k}x{n}"), bytes, "GB/s", || {
            linear::decode(&x, &w, None).expect("decode")
        });
        let half = w.to_dtype(DType::BF16).expect("bf16");
        self.run(&format!("linear decode bf16 {rows}x{k}x{n}"), bytes / 2.0, "GB/s", || {
            linear::decode(&x, &half, None).expect("decode")
        });
    }

    fn attention(&self, t: usize, [heads, kv_heads, d]: [usize; 3]) {
        let offsets = Offsets::from_lengths(&[t]);
        let q = random(1, &[t, heads, d]);
        let dout = random(2, &[t, heads, d]);
        let k = random(3, &[t, kv_heads, d]);
        let v = random(4, &[t, kv_heads, d]);
        let scale = 1.0 / (d as f32).sqrt();
        let forward = || attention::forward(&q, &k, &v, &offsets, &offsets, scale).expect("forward");
        let flops = 2.0 * (t * t * heads * d) as f64;
        let name = |what: &str| format!("attention {what} {t} tokens, {heads}/{kv_heads} heads of {d}");
        self.run(&name("forward"), flops, "GFLOP/s", forward);
        let (out, lse) = forward();
        self.run(&name("backward"), 2.5 * flops, "GFLOP/s", || {
            attention::backward(&q, &k, &v, &out, &lse, &dout, &offsets, scale).expect("backward")
        });
        for rows in [1, 8] {
            let q = random(1, &[rows, heads, d]);
            let blocks = kv_store::blocks_of(&k, &v).expect("blocks");
            let cached = || {
                (0..rows).map(|_| kv_store::PagedSequence { blocks: blocks.iter().collect(), len: t, new: 0 }).collect()
            };
            let bytes = 8.0 * (rows * t * kv_heads * d) as f64;
            self.run(&name(&format!("decode of {rows} rows,")), bytes, "GB/s", || {
                attention::decode(&q, cached(), scale).expect("decode")
            });
        }
    }

    fn rows(&self) {
        let m = 2048;
        let n = 2048;
        let x = random(1, &[m, n]);
        let y = random(2, &[m, n]);
        let w = random(3, &[n]);
        let bytes = 4.0 * (m * n) as f64;
        self.run("rms_norm forward 2048x2048", 2.0 * bytes, "GB/s", || {
            rms_norm::forward(&x, &w, 1e-5).expect("forward")
        });
        let (_, rstd) = rms_norm::forward(&x, &w, 1e-5).expect("forward");
        self.run("rms_norm backward 2048x2048", 3.0 * bytes, "GB/s", || {
            rms_norm::backward(&x, &w, &rstd, &y).expect("backward")
        });
        self.run("swiglu forward 2048x2048", 3.0 * bytes, "GB/s", || swiglu::forward(&x, &y).expect("forward"));
        self.run("swiglu backward 2048x2048", 5.0 * bytes, "GB/s", || swiglu::backward(&x, &y, &x).expect("backward"));
        let parameters = rope::RopeParameters { theta: 1e4, scaling: rope::RopeScaling::None };
        let rope = rope::Rope::new(parameters, 64).expect("rope");
        let heads = x.reshape((m, n / 64, 64)).expect("heads");
        let positions = (0..m as u32).collect::<Vec<_>>();
        self.run("rope 2048x32x64", 2.0 * bytes, "GB/s", || rope.forward(&heads, &positions).expect("rope"));
        let targets: Vec<u32> = (0..m as u32).map(|i| i * 7919 % n as u32).collect();
        self.run("cross_entropy forward 2048x2048", bytes, "GB/s", || {
            cross_entropy::forward(&x, &targets).expect("forward")
        });
        let settings = adamw::AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step: 1 };
        let moment = x.zeros_like().expect("zeros");
        let square = x.zeros_like().expect("zeros");
        let part = adamw::ParamState { param: &x, gradient: &y, m: &moment, v: &square };
        self.run("norm and adamw 2048x2048", 8.0 * bytes, "GB/s", || {
            adamw::step(&[part], 0.0, &settings).expect("step")
        });
    }
}

fn main() {
    let bench = Bench { filter: std::env::args().skip(1).find(|argument| !argument.starts_with('-')) };
    println!("{} threads", rayon::current_num_threads());
    bench.product("(1B q_proj)", [2048, 2048, 2048]);
    bench.product("(1B gate_proj)", [1024, 2048, 8192]);
    bench.product("(135M q_proj)", [2048, 576, 576]);
    bench.product("(135M up_proj)", [1024, 576, 1536]);
    bench.product("(LoRA A)", [2048, 2048, 8]);
    bench.product("(LoRA B)", [2048, 8, 2048]);
    bench.product("(tiny)", [64, 64, 64]);
    for rows in [1, 4, 8, 32] {
        bench.decode(rows, [2048, 8192]);
    }
    bench.decode(1, [576, 49152]);
    bench.attention(2048, [32, 8, 64]);
    bench.attention(2048, [9, 3, 64]);
    bench.attention(1024, [32, 8, 128]);
    bench.rows();
}
