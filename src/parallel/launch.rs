//! What whoever started this process says of it: how many ranks, which one, which GPU.
//!
//! mpirun of Open MPI, Slurm's srun and launchers that speak PMI each set variables of their own; MPI itself need not
//! be there to read them.

use std::fmt;

/// The variables, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Launch {
    /// Ranks of the job, where the launcher says; `None` where there is none.
    pub ranks: Option<usize>,
    /// Which of them this is.
    pub rank: Option<usize>,
    /// Which it is on its machine.
    local_rank: Option<usize>,
    /// The launcher left this process one GPU only.
    one_gpu: bool,
}

impl Launch {
    /// Reads the variables of this process.
    pub fn of_this_process() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        let first = |names: &[&str]| names.iter().find_map(|name| number(name));
        let by_pmi = variable("PMIX_RANK").is_some() || variable("PMI_RANK").is_some();
        // A batch script has SLURM_NTASKS too, and is one process: only what srun starts speaks PMI.
        let of_slurm = || if by_pmi { first(&["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]) } else { None };
        Self {
            ranks: first(&["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]).or_else(of_slurm),
            rank: first(&["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"]),
            local_rank: first(&["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"]),
            one_gpu: variable("CUDA_VISIBLE_DEVICES").is_some_and(|list| !list.is_empty() && !list.contains(',')),
        }
    }

    /// Whether there are other ranks, or the launcher does not say that there are none.
    pub fn may_be_several(&self) -> bool {
        self.ranks.map_or(self.rank.is_some(), |ranks| ranks > 1)
    }

    /// This rank's GPU on its machine; `before`: lower ranks there, for launchers that do not say.
    #[cfg_attr(not(feature = "mpi"), allow(dead_code))]
    pub fn gpu(&self, before: usize) -> usize {
        if self.one_gpu { 0 } else { self.local_rank.unwrap_or(before) }
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rank, self.ranks) {
            (Some(rank), Some(ranks)) => write!(f, "rank {rank} of {ranks}"),
            (_, Some(ranks)) => write!(f, "one of {ranks} ranks"),
            _ => f.write_str("a rank"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Launch {
        Launch::of(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn mpirun_srun_and_a_shell_are_told_apart() {
        assert!(!launch(&[]).may_be_several());
        let mpirun = [("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3"), ("PMIX_RANK", "3")];
        assert_eq!((launch(&mpirun).may_be_several(), launch(&mpirun).to_string()), (true, "rank 3 of 4".into()));
        assert!(!launch(&[("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0")]).may_be_several());
        // srun; its batch script, which is one process; a step of one task within a larger job.
        let batch = [("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0")];
        assert!(!launch(&batch).may_be_several());
        assert!(launch(&[batch[0], ("PMIX_RANK", "2")]).may_be_several());
        assert!(!launch(&[batch[0], ("SLURM_STEP_NUM_TASKS", "1"), ("PMI_RANK", "0")]).may_be_several());
        assert!(launch(&[("PMI_RANK", "1"), ("PMI_SIZE", "2")]).may_be_several());
    }

    #[test]
    fn a_rank_takes_the_gpu_of_its_place_on_its_machine() {
        let slurm = [("PMIX_RANK", "6"), ("SLURM_LOCALID", "2")];
        assert_eq!(launch(&slurm).gpu(0), 2);
        assert_eq!(launch(&[slurm[0], slurm[1], ("CUDA_VISIBLE_DEVICES", "2")]).gpu(0), 0);
        assert_eq!(launch(&[slurm[0], slurm[1], ("CUDA_VISIBLE_DEVICES", "0,1,2,3")]).gpu(0), 2);
        assert_eq!(launch(&[("PMI_RANK", "1"), ("PMI_SIZE", "2")]).gpu(1), 1);
    }
}
