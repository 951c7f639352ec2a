#!/usr/bin/env bash
# Builds the TFRecord shards on a Dask cluster, or on this machine's cores through Dask.
#
#   launch/build_dask.sh --input_dir=s3://BUCKET/radiographs --output_dir=s3://BUCKET/data \
#       --dask_client_address=tcp://HOST:8786 [--dask_npartitions=64] \
#       [--dry_run] [-- --image_size=224 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --input_dir, --output_dir   s3:// or gs://, or a path that all workers share; always needed
#   --dask_client_address       the scheduler; without it, a cluster is started on this machine
#   --dask_npartitions          number of parts of the work; take a few for each worker thread
#                               (default: about 100)
#   --dry_run                   print the command, start nothing
#   -- …                        the rest goes to beam_pipelines.build unchanged
# PYTHON names the interpreter (default: python3). Started again, a build goes on.
#
# Before: pip install -c constraints.txt '.[build,dask]' here and '.[dask]' on every worker (with
# aws or gcp among the extras for buckets), the same versions of Python and of Dask everywhere; keys
# for the buckets on the workers.
#
# Expect, for a million images at 224 px as PNG, on 16 cores:
#   CPU       2.0 ms an image, 0.56 core-hours: 2 to 3 minutes, 0.03 USD at 0.05 USD per core-hour
#   reading   a million GET requests: 0.40 USD, ten times the CPU. 20 to 50 ms each, 6 to 14 hours
#             one after the other: `-- --worker_threads=16` makes that 1 to 4 minutes
#   starting  seconds, on a cluster that runs already
# Storage, and traffic between regions, come on top. Estimates: check your prices.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2034  # common.sh reads them by name
input_dir="" output_dir="" dask_client_address="" dask_npartitions=""
# Beam has no short name for this runner.
runner=apache_beam.runners.dask.dask_runner.DaskRunner
read_options "input_dir output_dir dask_client_address dask_npartitions" "$@"
need input_dir output_dir
if [[ -n "$dask_client_address" ]]; then
  for path in "$input_dir" "$output_dir"; do
    [[ "$path" == *://* || "$path" == /* ]] ||
      fail "$path: workers elsewhere need a full path of a disk they share, or s3:// or gs://"
  done
fi

set_command dask_client_address dask_npartitions
command+=(${rest[@]+"${rest[@]}"})
end_dry_run

need_command "$python" "or set PYTHON"
need_module dask.distributed dask
need_store_modules
[[ -z "$dask_client_address" ]] || need_port "${dask_client_address#*://}" "Dask's scheduler"
exec "${command[@]}"
