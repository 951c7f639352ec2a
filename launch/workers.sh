# shellcheck shell=bash
# shellcheck disable=SC2154  # the options' variables are the scripts'
# Shared by the train_*.sh scripts: the trainer's command, TF_CONFIG, and a group of processes that
# end together. Sourced after common.sh, not run.
preempted=75 # the trainer's exit code for "checkpoint saved: start me again"
grace="${GRACE:-60}" # seconds that workers have to end before they are killed
pids=()
stopping=""

# tf_config INDEX HOST:PORT …: the cluster and this worker's place in it, as JSON.
tf_config() {
  local index="$1" hosts
  shift
  printf -v hosts '"%s",' "$@"
  printf '{"cluster":{"worker":[%s]},"task":{"type":"worker","index":%d}}' "${hosts%,}" "$index"
}

# set_trainer PYTHON DATA_DIR RUN_DIR STRATEGY: the trainer's command line, in $trainer.
# shellcheck disable=SC2034  # the scripts use it
set_trainer() {
  trainer=("$1" -m trainer.main "--data_dir=$2" "--run_dir=$3" "--strategy=$4"
    ${rest[@]+"${rest[@]}"})
}

# need_number NAME LOWEST …
need_number() {
  while (($#)); do
    [[ "${!1}" =~ ^[0-9]{1,6}$ && "${!1}" -ge "$2" ]] ||
      fail "--$1=${!1}: must be a whole number from $2"
    shift 2
  done
}

# Fails if a flag after -- is one that the script sets itself.
refuse_own_flags() {
  local flag
  for flag in ${rest[@]+"${rest[@]}"}; do
    case "$flag" in
      --data_dir | --data_dir=* | --run_dir | --run_dir=* | --strategy | --strategy=*)
        fail "${flag%%=*} after --: this script sets it; give it before --, if it is an option" ;;
    esac
  done
}

alive() { kill -0 "${pids[$1]}" 2>/dev/null; }

# stop_worker INDEX: asks a worker to end. train_ssh.sh, whose workers are on other machines,
# replaces this function.
stop_worker() {
  if alive "$1"; then kill -TERM "${pids[$1]}" 2>/dev/null || true; fi
}

any_alive() {
  local index
  for index in "${!pids[@]}"; do
    if alive "$index"; then return; fi
  done
  return 1
}

stop_workers() {
  local index
  for index in "${!pids[@]}"; do stop_worker "$index"; done
}

# wait_for_workers SECONDS: returns when no worker runs any more, or when the time is over.
wait_for_workers() {
  local end=$((SECONDS + $1))
  while any_alive && ((SECONDS < end)); do sleep 0.2; done
}

# Waits until all workers have ended or one has failed. In that case the others are asked to end, and
# killed if they do not. Sets $code: that of the first failure, or 0. (No `wait -n`, because macOS has
# bash 3.2.)
supervise() {
  local index left="${#pids[@]}"
  codes=()
  while ((left)); do
    sleep 0.2
    for index in "${!pids[@]}"; do
      if [[ -n "${codes[$index]:-}" ]] || alive "$index"; then continue; fi
      code=0
      wait "${pids[$index]}" 2>/dev/null || code=$?
      ((code == 0)) || { end_together "$index"; return; }
      codes[index]=0
      left=$((left - 1))
    done
  done
  code=0
}

end_together() {
  local first="$code" index
  # After a preemption the other workers end by themselves, once the checkpoint is saved.
  [[ "$first" != "$preempted" ]] || wait_for_workers "$grace"
  stop_workers
  wait_for_workers "$grace"
  for index in "${!pids[@]}"; do
    if alive "$index"; then kill -KILL "${pids[$index]}" 2>/dev/null || true; fi
  done
  wait "${pids[@]}" 2>/dev/null || true
  code="$first"
  worker_failed "$1"
}

# Prints the end of a failed worker's log; the first worker's output is on the screen already.
worker_failed() {
  [[ "$code" != "$preempted" && -z "$stopping" ]] || return 0
  echo "error: worker $1 ended with exit code $code; its log is $log_dir/worker-$1.log" >&2
  [[ "$1" == 0 ]] || tail -n 5 "$log_dir/worker-$1.log" >&2
}

# run_until_done: calls start_workers, and calls it again after each preemption. A signal to this
# script is passed on to the workers, which are then not started again.
run_until_done() {
  local restarts=0
  mkdir -p "$log_dir"
  trap 'stopping=1; stop_workers' TERM INT HUP
  while true; do
    pids=()
    start_workers
    supervise
    [[ "$code" == "$preempted" && -z "$stopping" ]] || exit "$code"
    ((restarts < max_restarts)) || {
      echo "error: preempted again after --max_restarts=$max_restarts: start it again to go on" >&2
      exit "$code"
    }
    restarts=$((restarts + 1))
    echo "preempted: starting again from the last checkpoint (restart $restarts)"
  done
}
