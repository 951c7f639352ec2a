#!/usr/bin/env bash
# Trains on a SLURM cluster: one worker on each node, with all its GPUs; requeued if preempted.
#
#   launch/train_slurm.sh --data_dir=/shared/data --run_dir=/shared/run --nodes=2 \
#       [--gpus_per_node=4] [--time=12:00:00] [--dry_run] [-- --backbone=resnet50 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --data_dir, --run_dir   full paths of a disk that all nodes share; always needed
#   --nodes                 number of nodes, with one worker on each (default 2)
#   --gpus_per_node, --cpus_per_task, --time, --partition, --account   passed to sbatch if
#                           given; otherwise sbatch's defaults apply
#   --port                  port of every worker (default 12345): must be free on every node
#   --max_restarts          stops after this many requeues (default 100)
#   --dry_run               print the sbatch command, submit nothing
#   -- …                    the rest goes to trainer.main unchanged
# PYTHON names the interpreter, which must be on the shared disk too (default: python3).
#
# 120 s before the time limit, and at a preemption, SLURM sends SIGTERM to the workers. They save a
# checkpoint and exit with 75; the job then requeues itself and continues from there. Any other exit
# code ends the job. The output is in RUN/logs/slurm-JOB.out.
#
# Before: this folder and a .venv with pip install -c constraints.txt -e '.[gpu]' on the shared
# disk; a partition that allows requeueing. The cost is nodes times hours, by your cluster's rules.
# Expect to wait in the queue, then a minute to start.
# Documentation: slurm.schedmd.com/sbatch.html (--signal, --requeue, --wrap), srun.html (--wait),
# scontrol.html (requeue, show hostnames).
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"

# shellcheck disable=SC2034  # read by name
data_dir="" run_dir="" nodes=2 gpus_per_node="" cpus_per_task="" time="" partition="" account="" \
  port=12345 max_restarts=100 role=submit rest_is_for=trainer.main
read_options "data_dir run_dir nodes gpus_per_node cpus_per_task time partition account port \
  max_restarts role" "$@"
need data_dir run_dir
need_number nodes 1 port 1024 max_restarts 0
refuse_own_flags
for name in data_dir run_dir; do
  [[ "${!name}" == /* ]] || fail "--$name=${!name}: must be a full path of a disk that all nodes share"
done

# again ROLE: sets $command to start this script again, in the job (job) or on a node (task).
again() {
  command=(env "PYTHON=$python" "$root/launch/train_slurm.sh" "--role=$1" "--data_dir=$data_dir"
    "--run_dir=$run_dir" "--nodes=$nodes" "--port=$port" "--max_restarts=$max_restarts" --
    ${rest[@]+"${rest[@]}"})
}

# --wrap, because sbatch copies a script into another folder, where common.sh is missing. Without
# `B:` the signal goes to the workers only, so that the job itself goes on and can requeue itself.
submit() {
  local name
  again job
  set -- sbatch "--nodes=$nodes" --ntasks-per-node=1 --requeue --signal=TERM@120 \
    --open-mode=append "--output=$run_dir/logs/slurm-%j.out" --job-name=cxr-balance
  for name in gpus_per_node cpus_per_task time partition account; do
    [[ -z "${!name}" ]] || set -- "$@" "--${name//_/-}=${!name}"
  done
  set -- "$@" "--wrap=exec $(show "${command[@]}")"
  if [[ -n "$dry_run" ]]; then show "$@"; exit; fi
  need_command sbatch "start this on a login node of the cluster"
  mkdir -p "$run_dir/logs"
  exec "$@"
}

# srun's exit code is the highest of the workers' codes. --wait: seconds that the others have to save a
# checkpoint after one worker has ended; --kill-on-bad-exit would kill them at once.
job() {
  local code=0
  again task
  srun --kill-on-bad-exit=0 "--wait=$grace" "${command[@]}" || code=$?
  [[ "$code" == "$preempted" ]] || exit "$code"
  ((${SLURM_RESTART_COUNT:-0} < max_restarts)) || {
    echo "error: preempted again after --max_restarts=$max_restarts: submit it again to go on" >&2
    exit "$code"
  }
  echo "preempted: requeueing job ${SLURM_JOB_ID:?}"
  scontrol requeue "$SLURM_JOB_ID"
}

# The worker of a node; SLURM_PROCID follows the order of the node list. exec, so that SLURM's signal
# reaches the trainer itself, and only once.
task() {
  local host addresses=()
  for host in $(scontrol show hostnames "${SLURM_JOB_NODELIST:?}"); do
    addresses+=("$host:$port")
  done
  set_trainer "$python" "$data_dir" "$run_dir" multi_worker
  TF_CONFIG="$(tf_config "${SLURM_PROCID:?}" "${addresses[@]}")"
  export TF_CONFIG PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  exec "${trainer[@]}"
}

case "$role" in
  submit | job | task) "$role" ;;
  *) fail "--role=$role: only this script itself sets this option; leave it out" ;;
esac
