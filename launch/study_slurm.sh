#!/usr/bin/env bash
# Trains a study's runs on a SLURM cluster, as an array of jobs, and compares them at the end.
#
#   launch/study_slurm.sh --data_dir=/shared/data --study_dir=/shared/study --parts=6 \
#       [--gpus_per_node=1] [--time=12:00:00] [--dry_run] \
#       [-- --methods=none,oversample --seeds=0,1,2 --backbones=resnet50 --strategy=mirrored …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --data_dir, --study_dir  full paths of a disk that all nodes share, with file locks; always needed
#   --parts                  parts of the study, one job of the array each (default 2); at most as
#                            many as methods x seeds x backbones
#   --at_once                parts that run at the same time (default: all)
#   --gpus_per_node, --cpus_per_task, --time, --partition, --account   passed to sbatch if
#                            given, otherwise sbatch's defaults apply
#   --max_restarts           a part stops after this many requeues (default 100)
#   --dry_run                print the two sbatch commands, submit nothing; ARRAY_JOB is the first one's id
#   -- …                     the rest goes to trainer.compare unchanged
# PYTHON names the interpreter, which must be on the shared disk too (default: python3).
#
# Each job runs `python -m trainer.compare --cells=K/N`. After the array a last job runs the same
# command without --cells: it compares all runs, and trains those that are missing or failed. No run
# is trained twice, because its log is locked meanwhile. 120 s before the time limit, and at a
# preemption, a run saves a checkpoint, exits with 75, and its job requeues itself. Another exit code
# ends that job only. The output is in STUDY/logs.
#
# Before: this folder and a .venv with pip install -c constraints.txt -e '.[gpu]' on the shared
# disk; a partition that allows requeueing. The cost is jobs times hours, by your cluster's rules.
# Expect to wait in the queue, then a minute before the first epoch of a run.
# Documentation: slurm.schedmd.com/sbatch.html (--array, --dependency, --signal), job_array.html.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"
# shellcheck source=launch/study.sh
source "$root/launch/study.sh"

# shellcheck disable=SC2034  # read by name
data_dir="" study_dir="" parts=2 at_once="" gpus_per_node="" cpus_per_task="" time="" partition="" \
  account="" max_restarts=100 role=submit rest_is_for=trainer.compare
read_options "data_dir study_dir parts at_once gpus_per_node cpus_per_task time partition account \
  max_restarts role" "$@"
need data_dir study_dir
need_number parts 1 max_restarts 0
[[ -z "$at_once" ]] || need_number at_once 1
refuse_study_flags
for name in data_dir study_dir; do
  [[ "${!name}" == /* ]] || fail "--$name=${!name}: must be a full path of a disk that all nodes share"
done

# set_sbatch ROLE NAME OUTPUT OPTION …: sets $sbatch to submit this script again in a role. --wrap,
# because sbatch copies a script into another folder, where common.sh is missing. Without `B:` the
# signal goes to the steps of srun only, so that the job itself goes on and can requeue itself.
set_sbatch() {
  local again name
  again=(env "PYTHON=$python" "$root/launch/study_slurm.sh" "--role=$1" "--data_dir=$data_dir"
    "--study_dir=$study_dir" "--parts=$parts" "--max_restarts=$max_restarts" --
    ${rest[@]+"${rest[@]}"})
  sbatch=(sbatch --parsable --nodes=1 --ntasks=1 --requeue --signal=TERM@120 --open-mode=append
    "--job-name=$2" "--output=$study_dir/logs/$3" "${@:4}")
  for name in gpus_per_node cpus_per_task time partition account; do
    [[ -z "${!name}" ]] || sbatch+=("--${name//_/-}=${!name}")
  done
  sbatch+=("--wrap=exec $(show "${again[@]}")")
}

submit() {
  local id=ARRAY_JOB
  set_sbatch part cxr-study 'part-%A_%a.out' "--array=1-$parts${at_once:+%$at_once}"
  if [[ -n "$dry_run" ]]; then
    show "${sbatch[@]}"
  else
    need_command sbatch "start this on a login node of the cluster"
    mkdir -p "$study_dir/logs"
    id="$("${sbatch[@]}")"
    id="${id%%;*}" # with several clusters sbatch prints ID;CLUSTER
  fi
  set_sbatch gather cxr-study-gather 'gather-%j.out' "--dependency=afterany:$id"
  if [[ -n "$dry_run" ]]; then show "${sbatch[@]}"; exit; fi
  "${sbatch[@]}" >/dev/null
  echo "array job $id; then $study_dir/comparison.html. The output is in $study_dir/logs"
}

# run FLAG …: one part, or all that is left; requeues the job after exit code 75.
run() {
  local code=0
  set_study "$python" "$@"
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  srun --ntasks=1 "${study[@]}" || code=$?
  [[ "$code" == "$preempted" ]] || exit "$code"
  ((${SLURM_RESTART_COUNT:-0} < max_restarts)) || {
    echo "error: stopped again after --max_restarts=$max_restarts: submit it again to go on" >&2
    exit "$code"
  }
  echo "stopped before its end: requeueing job ${SLURM_JOB_ID:?}"
  scontrol requeue "$SLURM_JOB_ID"
}

case "$role" in
  submit) submit ;;
  part) run "--cells=${SLURM_ARRAY_TASK_ID:?}/$parts" ;;
  gather) run ;;
  *) fail "--role=$role: only this script itself sets this option; leave it out" ;;
esac
