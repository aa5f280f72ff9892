#!/bin/bash
#SBATCH --job-name=selfsup
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
# Train on Slurm until the run is done: sbatch tools/slurm.sh pretrain --data images/ --out runs/a
# On four nodes of eight GPUs: sbatch --nodes 4 --ntasks-per-node 8 --gpus-per-node 8 tools/slurm.sh ...
#
# Slurm sends SIGUSR1 to the steps of the job 120 seconds before its time is over. The run finishes
# its step, writes a checkpoint and ends with 75; then this script puts the job back into the queue,
# where the same command goes on. Any other exit status ends the job.
set -u
began=$(mktemp)
command=(${SELFSUP_LAUNCH:-selfsup} "$@")
if [ "${SLURM_NTASKS:-1}" -gt 1 ]; then
  # each task is a process of the run, and has to know which; all meet on the first node
  MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
  export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=${SLURM_TASKS_PER_NODE%%[(,]*}
  number='export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID && exec "$@"'
  command=(bash -c "$number" task "${command[@]}")
fi
srun "${command[@]}" &
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
