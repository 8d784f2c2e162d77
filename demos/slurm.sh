#!/bin/bash
# Trains on several machines under Slurm. When its time is nearly up, when the job is preempted and when a machine is
# lost, the run is saved, the job is queued again, and goes on from its newest checkpoint until it is complete.
#
#   sbatch --nodes 2 --gpus-per-node 8 demos/slurm.sh finetune CONFIG train.output_dir=/shared/runs/mine
#
# The output folder, the data and the base models lie where all machines see them. docs/nodes.md says more.
#
#SBATCH --job-name=mmtune
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=mmtune-%j.txt
#SBATCH --signal=B:USR1@300
# The last line: five minutes before its time is up the job hears of it. A step and its checkpoint must fit in that.

# Prepared data: on the disk of each machine, not in a home folder that all share.
export MMTUNE_CACHE=${MMTUNE_CACHE:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/mmtune-$USER}
# Seconds that torchrun leaves its processes after a signal to end the step and save; without this 30.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-270}
# Where a machine has several networks, the one that the others reach:
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

time_is_up=
end_run() {
    time_is_up=yes
    scancel --signal=TERM "$SLURM_JOB_ID"  # goes to all processes but this script
}
trap end_run USR1

srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:$port" \
    -m mmtune "$@" --resume &
wait $!
code=$?
while kill -0 $! 2> /dev/null; do  # a trapped signal ends `wait`, not the run
    wait $!
    code=$?
done

# Slurm queues a preempted job again only if it had to kill it. One that was cancelled is not running any more.
if [ "$code" -ne 0 ]; then
    job=$(scontrol show job "$SLURM_JOB_ID")
    if [[ $job == *PreemptTime=[0-9]* ]]; then
        time_is_up=yes
    fi
    if [[ -n $time_is_up && $job == *JobState=RUNNING* ]]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$code"
