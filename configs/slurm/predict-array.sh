#!/bin/bash
# A file of records predicted in parts, one for each task of a job array without gaps:
#   sbatch --array=1-8 configs/slurm/predict-array.sh MODEL INPUT FOLDER [OPTION OF PREDICT]...
# Once every task is done, `cat FOLDER/part-*.jsonl` is what one process would have written: the same records in the
# same order, numbers within rounding. clsgen is one that was built with --features cuda.
#SBATCH --job-name=clsgen-predict
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
set -eu
model=$1
input=$2
folder=$3
shift 3
mkdir -p -m 700 "$folder"
# With leading zeros part 10 comes behind part 9 where a shell sorts names.
output=$folder/part-$(printf %05d "$SLURM_ARRAY_TASK_ID").jsonl
device=cuda
for option in "$@"; do
    case $option in --device | --device=*) device= ;; esac
done
status=0
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    clsgen predict ${device:+--device "$device"} --model "$model" --input "$input" --output "$output" --shard auto \
    "$@" || status=$?
# USR1 came five minutes before the time limit (--signal): what is done is saved, and the same task goes on from there.
if [ "$status" -eq 138 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$status"
