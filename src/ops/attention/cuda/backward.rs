//! Attention's backward pass on a CUDA device: `backward_delta.cu`, then `backward_kv.cu` and `backward_q.cu`, which go
//! over keys twice, unless `CLSGEN_ATTENTION_BACKWARD=one-pass` asks for `backward_90.cu` (where forward is by wgmma)
//! or `backward_80.cu`. Neither of these has yet run on a card.
#![allow(unsafe_code)]

use candle_core::cuda_backend::CudaDevice;
use candle_core::{DType, Tensor};

use super::super::{Dims, Offsets};
use super::{BF16, ROWS, STEP, blocks, by_wgmma, log2_scale, operand, result, width};
use crate::error::Result;
use crate::ops::cuda::{ATTENTION_BACKWARD, Launch, device_of, most_shared, uninit, upload};

/// Tokens of a block of `backward_delta.cu`.
const TOKENS: usize = 8;
const THREADS: u32 = 256;

/// A kernel: its file, its entry, the queries it takes at a time, its shared memory.
struct Kernel {
    file: &'static str,
    entry: &'static str,
    queries: usize,
    shared: usize,
}

/// Keys and values of a block, so many times `queries` rows of q and dout, and two steps' lse and delta.
fn shared(width: usize, queries: usize, times: usize) -> usize {
    (2 * ROWS + times * queries) * width * BF16 + 4 * queries * size_of::<f32>()
}

/// The kernel that computes dk, dv and, if it `is_one_pass`, dq too.
fn kernel(device: &CudaDevice, width: usize, is_one_pass: bool) -> Result<Kernel> {
    // ds and a ticket.
    let more = |queries: usize| ROWS * queries * BF16 + 16;
    Ok(if !is_one_pass {
        let usual = Kernel {
            file: "attention/backward_kv",
            entry: "backward_kv",
            queries: STEP,
            shared: shared(width, STEP, 4),
        };
        if usual.shared <= most_shared(device)? {
            usual
        } else {
            Kernel { entry: "backward_kv_less", queries: STEP / 2, shared: shared(width, STEP / 2, 4), ..usual }
        }
    } else if by_wgmma(device)? {
        Kernel {
            file: "attention/backward_90",
            entry: "backward_90",
            queries: STEP,
            // Besides: room to align.
            shared: shared(width, STEP, 4) + more(STEP) + 1024,
        }
    } else {
        let queries = 4096 / width;
        Kernel {
            file: "attention/backward_80",
            entry: "backward_80",
            queries,
            shared: shared(width, queries, 3) + more(queries),
        }
    })
}

/// `(dq, dk, dv)`.
pub(in super::super) fn backward(
    [q, k, v, out, lse, dout]: [&Tensor; 6],
    dims: Dims,
    offsets: &Offsets,
    scale: f32,
) -> Result<(Tensor, Tensor, Tensor)> {
    let Dims { heads, kv_heads, d } = dims;
    let device = device_of(q)?;
    let width = width(d)?;
    let t = offsets.total();
    let starts = upload(&device, &offsets.starts())?;
    let lse = lse.contiguous()?;
    let dout = operand(dout, width)?;
    let delta = uninit(&device, (heads, t), DType::F32)?;
    let launch = Launch::new(&device, "attention/backward_delta", &format!("attention_backward_delta_d{width}"))?
        .tensor(&operand(out, width)?)?
        .tensor(&dout)?
        .tensor(&delta)?
        .u32(heads)?
        .u32(t)?;
    // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
    unsafe { launch.run([heads as u32, t.div_ceil(TOKENS) as u32, 1], TOKENS as u32 * 32, 0) }?;

    let operands = [operand(q, width)?, operand(k, width)?, operand(v, width)?, dout, lse, delta];
    let launch = |entry: &str, outputs: &[&Tensor], file| -> Result<Launch> {
        let mut launch = Launch::new(&device, file, &format!("attention_{entry}_d{width}"))?;
        for tensor in operands.iter().chain(outputs.iter().copied()).chain([&starts, &starts]) {
            launch = launch.tensor(tensor)?;
        }
        Ok(launch.u32(heads)?.u32(kv_heads)?.u32(t)?.f32(log2_scale(scale)))
    };
    let gradient = |heads: usize| uninit(&device, (t, heads, width), DType::BF16);
    let dq = gradient(heads)?;
    let dk = gradient(kv_heads)?;
    let dv = gradient(kv_heads)?;
    let blocks = blocks(offsets, ROWS);
    let sequences = offsets.count() as u32;
    let is_one_pass = ATTENTION_BACKWARD.takes_first();
    let Kernel { file, entry, queries, shared } = kernel(&device, width, is_one_pass)?;
    if is_one_pass {
        // Sums of dq, where more than one block of keys adds to them, and whose turn it is: `super::backward_scratch`.
        let tiles = heads * (t / queries + offsets.count());
        let partial = uninit(&device, (if blocks > 1 { tiles } else { 0 }, queries, width), DType::F32)?;
        let turns = Tensor::zeros(1 + tiles, DType::U32, q.device())?;
        let launch = launch(entry, &[&dq, &dk, &dv, &partial, &turns], file)?;
        // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
        unsafe { launch.run([kv_heads as u32, sequences, blocks], THREADS, shared) }?;
    } else {
        let of_keys = launch(entry, &[&dk, &dv], file)?;
        // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
        unsafe { of_keys.run([kv_heads as u32, blocks, sequences], THREADS, shared) }?;
        // Two steps of keys and values.
        let of_queries = launch("backward_q", &[&dq], "attention/backward_q")?;
        // SAFETY: the kernel's arguments in the order of its declaration, their shapes and types checked.
        unsafe { of_queries.run([heads as u32, blocks, sequences], THREADS, 4 * STEP * width * BF16) }?;
    }
    Ok((result(dq, q)?, result(dk, k)?, result(dv, v)?))
}
