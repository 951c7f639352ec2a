#!/usr/bin/env bash
# Trains on Kubernetes (GKE) as a JobSet: several GPU workers, or one single-host TPU slice.
#
#   launch/train_gke.sh --kind=tpu --job_name=first --image=IMAGE \
#       --accelerator=tpu-v6e-slice --topology=2x2 --chips=4 \
#       --data_dir=gs://BUCKET/data --run_dir=gs://BUCKET/runs/first [--dry_run] [-- --backbone=… …]
#   launch/train_gke.sh --kind=gpu --accelerator=nvidia-l4 --workers=2 --chips=1 …
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --kind           gpu or tpu: uses launch/train_gke_{gpu,tpu}.yaml; always needed
#   --job_name       of the JobSet: lower case, digits and dashes; always needed
#   --image          of launch/Dockerfile.train, with EXTRA=gpu or tpu; always needed
#   --data_dir, --run_dir   gs:// or below /shared; always needed
#   --volume_claim   a PersistentVolumeClaim, mounted at /shared; needed for folders there. Several
#                    workers need one that many nodes may write to (Filestore)
#   --accelerator    the node pool's label, gke-accelerator or gke-tpu-accelerator; always needed
#   --topology       with tpu: the label gke-tpu-topology, such as 2x2
#   --chips          of each pod: its GPUs (default 1), or all TPU chips of the node (4 with 2x2)
#   --workers        with gpu: number of pods, one on each node (default 2)
#   --max_restarts   how often the whole set is restarted (default 20)
#   --dry_run        print the manifest, apply nothing; kubectl apply -f - takes it
#   -- …             the rest goes to trainer.main unchanged
#
# After exit code 75 (preempted, checkpoint saved) or the loss of a node all workers restart and
# continue from --run_dir; every other code fails the set. TPU slices of several hosts are refused,
# because TensorFlow needs its own server on each host, which GKE does not run. TensorFlow 2.20, the
# last version with a wheel for TPUs, runs on v2 to v6e (tpu-v6e-slice), not on TPU7x.
#
# Before: kubectl with a cluster that has the JobSet controller (0.7 or newer) and such a node pool;
# the image pushed; for gs://, a service account of the pods that may use the bucket. You pay for each
# hour that a node is up: let the pool scale to 0 nodes.
# Expect minutes until a node is up and has pulled the image (several GB), then a minute to start.
# Follow it: kubectl get jobset JOB; kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=JOB.
# Delete it: kubectl delete jobset JOB.
# Documentation: jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2; kubernetes.io/docs/reference/
# kubectl/generated/kubectl_apply; cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/workers.sh
source "$root/launch/workers.sh"
# shellcheck source=launch/manifest.sh
source "$root/launch/manifest.sh"

kind="" job_name="" image="" volume_claim="" data_dir="" run_dir="" accelerator="" topology="" \
  chips=1 workers=2 max_restarts=20 rest_is_for=trainer.main
read_options "kind job_name image volume_claim data_dir run_dir accelerator topology chips workers \
  max_restarts" "$@"
need kind job_name image data_dir run_dir accelerator
refuse_own_flags
need_number chips 1 workers 1 max_restarts 0
[[ "$kind" == gpu || "$kind" == tpu ]] || fail "--kind=$kind: must be gpu or tpu"
need_plain_names job_name
need_image_names image accelerator
volume="emptyDir: {}"
for option in data_dir run_dir; do
  [[ "${!option}" == gs://?*/?* || "${!option}" == /shared/?* ]] ||
    fail "--$option=${!option}: must be gs://BUCKET/FOLDER or below /shared, the volume"
  [[ "${!option}" == gs://* ]] || need volume_claim
done
if [[ -n "$volume_claim" ]]; then
  need_plain_names volume_claim
  volume="persistentVolumeClaim: {claimName: $volume_claim}"
fi
strategy=multi_worker
if [[ "$kind" == tpu ]]; then
  strategy=tpu
  [[ "$accelerator" != tpu7* ]] ||
    fail "--accelerator=$accelerator: TensorFlow's last wheel for TPUs, 2.20, knows v2 to v6e only"
  [[ "$topology" =~ ^([0-9]{1,3})x([0-9]{1,3})(x([0-9]{1,3}))?$ ]] ||
    fail "--topology=$topology: must look like 2x4"
  ((BASH_REMATCH[1] * BASH_REMATCH[2] * ${BASH_REMATCH[4]:-1} == chips)) || fail \
    "--topology=$topology with --chips=$chips: only slices of one host run, with all their chips"
fi

list="$(arguments "--data_dir=$data_dir" "--run_dir=$run_dir" "--strategy=$strategy" \
  ${rest[@]+"${rest[@]}"})"
text="$(manifest "train_gke_$kind.yaml" "JOB_NAME=$job_name" "IMAGE=$image" \
  "VOLUME=$volume" "ACCELERATOR=$accelerator" "TOPOLOGY=$topology" "CHIPS=$chips" \
  "WORKERS=$workers" "MAX_RESTARTS=$max_restarts" "ARGUMENTS=$list")"
if [[ -n "$dry_run" ]]; then
  printf '%s\n' "$text"
  exit
fi
need_command kubectl "https://kubernetes.io/docs/tasks/tools"
kubectl get crd jobsets.jobset.x-k8s.io >/dev/null 2>&1 ||
  fail "kubectl reaches no cluster with JobSet: see jobset.sigs.k8s.io/docs/installation"
printf '%s\n' "$text" | kubectl apply --filename=-
echo "follow it: kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=$job_name"
