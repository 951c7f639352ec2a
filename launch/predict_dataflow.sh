#!/usr/bin/env bash
# Predicts images with a trained model on Google Cloud Dataflow.
#
#   launch/predict_dataflow.sh --model=RUN --input=gs://BUCKET/radiographs \
#       --output=gs://BUCKET/predictions.csv --project=PROJECT --region=REGION \
#       --temp_location=gs://BUCKET/tmp --sdk_container_image=IMAGE [--max_num_workers=10] \
#       [--dry_run] [-- --deploy_prior=COVID=0.1,Normal=0.9 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --model                     finished run directory, here or in a bucket; several with commas.
#                               Workers get a copy; always needed
#   --input, --output           gs:// or s3://; always needed
#   --project, --region         of the job; take the region of the bucket; always needed
#   --temp_location             gs://BUCKET/FOLDER for Dataflow's temporary files; always needed
#   --sdk_container_image       image of launch/Dockerfile with TensorFlow, built with
#                               --build-arg=EXTRAS=gcp,aws,cpu,dicom; always needed
#   --num_workers, --max_num_workers, --machine_type   by default Dataflow chooses
#   --dry_run                   print the command, start nothing
#   -- …                        the rest goes to beam_pipelines.predict unchanged
# PYTHON names the interpreter (default: python3). Started again, a prediction goes on.
#
# Before: gcloud auth login && gcloud auth application-default login; the Dataflow API enabled;
# pip install -c constraints.txt '.[cpu,gcp]' in Python 3.11, as in the image.
#
# Expect, for a million images and MobileNetV2 at 96 px, on 10 vCPUs:
#   CPU       9.7 ms an image, 2.7 core-hours: 16 minutes, 0.19 USD (a batch vCPU with 3.75 GB at
#             0.056 + 3.75 x 0.0036 = 0.07 USD/h). Measured by `time`, user + sys, on two CPU cores
#             and PNG files: 500 images in 16.7 s and one image in 11.8 s, so 4.9 s for 499. At
#             224 px the network computes 5.4 times as much
#   reading   a million GET requests: 0.40 USD. 20 to 50 ms each, 6 to 14 hours one after the other:
#             `-- --worker_threads=16` makes that 2 to 5 minutes
#   starting  3 to 6 minutes on every worker, and 10 s of CPU to load TensorFlow and the model
# So half an hour and 0.7 USD; storage, and traffic if bucket and region differ, come on top.
# Estimates, from list prices that change: check them at cloud.google.com/dataflow/pricing.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2034  # common.sh reads them by name
model="" input="" output="" project="" region="" temp_location="" num_workers="" \
  max_num_workers="" machine_type="" sdk_container_image=""
# shellcheck disable=SC2034  # common.sh reads them
runner=DataflowRunner program=beam_pipelines.predict program_options="model input output" \
  rest_is_for="the prediction"
read_options "model input output project region temp_location num_workers max_num_workers \
  machine_type sdk_container_image" "$@"
need model input output project region temp_location sdk_container_image
need_remote input output
[[ "$temp_location" == gs://?*/* ]] ||
  fail "--temp_location=$temp_location: must be gs://BUCKET/FOLDER"

set_command project region temp_location num_workers max_num_workers machine_type \
  sdk_container_image
# One process on each worker, which loads the model once and uses all cores.
command+=(--sdk_location=container --experiments=no_use_multiple_sdk_containers)
command+=(${rest[@]+"${rest[@]}"})
end_dry_run

need_command "$python" "or set PYTHON"
need_gcloud "$input" "$output" "$temp_location"
need_module gcsfs,google.cloud.storage,tensorflow cpu,gcp
exec "${command[@]}"
