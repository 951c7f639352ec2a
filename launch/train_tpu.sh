#!/usr/bin/env bash
# Trains on a TPU VM, or on a slice of several VMs: creates it, copies and installs the code, trains,
# starts again on a new VM if it was preempted, and deletes it at the end.
#
#   launch/train_tpu.sh --tpu_name=cxr --project=PROJECT --zone=europe-west4-a --spot=yes \
#       --machine_type=ct6e-standard-4t --data_dir=gs://BUCKET/data --run_dir=gs://BUCKET/runs/first
#   launch/train_tpu.sh --tpu_name=cxr --project=PROJECT --zone=us-central1-a --spot=yes \
#       --data_dir=gs://BUCKET/data --run_dir=gs://BUCKET/runs/first [--dry_run] \
#       [-- --backbone=resnet50 --batch_size=1024 --mixed_precision=bfloat16 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --tpu_name, --project, --zone  of the TPU VM, which must not exist yet; always needed
#   --data_dir          gs://, in the zone's region; always needed
#   --run_dir           gs://, where the trainer writes the run, with every checkpoint. So a new VM,
#                       or the same command later, continues it; always needed
#   --machine_type      makes the VM with Compute Engine: ct6e-standard-1t, -4t or -8t (v6e) or
#                       ct5p-hightpu-4t (v5p), one VM each. Without it, the VM is made with the
#                       Cloud TPU API, which Google does not develop any more
#   --image_family      with --machine_type: of the project ubuntu-os-accelerator-images (default
#                       ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e)
#   --accelerator_type  of the Cloud TPU API: default v5litepod-8, one VM. Numbers above 8 are slices
#                       of several VMs
#   --runtime_version   of the Cloud TPU API: the VM's image; the default depends on the type (v2-alpha-tpuv5-lite, …). A
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
# TensorFlow 2.20, the last version with a wheel for TPUs, runs on v2 to v6e, not on TPU7x.
#
# Before: gcloud auth login; the TPU API (or Compute Engine's) enabled; quota for the type in the zone; the VM's service
# account may read and write the bucket. The cost is chips x hours of the type at
# cloud.google.com/tpu/pricing, from creating to deleting (prices could not be checked here).
# Expect some minutes to create it and some to install; the first step compiles for about a minute.
# Documentation: cloud.google.com/tpu/docs/runtimes, /preemptible, /spot, /managing-tpus-tpu-vm;
# gcloud help compute tpus tpu-vm create, ssh, scp, describe, delete; with --machine_type:
# cloud.google.com/compute/docs/tpus/create-tpu-vm-instance, /tpu-machines; gcloud help compute
# instances create, describe, delete; gcloud help compute ssh, scp.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"

tpu_name="" project="" zone="" data_dir="" run_dir="" accelerator_type="" runtime_version="" \
  machine_type="" image_family="" spot=no keep=no max_restarts=20 rest_is_for=trainer.main
read_options "tpu_name project zone data_dir run_dir accelerator_type runtime_version machine_type \
  image_family spot keep max_restarts" "$@"
