#!/usr/bin/env bash
# Runs on a TPU VM, where train_tpu.sh starts it: fetches the run from the bucket, trains, and
# copies the run back every few minutes, so that another VM can go on with it.
#   launch/tpu_host.sh gs://BUCKET/RUN RUN SECONDS python3 -m trainer.main --run_dir=RUN …
# Its exit code is the trainer's. A signal goes to the trainer; what it saves then is copied too.
set -euo pipefail
store="${1%/}" run="${2%/}" seconds="$3"
shift 3
checkpoints="$run/checkpoints" list=whole.txt # in the bucket: checkpoints that are there whole

# A checkpoint to resume from names the best one, which was saved before it. So those to resume from
# are chosen first, copied last, and listed when they are there: whatever moment the VM goes, what the
# list in the bucket names can be resumed. They are folders that never change; hard links keep those
# that the trainer removes meanwhile. Old checkpoints stay in the bucket.
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

# fetch: the run as it is in the bucket, less checkpoints that may not be there whole.
fetch() {
  local folder
  gcloud storage rsync --recursive "$store" "$run"
  for folder in "$checkpoints"/resume/*; do
    grep -qxF "${folder##*/}" "$checkpoints/$list" 2>/dev/null || rm -rf "$folder"
  done
  rm -f "$checkpoints/$list"
}

# Short sleeps, and its output in a file: a sleep that outlives this script and holds its output
# would keep ssh waiting for it.
save_often() {
  local second
  while true; do
    for ((second = 0; second < seconds; second++)); do sleep 1; done
    save || echo "$(date): the run could not be copied to $store"
  done
}

# A connection that broke may have left a trainer here.
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
if [[ -n "$stopped" ]]; then # the signal ended the wait, not yet the trainer
  code=0
  wait "$trainer" || code=$?
fi
kill "$copier" 2>/dev/null || true
wait "$copier" 2>/dev/null || true
rm -f "$run.pid"
save || { echo "error: the run could not be copied to $store" >&2; exit 1; }
exit "$code"
