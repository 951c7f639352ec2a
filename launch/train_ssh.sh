#!/usr/bin/env bash
# Trains on several machines that ssh reaches: copies the code, installs it, runs one worker on
# each, shows the first one's output, and stops all when one fails.
#
#   launch/train_ssh.sh --hosts=ann@gpu1,ann@gpu2 --data_dir=/shared/data --run_dir=/shared/run \
#       [--extra=gpu] [--dry_run] [-- --backbone=resnet50 --batch_size=128 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --hosts           names for ssh; each runs one worker, the first is the chief; always needed
#   --data_dir        a path on every host, or gs://; always needed
#   --run_dir         a full path of a disk that all hosts share (NFS, …): every worker reads the
#                     checkpoints that the first one writes. This is checked; always needed
#   --port            port of every worker (default 12345): must be open between the hosts
#   --remote_dir      folder for the code and its .venv on each host (default cxr-balance, in home)
#   --remote_python   the interpreter that makes the .venv (default python3.11)
#   --extra           cpu, or gpu (default)
#   --log_dir         folder here for the output of each worker (default runs/ssh-logs)
#   --max_restarts    stops after this many preemptions (default 10)
#   --dry_run         print the commands, start nothing
#   -- …              the rest goes to trainer.main unchanged
#
# After exit code 75 of a worker (preempted, checkpoint saved) all start again. Any other failure
# stops all, and this script ends with its exit code (255: ssh lost the host). The same command then
# continues from the last checkpoint.
#
# Before: ssh and rsync here, rsync and Python 3.11 on the hosts; ssh keys, because passwords cannot
# be typed (BatchMode). The hosts must reach each other by the names in --hosts. Costs nothing beyond
# your machines. Expect a few minutes for the first installation (TensorFlow with CUDA is about 4 GB
# on each host), later only seconds.
# Documentation: man 1 ssh, man 1 rsync; tensorflow.org/guide/distributed_training ("TF_CONFIG").
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"

hosts="" data_dir="" run_dir="" port=12345 remote_dir=cxr-balance remote_python=python3.11 \
  extra=gpu log_dir=runs/ssh-logs max_restarts=10 rest_is_for=trainer.main
read_options "hosts data_dir run_dir port remote_dir remote_python extra log_dir max_restarts" "$@"
need hosts data_dir run_dir
need_number port 1024 max_restarts 0
refuse_own_flags
[[ "$extra" == cpu || "$extra" == gpu ]] || fail "--extra=$extra: must be cpu or gpu"
[[ "$run_dir" == /* ]] || fail "--run_dir=$run_dir: must be a full path of a disk that all hosts share"
[[ "$data_dir" == /* || "$data_dir" == gs://* ]] ||
  fail "--data_dir=$data_dir: must be a full path on every host, or gs://"
IFS=, read -r -a names <<<"$hosts"
addresses=()
for name in "${names[@]}"; do
  [[ -n "$name" && "$name" != -* && " ${addresses[*]-} " != *" ${name#*@}:$port "* ]] ||
    fail "--hosts=$hosts: must be different names, with commas between them"
  addresses+=("${name#*@}:$port")
done

connect=(ssh -o BatchMode=yes -o ServerAliveInterval=30)
parts=()
for part in setup.py pyproject.toml README.md constraints.txt cxr_tfrecords beam_pipelines trainer; do
  parts+=("$root/$part")
done

run() {
  if [[ -n "$dry_run" ]]; then show "$@"; else "$@"; fi
}

# quoted COMMAND …: prints the command quoted for the shell of the other machine.
quoted() {
  local words
  printf -v words '%q ' "$@"
  printf %s "${words% }"
}
folder="$(quoted "$remote_dir")"

install_on() {
  run rsync --archive --compress --delete --exclude=__pycache__ "${parts[@]}" "$1:$remote_dir/" ||
    fail "--hosts: the code could not be copied to $1"
  run "${connect[@]}" "$1" "cd $folder && { test -x .venv/bin/python ||\
 $(quoted "$remote_python") -m venv .venv; } &&\
 .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$extra]'" ||
    fail "--hosts: the installation on $1 failed"
}

# Checks that the other hosts see what the first host writes into --run_dir.
check_shared() {
  local name mark
  mark="$(quoted "$run_dir/logs/shared")"
  run "${connect[@]}" "${names[0]}" "mkdir -p $(quoted "$run_dir/logs") && echo $$ >$mark" ||
    fail "--run_dir=$run_dir: ${names[0]} cannot write there"
  for name in "${names[@]:1}"; do
    run "${connect[@]}" "$name" "test \"\$(cat $mark)\" = $$" ||
      fail "--run_dir=$run_dir: $name does not see what ${names[0]} writes there; use a shared disk"
  done
}

# exec replaces the shell by the trainer, so worker.pid holds the trainer's process id.
start_workers() {
  local index command
  for index in "${!names[@]}"; do
    set_trainer .venv/bin/python "$data_dir" "$run_dir" multi_worker
    command=("${connect[@]}" "${names[$index]}" "cd $folder && echo \$\$ >worker.pid && exec env\
 $(quoted "TF_CONFIG=$(tf_config "$index" "${addresses[@]}")" "${trainer[@]}")")
    if [[ -n "$dry_run" ]]; then
      show "${command[@]}"
      continue
    elif ((index == 0)); then
      "${command[@]}" < /dev/null > >(trap '' INT TERM; tee -a "$log_dir/worker-0.log") 2>&1 &
    else
      "${command[@]}" < /dev/null >>"$log_dir/worker-$index.log" 2>&1 &
    fi
    pids[index]=$!
  done
}

# Ending ssh does not end the program that it started on the other machine.
stop_worker() {
  "${connect[@]}" "${names[$1]}" "kill -TERM \"\$(cat $folder/worker.pid)\"" \
    >/dev/null 2>&1 </dev/null || true
}

if [[ -z "$dry_run" ]]; then
  need_command ssh "it starts the workers"
  need_command rsync "it copies the code"
fi
for name in "${names[@]}"; do install_on "$name"; done
check_shared
[[ -z "$dry_run" ]] || { start_workers; exit; }
echo "results: ${names[0]}:$run_dir; the workers' output: $log_dir"
run_until_done
