#!/usr/bin/env bash
# Builds the TFRecord shards on an Apache Spark cluster.
#
#   launch/build_spark.sh --input_dir=s3://BUCKET/radiographs --output_dir=s3://BUCKET/data \
#       --spark_master_url=spark://HOST:7077 --environment_config=IMAGE [--dry_run] [-- …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --input_dir, --output_dir   always needed; s3:// or gs://, or, without DOCKER, a shared path
#   --spark_master_url          the cluster; a Beam job server is started here for the build
#   --spark_job_server          java (default): a jar that Beam fetches from Maven Central;
#                               docker: the container apache/beam_spark3_job_server
#   --spark_version             3 (default), the only one that Beam knows
#   --job_endpoint              instead of these three: HOST:PORT of a job server that runs already
#   --environment_type, --environment_config   DOCKER (default) and the image of
#       launch/Dockerfile; or EXTERNAL and the address of a worker pool beside each executor (the
#       same image, started with --worker_pool); or LOOPBACK, in this process, to try it. One
#       Python process serves a worker, unless there are more: -- --sdk_worker_parallelism=CORES
#   --dry_run                   print the commands, start nothing
#   -- …                        the rest goes to beam_pipelines.build unchanged
# PYTHON names the interpreter (default: python3). Started again, a build goes on.
#
# Before: Spark 3 whose workers reach this machine (Spark's driver runs in the job server) and have
# docker for DOCKER; the image where they can pull it; buckets that containers may use by their
# machine's role; here Java 11 or 17 (or docker on Linux), Python 3.11 as in the image, and pip
# install -c constraints.txt '.[build,aws]' (or build,gcp).
#
# Expect, for a million images at 224 px as PNG, on 16 cores:
#   CPU       2.0 ms an image, 0.56 core-hours: 2 to 3 minutes, 0.03 USD at 0.05 USD per core-hour
#   reading   a million GET requests: 0.40 USD, ten times the CPU. 20 to 50 ms each, 6 to 14 hours
#             one after the other: `-- --worker_threads=16` makes that 1 to 4 minutes
#   starting  the build is two jobs: about a minute each
# Storage, and traffic between regions, come on top. Estimates: check your prices.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2034  # common.sh reads them by name
input_dir="" output_dir="" spark_master_url="" spark_job_server=java spark_version=3 \
  job_endpoint="" environment_type=DOCKER environment_config="" runner=PortableRunner
read_options "input_dir output_dir spark_master_url spark_job_server spark_version \
  job_endpoint environment_type environment_config" "$@"
need input_dir output_dir
[[ -n "$job_endpoint" ]] || need spark_master_url
[[ "$spark_version" == 3 ]] || fail "--spark_version=$spark_version: Beam knows Spark 3 only"
check_environment
container=cxr-balance-job-server
if [[ -n "$job_endpoint" ]]; then
  spark_job_server=running
  set_command job_endpoint environment_type environment_config
elif [[ "$spark_job_server" == docker ]]; then
  job_endpoint=localhost:8099
  beam="$(sed -n 's/^apache-beam==//p' "$root/constraints.txt")"
  server=(docker run --rm --detach --net=host "--name=$container"
    "apache/beam_spark${spark_version}_job_server:$beam" "--spark-master-url=$spark_master_url")
  set_command job_endpoint environment_type environment_config
elif [[ "$spark_job_server" == java ]]; then
  runner=SparkRunner
  set_command spark_master_url spark_version environment_type environment_config
else
  fail "--spark_job_server=$spark_job_server: must be java or docker"
fi
# Otherwise Beam passes a file for its logs that is on this disk, which the workers do not see.
command+=(--experiments=disable_logging_submission_environment ${rest[@]+"${rest[@]}"})
if [[ -n "$dry_run" && "$spark_job_server" == docker ]]; then
  show "${server[@]}"
  show "${command[@]}"
  show docker stop "$container"
  exit
fi
end_dry_run

need_command "$python" "or set PYTHON"
need_store_modules
if [[ "$spark_job_server" == running ]]; then
  need_port "$job_endpoint" "the job server"
elif [[ "$spark_master_url" == spark://* ]]; then
  master="${spark_master_url#spark://}"
  need_port "${master%%,*}" "Spark's master"
fi
case "$spark_job_server" in
  java) need_command java "Java 11 or 17, or use --spark_job_server=docker" ;;
  docker)
    need_command docker "or use --spark_job_server=java"
    docker info >/dev/null 2>&1 || fail "docker is installed, but its engine does not answer"
    "${server[@]}" >/dev/null
    trap 'docker stop "$container" >/dev/null 2>&1 || true' EXIT
    "${command[@]}"
    exit ;;
esac
exec "${command[@]}"
