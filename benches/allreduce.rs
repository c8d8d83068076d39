//! The sum of gradients over ranks, in rank order:
//! `cargo bench --features mpi --target-dir target/mpi --bench allreduce -- [N …] [options of mpirun]`.
//!
//! The buffer is that of Llama-3.1-8B's LoRA (r = 8 on q, k, v, o) and 2,048-wide head: 15,210,498 numbers, 61 MB.
//! Starts `mpirun` itself, for N = 2 and 4 unless told otherwise, and prints the median of nine sums, with
//! MPI_Allreduce beside it, which promises no order. Ranks beyond the cores wait for each other's turn as well.

use std::{process::Command, time::Instant};

use clsgen::{
    error::{Error, Result},
    parallel::Collective,
};
use mpi::{collective::SystemOperation, topology::SimpleCommunicator, traits::CommunicatorCollectives};

/// Adapters of 32 layers, then the head.
const NUMBERS: usize = 32 * 8 * (4 * 4096 + 2 * (4096 + 1024)) + 2048 * 4096 + 2048 + 2 * 2048 + 2;
const SUMS: usize = 9;

fn main() -> Result<()> {
    let ranks = Collective::join("bench", true)?;
    if ranks.size() == 1 { start() } else { measure(&ranks) }
}

/// Starts this program once for each N.
fn start() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut numbers: Vec<&str> = arguments.iter().map(String::as_str).filter(|a| a.parse::<usize>().is_ok()).collect();
    if numbers.is_empty() {
        numbers = vec!["2", "4"];
    }
    let others = arguments.iter().filter(|argument| argument.parse::<usize>().is_err());
    let program = std::env::current_exe().map_err(|e| Error::run(format!("this program is not found: {e}")))?;
    println!("ranks  MB  sum in rank order, s  MPI_Allreduce, s");
    for n in numbers {
        let mut command = Command::new("mpirun");
        command.args(["--oversubscribe", "--allow-run-as-root", "--bind-to", "none"]).args(others.clone());
        let status = command.args(["-n", n]).arg(&program).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(Error::run(format!("mpirun -n {n} failed")));
        }
    }
    Ok(())
}

fn measure(ranks: &Collective) -> Result<()> {
    let own: Vec<f32> = (0..NUMBERS).map(|i| (i % 1000) as f32 + ranks.rank() as f32).collect();
    let expected = |i: usize| (0..ranks.size()).map(|rank| (i % 1000) as f32 + rank as f32).sum::<f32>();
    let mut sum = own.clone();
    let mut in_order = Vec::new();
    let mut by_mpi = Vec::new();
    for _ in 0..=SUMS {
        sum.copy_from_slice(&own);
        ranks.agree(Ok(()))?;
        let begun = Instant::now();
        ranks.sum(&mut sum)?;
        in_order.push(begun.elapsed().as_secs_f64());
        if let Some(i) = (0..NUMBERS).find(|&i| sum[i] != expected(i)) {
            return Err(Error::run(format!("number {i} is {}, not {}", sum[i], expected(i))));
        }
        ranks.agree(Ok(()))?;
        let begun = Instant::now();
        SimpleCommunicator::world().all_reduce_into(&own[..], &mut sum[..], SystemOperation::sum());
        by_mpi.push(begun.elapsed().as_secs_f64());
    }
    if ranks.is_root() {
        let megabytes = 4.0 * NUMBERS as f64 / 1e6;
        println!("{:5}  {megabytes:.0}  {:20.3}  {:16.3}", ranks.size(), median(in_order), median(by_mpi));
    }
    Ok(())
}

/// Of all but the first, which touches fresh memory.
fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
