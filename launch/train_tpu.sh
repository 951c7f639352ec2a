#!/usr/bin/env bash
# Trains on a Cloud TPU VM, or on a slice of several VMs: creates it, copies and installs the code,
# trains, starts again on a new VM if it was preempted, and deletes it at the end.
#
#   launch/train_tpu.sh --tpu_name=cxr --project=PROJECT --zone=us-central1-a --spot=yes \
#       --data_dir=gs://BUCKET/data --run_dir=gs://BUCKET/runs/first [--dry_run] \
#       [-- --backbone=resnet50 --batch_size=1024 --mixed_precision=bfloat16 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --tpu_name, --project, --zone  of the TPU VM, which must not exist yet; always needed
#   --data_dir          gs://, in the zone's region; always needed
#   --run_dir           gs://, where the run is kept. The trainer itself writes to the VM's disk,
#                       into ./run; launch/tpu_host.sh copies that to --run_dir every
#                       --save_seconds (default 300) and at the end, and fetches it before it
#                       starts. So a new VM, or the same command later, continues the run; always
#                       needed
#   --accelerator_type  default v5litepod-8: one VM. Numbers above 8 are slices of several VMs
#   --runtime_version   the VM's image; the default depends on the type (v2-alpha-tpuv5-lite, …). A
#                       slice of several VMs has no default: give tpu-vm-tf-X.Y.Z-pod-pjrt, X.Y.Z
#                       being the TensorFlow of setup.py's [tpu], because TensorFlow needs the
#                       server that such an image runs on each VM
#   --spot              yes: cheaper, may be preempted. no (default)
#   --keep              yes: do not delete the VM at the end (you go on paying). no (default)
#   --max_restarts      stops after this many preemptions (default 20)
#   --dry_run           print the commands of a run without a preemption, start nothing
#   -- …                the rest goes to trainer.main unchanged
#
# After a preemption of the VM, or exit code 75 (preempted, checkpoint saved), training starts again;
# any other exit code ends this script. At the end, and at Ctrl-C, the VM is deleted unless
# --keep=yes.
#
# Before: gcloud auth login; the TPU API enabled; quota for the type in the zone; the VM's service
# account may read and write the bucket. The cost is chips x hours of the type at
# cloud.google.com/tpu/pricing, from creating to deleting (prices could not be checked here).
# Expect some minutes to create it and some to install; the first step compiles for about a minute.
# Documentation: cloud.google.com/tpu/docs/runtimes, /preemptible, /spot, /managing-tpus-tpu-vm;
# gcloud help compute tpus tpu-vm create, ssh, scp, describe, delete.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"

tpu_name="" project="" zone="" data_dir="" run_dir="" accelerator_type=v5litepod-8 runtime_version="" \
  spot=no keep=no save_seconds=300 max_restarts=20 rest_is_for=trainer.main
read_options "tpu_name project zone data_dir run_dir accelerator_type runtime_version spot keep \
  save_seconds max_restarts" "$@"
need tpu_name project zone data_dir run_dir
need_number save_seconds 1 max_restarts 0
refuse_own_flags
for option in data_dir run_dir; do
  [[ "${!option}" == gs://?*/?* ]] || fail "--$option=${!option}: must be gs://BUCKET/FOLDER"
done
for option in spot keep; do
  [[ "${!option}" == yes || "${!option}" == no ]] || fail "--$option=${!option}: must be yes or no"
done
size="${accelerator_type##*-}"
[[ "$accelerator_type" =~ ^v[0-9a-z]+-[0-9]{1,5}$ ]] ||
  fail "--accelerator_type=$accelerator_type: must look like v5litepod-8"
pod=""
tpu=local
if ((size > 8)); then
  pod=1
  tpu="$tpu_name"
  [[ "$runtime_version" == *-pod* ]] || fail "--runtime_version=$runtime_version:\
 $accelerator_type is a slice of several VMs and needs a tpu-vm-tf-X.Y.Z-pod-pjrt image"
fi
if [[ -z "$runtime_version" ]]; then # cloud.google.com/tpu/docs/runtimes
  case "$accelerator_type" in
    v5litepod-*) runtime_version=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime_version=v2-alpha-tpuv5 ;;
    v6e-*) runtime_version=v2-alpha-tpuv6e ;;
    *) runtime_version="tpu-ubuntu2204-base" ;;
  esac
fi
place=("--zone=$zone" "--project=$project")
parts=()
for part in setup.py pyproject.toml README.md constraints.txt cxr_tfrecords beam_pipelines trainer \
  launch; do
  parts+=("$root/$part")
done

run() {
  if [[ -n "$dry_run" ]]; then show "$@"; else "$@"; fi
}

on_vm() {
  run gcloud compute tpus tpu-vm ssh "$tpu_name" "${place[@]}" "--worker=$1" "--command=$2"
}

create() {
  local flags=()
  [[ "$spot" == no ]] || flags=(--spot)
  run gcloud compute tpus tpu-vm create "$tpu_name" "${place[@]}" \
    "--accelerator-type=$accelerator_type" "--version=$runtime_version" ${flags[@]+"${flags[@]}"}
}

delete() { run gcloud compute tpus tpu-vm delete "$tpu_name" "${place[@]}" --quiet; }

install() {
  on_vm all "mkdir -p cxr-balance" &&
    run gcloud compute tpus tpu-vm scp "${parts[@]}" "$tpu_name:cxr-balance/" \
      "${place[@]}" --worker=all --recurse &&
    on_vm all "cd cxr-balance && python3 -m pip install --quiet --user '.[tpu]'\
${pod:+ google-api-python-client oauth2client}"
}

# The trainer runs on the first VM, and controls the others of a slice.
train() {
  set_trainer python3 "$data_dir" run tpu
  trainer+=("--tpu=$tpu")
  [[ -z "$pod" ]] || trainer=(env TPU_LOAD_LIBRARY=0 "${trainer[@]}")
  on_vm 0 "cd cxr-balance && $(show bash launch/tpu_host.sh "$run_dir" run "$save_seconds" \
    "${trainer[@]}")"
}

state() {
  gcloud compute tpus tpu-vm describe "$tpu_name" "${place[@]}" '--format=value(state)' 2>/dev/null ||
    echo GONE
}

if [[ -n "$dry_run" ]]; then
  create
  install
  train
  [[ "$keep" == yes ]] || delete
  exit
fi

need_command gcloud "https://cloud.google.com/sdk/docs/install"
gcloud auth print-access-token >/dev/null 2>&1 || fail "not logged in: gcloud auth login"
[[ "$(state)" == GONE ]] || fail "--tpu_name=$tpu_name: a TPU VM of this name is there already; name another"
clean_up() {
  [[ "$keep" == yes || "$(state)" == GONE ]] || delete || echo "warning: $tpu_name may still cost" >&2
}
trap clean_up EXIT
trap 'exit 130' INT TERM
for ((restarts = 0; ; restarts++)); do
  code=0
  now="$(state)"
  if [[ "$now" != READY ]]; then
    [[ "$now" == GONE ]] || delete
    create || fail "--tpu_name=$tpu_name: the TPU VM could not be created"
    install || code=$?
  fi
  if ((code == 0)); then train || code=$?; fi
  ((code != 0)) || exit 0
  now="$(state)"
  if [[ "$code" != "$preempted" && "$now" == READY ]]; then exit "$code"; fi
  ((restarts < max_restarts)) || {
    echo "error: preempted again after --max_restarts=$max_restarts: start it again to go on" >&2
    exit "$preempted"
  }
  echo "preempted (the VM is $now): starting again from the copy in $run_dir"
done
