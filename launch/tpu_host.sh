#!/usr/bin/env bash
# Runs on a TPU VM, where train_tpu.sh starts it: fetches the run from the bucket, trains, and
# copies the run to the bucket every few minutes, so that another VM can continue it.
#   launch/tpu_host.sh gs://BUCKET/RUN RUN SECONDS python3 -m trainer.main --run_dir=RUN …
# Its exit code is the trainer's. It passes a signal on to the trainer, waits until the trainer has
# saved a checkpoint, and copies that too.
set -euo pipefail
store="${1%/}" run="${2%/}" seconds="$3"
shift 3
checkpoints="$run/checkpoints" list=whole.txt # in the bucket: lists checkpoints that are complete

# Copies the run to the bucket, such that every checkpoint in the bucket's list can be resumed, even
# if the VM disappears while copying. A checkpoint to resume from names the best checkpoint, which was
# saved before it. So the order is: choose the checkpoints to resume from, copy all other files, copy
# the chosen checkpoints, then list them. A checkpoint is a folder that never changes; hard links keep
# the chosen ones although the trainer may remove them. Old checkpoints stay in the bucket.
save() {
  rm -rf "$run.resume"
  mkdir "$run.resume" || return 1
  [[ ! -d "$checkpoints/resume" ]] || cp -rl "$checkpoints/resume/." "$run.resume" || return 1
  rm -rf "$run.resume/.unfinished"
  ls "$run.resume" >"$run.list"
  gcloud storage rsync --recursive '--exclude=checkpoints/resume/|.*/\.unfinished/' \
    "$run" "$store" || return 1
  if [[ -s "$run.list" ]]; then
    gcloud storage rsync --recursive "$run.resume" "$store/checkpoints/resume" || return 1
    gcloud storage cp "$run.list" "$store/checkpoints/$list" || return 1
  fi
}

# Copies the run from the bucket, and removes checkpoints that the list does not name as complete.
fetch() {
  local folder
  gcloud storage rsync --recursive "$store" "$run"
  for folder in "$checkpoints"/resume/*; do
    grep -qxF "${folder##*/}" "$checkpoints/$list" 2>/dev/null || rm -rf "$folder"
  done
  rm -f "$checkpoints/$list"
}

# ssh waits until all processes that hold its output have ended. A sleep may outlive this script, so
# sleeps are short, and the output of this function goes to a file.
save_often() {
  local second
  while true; do
    for ((second = 0; second < seconds; second++)); do sleep 1; done
    save || echo "$(date): the run could not be copied to $store"
  done
}

# If an earlier ssh connection was lost, its trainer may still run here: stop it.
if [[ -e "$run.pid" ]]; then kill -TERM "$(<"$run.pid")" 2>/dev/null && sleep 5 || true; fi
mkdir -p "$run"
if gcloud storage ls "$store/**" >/dev/null 2>&1; then
  fetch
fi
save_often >>"$run.copy.log" 2>&1 </dev/null &
copier=$!
"$@" &
trainer=$!
echo "$trainer" >"$run.pid"
stopped=""
trap 'stopped=1; kill -TERM "$trainer" 2>/dev/null || true' TERM INT HUP
code=0
wait "$trainer" || code=$?
if [[ -n "$stopped" ]]; then # the signal ended `wait`, but the trainer still runs
  code=0
  wait "$trainer" || code=$?
fi
kill "$copier" 2>/dev/null || true
wait "$copier" 2>/dev/null || true
rm -f "$run.pid"
save || { echo "error: the run could not be copied to $store" >&2; exit 1; }
exit "$code"
