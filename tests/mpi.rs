//! `mpirun -n N clsgen train|predict|construct|eval`: what one process does, and an end whatever happens to a rank.
//!
//! Built with `--features mpi` alone; `tests/mpi/run` does so.

mod common;
#[path = "mpi/ends.rs"]
mod ends;
#[path = "mpi/equal.rs"]
mod equal;
#[path = "train/fixture.rs"]
mod fixture;
#[path = "mpi/infer.rs"]
mod infer;
#[path = "mpi/infer_ends.rs"]
mod infer_ends;
#[path = "mpi/infer_work.rs"]
mod infer_work;
#[path = "mpi/job.rs"]
mod job;
#[path = "mpi/slurm.rs"]
mod slurm;
#[path = "mpi/start.rs"]
mod start;
