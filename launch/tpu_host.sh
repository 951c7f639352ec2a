#!/usr/bin/env bash
# Runs on a TPU VM, where train_tpu.sh starts it: ends a trainer that an earlier connection has left,
# then becomes the trainer. (If only the ssh connection is lost, the trainer goes on.)
#   launch/tpu_host.sh python3 -m trainer.main --run_dir=gs://BUCKET/RUN …
set -euo pipefail
note=trainer.pid
if [[ -e "$note" ]]; then
  earlier="$(<"$note")"
  # At SIGTERM it saves a checkpoint and copies that to the bucket.
  kill -TERM "$earlier" 2>/dev/null || true
  for ((second = 0; second < 60; second++)); do
    kill -0 "$earlier" 2>/dev/null || break
    sleep 1
  done
  kill -KILL "$earlier" 2>/dev/null || true
fi
echo "$$" >"$note" # exec keeps the process id
exec "$@"
