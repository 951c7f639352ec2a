#!/usr/bin/env bash
# Runs on a TPU VM, where train_tpu.sh starts it: fetches the run from the bucket, trains, and
# copies the run back every few minutes, so that another VM can go on with it.
#   launch/tpu_host.sh gs://BUCKET/RUN RUN SECONDS python3 -m trainer.main --run_dir=RUN …
# Its exit code is the trainer's. A signal goes to the trainer; what it saves then is copied too.
set -euo pipefail
store="${1%/}" run="${2%/}" seconds="$3"
shift 3
lists=(epochs best) # of checkpoints: the files that say which one is the last

# Lists are read before what they name is copied, and written after: whatever moment the VM goes,
# those in the bucket name checkpoints that are there whole. Old checkpoints stay in the bucket.
save() {
  local name code=0
  for name in "${lists[@]}"; do
    rm -f "$run.$name"
    [[ ! -e "$run/checkpoints/$name/checkpoint" ]] ||
      cp "$run/checkpoints/$name/checkpoint" "$run.$name"
  done
  gcloud storage rsync --recursive '--exclude=checkpoints/[^/]*/checkpoint$|.*_temp/' \
    "$run" "$store" || code=1
  for name in best epochs; do
    if [[ -e "$run.$name" && "$code" == 0 ]]; then
      gcloud storage cp "$run.$name" "$store/checkpoints/$name/checkpoint" || code=1
    fi
  done
  return "$code"
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
  gcloud storage rsync --recursive "$store" "$run"
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
