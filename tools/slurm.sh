#!/bin/bash
#SBATCH --job-name=selfsup
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
# Train on Slurm until the run is done: sbatch tools/slurm.sh pretrain --data images/ --out runs/a
#
# Slurm sends SIGUSR1 to the steps of the job 120 seconds before its time is over. The run finishes
# its step, writes a checkpoint and ends with 75; then this script puts the job back into the queue,
# where the same command goes on. Any other exit status ends the job.
set -u
began=$(mktemp)
srun ${SELFSUP_LAUNCH:-selfsup} "$@" &
step=$!
trap 'kill -TERM $step' TERM
wait $step
code=$?
while kill -0 $step 2>/dev/null; do # a trap has ended `wait` early
  wait $step
  code=$?
done
out=
for ((i = 1; i < $#; i++)); do
  [ "${!i}" = --out ] && j=$((i + 1)) && out=${!j}
done
# srun and launchers may replace the status by their own
if [ $code != 0 ] && [ -n "$out" ] && [ "$out/status.json" -nt "$began" ]; then
  ${SELFSUP_STATUS:-selfsup status} "$out" --exit-code
  code=$?
fi
rm -f "$began"
if [ $code = 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
