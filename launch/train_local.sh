#!/usr/bin/env bash
# Trains with several worker processes on this machine, to try what a cluster would run.
#
#   launch/train_local.sh --data_dir=DATA --run_dir=RUN [--workers=2] [--dry_run] \
#       [-- --backbone=tiny --epochs=3 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --data_dir, --run_dir  as in trainer.main; always needed
#   --workers              processes (default 2). --batch_size must be divisible by it
#   --gpus_per_worker      worker 0 gets GPUs 0 to N-1, worker 1 the next N, … Default 0: CPU only
#   --max_restarts         stops after this many preemptions (default 10)
#   --dry_run              print the commands, start nothing
#   -- …                   the rest goes to trainer.main unchanged
# PYTHON names the interpreter (default: python3).
#
# Each worker is python -m trainer.main --strategy=multi_worker with TF_CONFIG on a free port, on
# its share of the cores if taskset is installed. The first worker's output is shown; all output is
# kept in RUN/logs/worker-N.log. If one worker fails, the others are stopped, and this script ends
# with its exit code. After exit code 75 (preempted, checkpoint saved) all workers start again; a
# signal to this script is passed on to the workers.
#
# Before: pip install -c constraints.txt -e '.[cpu]' (or gpu). Costs nothing but time: on the cores of
# one machine N workers are slower than --strategy=cpu, because they exchange gradients.
# Expect the same losses as from one process, to about 5 decimals.
# Documentation: tensorflow.org/guide/distributed_training ("TF_CONFIG").
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"

data_dir="" run_dir="" workers=2 gpus_per_worker=0 max_restarts=10 rest_is_for=trainer.main
read_options "data_dir run_dir workers gpus_per_worker max_restarts" "$@"
need data_dir run_dir
need_number workers 1 gpus_per_worker 0 max_restarts 0
refuse_own_flags
need_command "$python" "or set PYTHON"
log_dir="$run_dir/logs"

# Prints ports that are free now; holds each until all are known, so that they differ.
free_ports() {
  "$python" -c 'import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(server.getsockname()[1] for server in held))' "$workers"
}

# set_pin INDEX: gives a worker its share of the cores, if each worker can have one at least.
set_pin() {
  local cores share
  pin=()
  cores="$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)"
  share=$((cores / workers))
  if ((share > 0)) && command -v taskset >/dev/null; then
    pin=(taskset --cpu-list "$(($1 * share))-$((($1 + 1) * share - 1))")
  fi
}

# set_worker INDEX HOST:PORT …
set_worker() {
  local index="$1" gpus=-1
  set_pin "$index"
  if ((gpus_per_worker > 0)); then
    gpus="$(seq -s, "$((index * gpus_per_worker))" "$(((index + 1) * gpus_per_worker - 1))")"
  fi
  set_trainer "$python" "$data_dir" "$run_dir" multi_worker
  command=(env "PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}" "CUDA_VISIBLE_DEVICES=${gpus%,}"
    "TF_CONFIG=$(tf_config "$@")" ${pin[@]+"${pin[@]}"} "${trainer[@]}")
}

start_workers() {
  local index hosts=() port
  for port in $(free_ports); do hosts+=("127.0.0.1:$port"); done
  ((${#hosts[@]} == workers)) || fail "$python found no $workers free ports"
  for ((index = 0; index < workers; index++)); do
    set_worker "$index" "${hosts[@]}"
    if [[ -n "$dry_run" ]]; then
      show "${command[@]}"
      continue
    elif ((index == 0)); then
      "${command[@]}" > >(trap '' INT TERM; tee -a "$log_dir/worker-0.log") 2>&1 &
    else
      "${command[@]}" >>"$log_dir/worker-$index.log" 2>&1 &
    fi
    pids[index]=$!
  done
}

[[ -z "$dry_run" ]] || { start_workers; exit; }
run_until_done
