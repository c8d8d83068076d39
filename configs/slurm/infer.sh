#!/usr/bin/env bash
# sbatch configs/slurm/infer.sh predict --model runs/lcd30 --input notes.jsonl --output out.jsonl
# predict, construct or eval over four GPUs of one node, a rank each; the files are those of one process
# but for rounding. Five minutes
# before the time is up what is done is saved and the job goes back into the queue; it then goes on where it stopped.
# clsgen is one that was built with --features cuda,mpi.
#SBATCH --job-name=clsgen
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=clsgen-%j.log
set -uo pipefail
command=${1:?predict, construct or eval, with its options}

# --kill-on-bad-exit: a rank that dies ends the others; no finished record is lost.
srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  clsgen "$command" --device cuda "${@:2}"
code=$?

# 138: stopped by USR1, state saved.
if [ "$code" = 138 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
