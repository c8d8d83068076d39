#!/usr/bin/env bash
# sbatch configs/slurm/two-nodes.sh configs/lcd30.toml runs/lcd30
# Two nodes of four GPUs, eight ranks. Config, data, model and run directory lie where both nodes see them. The rest is as
# in one-node.sh. A run may go on with another number of ranks as long as its config sets train.effective_batch.
#SBATCH --job-name=clsgen
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=clsgen-%j.log
set -uo pipefail
config=${1:?a config file, such as configs/lcd30.toml}
run=${2:?a run directory, such as runs/lcd30}

# --kill-on-bad-exit: a rank that dies ends the others, on both nodes; no checkpoint is lost.
srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  clsgen train --config "$config" --run "$run" --device cuda --resume "${@:3}"
code=$?

# 138: stopped by USR1, state saved.
if [ "$code" = 138 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
