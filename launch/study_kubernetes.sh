#!/usr/bin/env bash
# Trains a study's runs on Kubernetes, as an indexed Job whose pods have one part of them each.
#
#   launch/study_kubernetes.sh --job_name=study --image=IMAGE --volume_claim=shared --parts=6 \
#       --data_dir=/shared/data --study_dir=/shared/study [--dry_run] \
#       [-- --methods=none,oversample --seeds=0,1,2 --backbones=resnet50 --strategy=mirrored …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --job_name       of the Job: lower case, digits and dashes; always needed
#   --image          of launch/Dockerfile.train, with EXTRA=gpu; always needed
#   --volume_claim   a PersistentVolumeClaim that many nodes may write to, with file locks, mounted at
#                    /shared; always needed
#   --data_dir       gs:// or below /shared; --study_dir: below /shared; always needed
#   --parts          parts of the study, one pod each (default 2); at most as many as methods x seeds
#                    x backbones
#   --at_once        pods at the same time (default: all)
#   --gpus           of each pod (default 1)
#   --max_restarts   how often a pod is started again (default 20)
#   --dry_run        print the manifest, apply nothing; kubectl apply -f - takes it
#   -- …             the rest goes to trainer.compare unchanged
#
# Each pod runs `python -m trainer.compare --cells=K/N`. No run is trained twice, because its log is
# locked meanwhile. After exit code 75 (stopped, checkpoint saved) or the loss of a node a pod starts
# again and goes on; another code ends its part only. When the Job is complete, run the same
# trainer.compare without --cells where the volume is mounted: it compares all runs, and trains those
# that are missing or failed.
#
# Before: kubectl with a cluster of Kubernetes 1.33 or newer (per-index limits) with GPU nodes; the
# image pushed. You pay for each hour that a node is up: let the pool scale to 0 nodes.
# Expect minutes until a node is up and has pulled the image (several GB).
# Follow it: kubectl logs -f -l job-name=JOB --prefix. Delete it: kubectl delete job JOB.
# Documentation: kubernetes.io/docs/concepts/workloads/controllers/job.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"
# shellcheck source=launch/study.sh
source "$root/launch/study.sh"
# shellcheck source=launch/manifest.sh
source "$root/launch/manifest.sh"

job_name="" image="" volume_claim="" data_dir="" study_dir="" parts=2 at_once="" gpus=1 \
  max_restarts=20 rest_is_for=trainer.compare
read_options "job_name image volume_claim data_dir study_dir parts at_once gpus max_restarts" "$@"
need job_name image volume_claim data_dir study_dir
refuse_study_flags
at_once="${at_once:-$parts}"
need_number parts 1 at_once 1 gpus 1 max_restarts 0
need_plain_names job_name volume_claim
need_image_names image
need_shared_paths study_dir

list="$(arguments "--data_dir=$data_dir" "--study_dir=$study_dir" ${rest[@]+"${rest[@]}"})"
text="$(manifest study_kubernetes.yaml "JOB_NAME=$job_name" "IMAGE=$image" \
  "VOLUME_CLAIM=$volume_claim" "PARTS=$parts" "AT_ONCE=$at_once" "GPUS=$gpus" \
  "MAX_RESTARTS=$max_restarts" "ARGUMENTS=$list")"
if [[ -n "$dry_run" ]]; then
  printf '%s\n' "$text"
  exit
fi
need_command kubectl "https://kubernetes.io/docs/tasks/tools"
printf '%s\n' "$text" | kubectl apply --filename=-
echo "follow it: kubectl logs -f -l job-name=$job_name --prefix"
