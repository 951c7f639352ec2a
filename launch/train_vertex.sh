#!/usr/bin/env bash
# Trains on Vertex AI: a custom job of one or more GPU machines, followed to its end.
#
#   launch/train_vertex.sh --job_name=first --project=PROJECT --region=us-central1 --image=IMAGE \
#       --data_dir=gs://BUCKET/data --run_dir=gs://BUCKET/runs/first --workers=2 \
#       [--machine_type=g2-standard-12] [--spot=yes] [--dry_run] [-- --backbone=resnet50 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --job_name, --project, --region   always needed
#   --image          of launch/Dockerfile.train, in the Artifact Registry; always needed
#   --data_dir       gs://; always needed
#   --run_dir        gs://BUCKET/FOLDER; all workers see it as /gcs/BUCKET/FOLDER (Cloud Storage
#                    FUSE), so that a restarted job continues from its checkpoints; always needed
#   --workers        number of machines (default 1; more train with --strategy=multi_worker)
#   --machine_type, --accelerator_type, --accelerator_count   of each machine (default
#                    g2-standard-12, NVIDIA_L4, 1)
#   --spot           yes: cheaper, may be preempted. no (default)
#   --poll_seconds   how often the job's state is asked for, in seconds (default 60)
#   --max_restarts   stops after this many preemptions (default 20)
#   --dry_run        print the job's configuration and the command, start nothing
#   -- …             the rest goes to trainer.main unchanged
#
# Vertex sets TF_CONFIG (the first machine is its chief) and restarts the whole job when it loses a
# machine. If the trainer exits with 75 (preempted, checkpoint saved), the job fails, and this script
# starts it again. If you interrupt this script, the job goes on, but nothing starts it again.
#
# Before: gcloud auth login; the Vertex AI API; quota for custom training GPUs in the region; the
# job's service account may use the bucket; the image pushed. The cost is machines x hours at
# cloud.google.com/vertex-ai/pricing (prices could not be checked here). Expect 5 to 15 minutes until
# the machines are up and have the image; an estimate, not measured.
# Documentation: cloud.google.com/vertex-ai/docs/training/distributed-training,
# /create-custom-job, /cloud-storage-file-system; gcloud help ai custom-jobs create, describe.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"

job_name="" project="" region="" image="" data_dir="" run_dir="" workers=1 \
  machine_type=g2-standard-12 accelerator_type=NVIDIA_L4 accelerator_count=1 spot=no \
  poll_seconds=60 max_restarts=20 rest_is_for=trainer.main
read_options "job_name project region image data_dir run_dir workers machine_type accelerator_type \
  accelerator_count spot poll_seconds max_restarts" "$@"
need job_name project region image data_dir run_dir
need_number workers 1 accelerator_count 1 poll_seconds 1 max_restarts 0
refuse_own_flags
for option in data_dir run_dir; do
  [[ "${!option}" == gs://?*/?* ]] || fail "--$option=${!option}: must be gs://BUCKET/FOLDER"
done
[[ "$spot" == yes || "$spot" == no ]] || fail "--spot=$spot: must be yes or no"
# These values are put into the configuration unquoted, so they must not change its structure.
for option in image machine_type accelerator_type; do
  [[ "${!option}" =~ ^[A-Za-z0-9][A-Za-z0-9./:@_-]*$ ]] || fail "--$option=${!option}: is not a name"
done
strategy=mirrored
((workers == 1)) || strategy=multi_worker

pool() {
  local word plain
  cat <<POOL
- machineSpec:
    machineType: $machine_type
    acceleratorType: $accelerator_type
    acceleratorCount: $accelerator_count
  replicaCount: $1
  containerSpec:
    imageUri: $image
    command: [python, -m, trainer.main]
    args:
POOL
  for word in "--data_dir=$data_dir" "--run_dir=/gcs/${run_dir#gs://}" "--strategy=$strategy" \
    ${rest[@]+"${rest[@]}"}; do
    [[ "$word" != *[[:cntrl:]]* ]] || fail "a flag after -- holds a line break or a tab"
    plain="${word//\\/\\\\}"
    printf '    - "%s"\n' "${plain//\"/\\\"}"
  done
}

# The first pool is the chief, which is always one machine.
configuration() {
  echo "workerPoolSpecs:"
  pool 1
  ((workers == 1)) || pool $((workers - 1))
  echo "scheduling:"
  echo "  restartJobOnWorkerRestart: true"
  [[ "$spot" == no ]] || echo "  strategy: SPOT"
}

text="$(configuration)"
file="$(mktemp "${TMPDIR:-/tmp}/cxr-vertex.XXXXXX")"
trap 'rm -f "$file"' EXIT
printf '%s\n' "$text" >"$file"
place=("--project=$project" "--region=$region")
command=(gcloud ai custom-jobs create "--display-name=$job_name" "${place[@]}" "--config=$file"
  "--format=value(name)")
if [[ -n "$dry_run" ]]; then
  printf '%s\n' "$text"
  show "${command[@]}" | sed "s|$file|FILE_WITH_THE_ABOVE|"
  exit
fi

need_command gcloud "https://cloud.google.com/sdk/docs/install"
gcloud auth print-access-token >/dev/null 2>&1 || fail "not logged in: gcloud auth login"
for ((restarts = 0; ; restarts++)); do
  job="$("${command[@]}")" || fail "--job_name=$job_name: the job could not be created"
  echo "started; its output: gcloud ai custom-jobs stream-logs $job --region=$region"
  while true; do
    state="$(gcloud ai custom-jobs describe "$job" "${place[@]}" "--format=value(state)")" ||
      state=unknown # the request failed; it is repeated
    case "$state" in
      JOB_STATE_SUCCEEDED) echo "results: $run_dir"; exit ;;
      JOB_STATE_FAILED | JOB_STATE_CANCELLED | JOB_STATE_EXPIRED) break ;;
    esac
    sleep "$poll_seconds"
  done
  reason="$(gcloud ai custom-jobs describe "$job" "${place[@]}" "--format=value(error.message)")"
  [[ "$state" == JOB_STATE_FAILED && "$reason" =~ status\ of\ $preempted([^0-9]|$) ]] ||
    { echo "error: $state: $reason" >&2; exit 1; }
  ((restarts < max_restarts)) || {
    echo "error: preempted again after --max_restarts=$max_restarts: start it again to go on" >&2
    exit "$preempted"
  }
  echo "preempted: starting again from the checkpoints in $run_dir"
done