need tpu_name project zone data_dir run_dir
need_number max_restarts 0
refuse_own_flags
for option in data_dir run_dir; do
  [[ "${!option}" == gs://?*/?* ]] || fail "--$option=${!option}: must be gs://BUCKET/FOLDER"
done
for option in spot keep; do
  [[ "${!option}" == yes || "${!option}" == no ]] || fail "--$option=${!option}: must be yes or no"
done
if [[ -n "$machine_type" ]]; then
  [[ -z "$accelerator_type$runtime_version" ]] || fail "--machine_type=$machine_type: a VM of Compute\
 Engine has no --accelerator_type or --runtime_version"
  [[ "$machine_type" != tpu7x-* ]] ||
    fail "--machine_type=$machine_type: TensorFlow's last wheel for TPUs, 2.20, knows v2 to v6e only"
  [[ "$machine_type" =~ ^ct(5p-hightpu-4t|6e-standard-[148]t)$ ]] || fail "--machine_type=\
$machine_type: must be ct6e-standard-1t, -4t or -8t, or ct5p-hightpu-4t"
else
  [[ -z "$image_family" ]] || fail "--image_family=$image_family: needs --machine_type"
fi
accelerator_type="${accelerator_type:-v5litepod-8}"
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

# The two APIs differ in these four functions. on_vm WORKER COMMAND: on one VM of a slice, or all.
on_vm() {
  if [[ -n "$machine_type" ]]; then
    run gcloud compute ssh "$tpu_name" "${place[@]}" "--command=$2"
  else
    run gcloud compute tpus tpu-vm ssh "$tpu_name" "${place[@]}" "--worker=$1" "--command=$2"
  fi
}

copy() {
  if [[ -n "$machine_type" ]]; then
    run gcloud compute scp "${parts[@]}" "$tpu_name:cxr-balance/" "${place[@]}" --recurse
  else
    run gcloud compute tpus tpu-vm scp "${parts[@]}" "$tpu_name:cxr-balance/" \
      "${place[@]}" --worker=all --recurse
  fi
}

create() {
  local flags=()
  if [[ -n "$machine_type" ]]; then
    [[ "$spot" == no ]] ||
      flags=(--provisioning-model=SPOT --instance-termination-action=STOP)
    # The image's own disk, of 10 GB, is too small for TensorFlow.
    run gcloud compute instances create "$tpu_name" "${place[@]}" "--machine-type=$machine_type" \
      "--image-family=${image_family:-ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e}" \
      --image-project=ubuntu-os-accelerator-images --boot-disk-size=100GB \
      --maintenance-policy=TERMINATE --scopes=cloud-platform ${flags[@]+"${flags[@]}"}
    return
  fi
  [[ "$spot" == no ]] || flags=(--spot)
  run gcloud compute tpus tpu-vm create "$tpu_name" "${place[@]}" \
    "--accelerator-type=$accelerator_type" "--version=$runtime_version" ${flags[@]+"${flags[@]}"}
}

if [[ -n "$machine_type" ]]; then
  api=(gcloud compute instances) ready=RUNNING field=status
else
  api=(gcloud compute tpus tpu-vm) ready=READY field=state
fi

delete() { run "${api[@]}" delete "$tpu_name" "${place[@]}" --quiet; }

install() {
  local tries=0
  # A VM of Compute Engine that has just started does not answer ssh yet.
  until on_vm all "mkdir -p cxr-balance"; do
    ((++tries < 12)) || return 1
    sleep 10
  done
  [[ -z "$machine_type" ]] || on_vm all "python3 -m pip --version >/dev/null 2>&1 ||\
 { sudo apt-get -q update && sudo apt-get -qy install python3-pip; }" || return 1
  copy && on_vm all "cd cxr-balance && python3 -m pip install --quiet --user '.[tpu]' gcsfs\
${pod:+ google-api-python-client oauth2client}"
}

# The trainer runs on the first VM, and controls the others of a slice.
train() {
  set_trainer python3 "$data_dir" "$run_dir" tpu
  trainer+=("--tpu=$tpu")
  [[ -z "$pod" ]] || trainer=(env TPU_LOAD_LIBRARY=0 "${trainer[@]}")
  on_vm 0 "cd cxr-balance && $(show bash launch/tpu_host.sh "${trainer[@]}")"
}

state() {
  "${api[@]}" describe "$tpu_name" "${place[@]}" "--format=value($field)" 2>/dev/null || echo GONE
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
  if [[ "$now" != "$ready" ]]; then
    [[ "$now" == GONE ]] || delete
    create || fail "--tpu_name=$tpu_name: the TPU VM could not be created"
    install || code=$?
  fi
  if ((code == 0)); then train || code=$?; fi
  ((code != 0)) || exit 0
  now="$(state)"
  if [[ "$code" != "$preempted" && "$now" == "$ready" ]]; then exit "$code"; fi
  ((restarts < max_restarts)) || {
    echo "error: preempted again after --max_restarts=$max_restarts: start it again to go on" >&2
    exit "$preempted"
  }
  echo "preempted (the VM is $now): starting again from the checkpoints in $run_dir"
done
