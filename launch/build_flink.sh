#!/usr/bin/env bash
# Builds the TFRecord shards on an Apache Flink cluster.
#
#   launch/build_flink.sh --input_dir=s3://BUCKET/radiographs --output_dir=s3://BUCKET/data \
#       --flink_master=http://HOST:8081 --parallelism=16 --environment_config=IMAGE \
#       [--dry_run] [-- --image_size=224 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --input_dir, --output_dir   always needed; s3:// or gs://, or, without DOCKER, a shared path
#   --flink_master              the cluster's REST address; always needed
#   --parallelism               task slots to use (Flink's own default is 1); always needed. One
#                               Python process serves all slots of a task manager, unless there
#                               are more: -- --sdk_worker_parallelism=SLOTS
#   --environment_type          where Python runs:
#       DOCKER (default)        in containers that the task managers start
#       EXTERNAL                in worker pools beside them, as in Kubernetes: the same image,
#                               started with --worker_pool
#       LOOPBACK                in this process, only to try the connection to the cluster
#   --environment_config        DOCKER: image of launch/Dockerfile. EXTERNAL: the pool's address
#                               as a task manager sees it, e.g. localhost:50000
#   --dry_run                   print the command, start nothing
#   -- …                        the rest goes to beam_pipelines.build unchanged
# PYTHON names the interpreter (default: python3). Started again, a build goes on.
#
# Before: Flink 1.19, 1.20 or 2.0 to 2.2, with docker on its workers for DOCKER; the image pushed
# where they can pull it; buckets that the containers may read and write by their machine's own
# role (they inherit no keys); pip install -c constraints.txt '.[build,aws]' (or build,gcp) here, in
# Python 3.11 as in the image. Beam fetches its Flink jar from Maven Central once and uploads it.
#
# Expect, for a million images at 224 px as PNG, on 16 slots:
#   CPU       2.0 ms an image, 0.56 core-hours: 2 to 3 minutes, 0.03 USD at 0.05 USD per core-hour
#   reading   a million GET requests: 0.40 USD, ten times the CPU. 20 to 50 ms each, 6 to 14 hours
#             one after the other: `-- --worker_threads=16` makes that 1 to 4 minutes
#   starting  the build is two jobs: about a minute each
# Storage, and traffic between regions, come on top. Estimates: check your prices.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2034  # common.sh reads them by name
input_dir="" output_dir="" flink_master="" parallelism="" \
  environment_type=DOCKER environment_config=""
runner=FlinkRunner
read_options "input_dir output_dir flink_master parallelism environment_type \
  environment_config" "$@"
need input_dir output_dir flink_master parallelism
check_environment
flink_master="${flink_master%/}"

# The uber jar holds all that the cluster needs, so neither Java here nor a shared folder is needed.
set_command flink_master parallelism environment_type environment_config
command+=(--flink_submit_uber_jar ${rest[@]+"${rest[@]}"})
end_dry_run

need_command "$python" "or set PYTHON"
need_command curl "it checks that Flink answers"
need_store_modules
curl -fs --max-time 10 -o /dev/null "$flink_master/v1/config" ||
  fail "--flink_master=$flink_master: no Flink REST endpoint answers there"
if [[ "$environment_type" == DOCKER && "$flink_master" =~ (localhost|127\.0\.0\.1) ]]; then
  need_command docker "a Flink on this machine starts the workers' containers with it"
fi
exec "${command[@]}"
