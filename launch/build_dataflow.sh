#!/usr/bin/env bash
# Builds the TFRecord shards on Google Cloud Dataflow.
#
#   launch/build_dataflow.sh --input_dir=gs://BUCKET/radiographs --output_dir=gs://BUCKET/data \
#       --project=PROJECT --region=REGION --temp_location=gs://BUCKET/tmp \
#       [--max_num_workers=10] [--sdk_container_image=IMAGE] [--dry_run] [-- --image_size=224 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --input_dir, --output_dir   gs:// (or, with an image, s3://); always needed
#   --project, --region         of the job; take the region of the bucket; always needed
#   --temp_location             gs://BUCKET/FOLDER for Dataflow's temporary files; always needed
#   --num_workers, --max_num_workers, --machine_type   by default Dataflow chooses
#   --sdk_container_image       image of launch/Dockerfile, with which workers start fastest. Without
#                               it each worker first installs setup.py's base, which a build
#                               imports: 19 s and 646 MB
#   --dry_run                   print the command, start nothing
#   -- …                        the rest goes to beam_pipelines.build unchanged
# PYTHON names the interpreter (default: python3). Started again, a build goes on.
#
# Before: gcloud auth login && gcloud auth application-default login; the Dataflow API enabled;
# pip install -c constraints.txt '.[build,gcp]', in Python 3.11 when the image is used.
#
# Expect, for a million images at 224 px as PNG, on 10 vCPUs:
#   CPU       2.0 ms an image, 0.56 core-hours: 3 to 4 minutes, 0.04 USD (a batch vCPU with
#             3.75 GB at 0.056 + 3.75 x 0.0036 = 0.07 USD/h)
#   reading   a million GET requests: 0.40 USD, ten times the CPU. 20 to 50 ms each, 6 to 14 hours
#             one after the other: `-- --worker_threads=16` makes that 2 to 5 minutes
#   starting  the build is two jobs, 3 to 6 minutes each on every worker: up to 0.14 USD
# So 15 to 20 minutes and 0.6 USD; storage, and traffic if bucket and region differ, come on top.
# Estimates, from list prices that change: check them at cloud.google.com/dataflow/pricing.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2034  # common.sh reads them by name
input_dir="" output_dir="" project="" region="" temp_location="" \
  num_workers="" max_num_workers="" machine_type="" sdk_container_image=""
runner=DataflowRunner
read_options "input_dir output_dir project region temp_location num_workers max_num_workers \
  machine_type sdk_container_image" "$@"
need input_dir output_dir project region temp_location
need_remote input_dir output_dir
[[ "$temp_location" == gs://?*/* ]] ||
  fail "--temp_location=$temp_location: must be gs://BUCKET/FOLDER"

set_command project region temp_location num_workers max_num_workers machine_type \
  sdk_container_image
if [[ -n "$sdk_container_image" ]]; then
  command+=(--sdk_location=container)
elif [[ "$input_dir $output_dir" == *s3*://* ]]; then
  fail "--input_dir or --output_dir: s3:// needs --sdk_container_image, Dataflow's default workers cannot use it"
else
  # setup.py's base has no file system of a cloud, so the second file adds it.
  command+=("--setup_file=$root/setup.py"
    "--requirements_file=$root/launch/dataflow_requirements.txt")
fi
command+=(${rest[@]+"${rest[@]}"})
end_dry_run

need_command "$python" "or set PYTHON"
need_gcloud "$input_dir" "$output_dir" "$temp_location"
need_module gcsfs,google.cloud.storage gcp
exec "${command[@]}"
