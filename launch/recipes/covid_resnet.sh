#!/usr/bin/env bash
# Farooq, Hafeez 2020, COVID-ResNet: three trainings with growing images, each from the weights of the
# one before. What the authors did and report: covid_resnet.flags.
#
#   launch/recipes/covid_resnet.sh --data_dir=DATA --run_dir=RUN [--sizes='128 224 299'] \
#       [--weights=FILE.h5] [-- --epochs=5 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --data_dir  data set with images as large as the last size: beam_pipelines.build --image_size=299
#   --run_dir   gets a run for each size: RUN/128, RUN/224, RUN/299
#   --sizes     sides of the images in pixels (default: 128 224 299)
#   --weights   of the first training, as in trainer.main (default: auto)
#   --dry_run   print the commands, run nothing
#   -- …        the rest goes to trainer.main at all sizes
# PYTHON names the interpreter (default: python3).
#
# Cost: as about 3.1 trainings at 224 px. After a stop, the same command goes on. Expect in
# RUN/*/report.md what each size adds; the test images are the same for all.
set -euo pipefail
# shellcheck source=launch/recipes/recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

data_dir="" run_dir="" sizes="128 224 299" weights=auto
read_options "data_dir run_dir sizes weights" "$@"
need data_dir run_dir

start="--weights=$weights"
for size in $sizes; do
  train covid_resnet "$run_dir/$size" "--data_dir=$data_dir" "--image_size=$size" "$start"
  start="--init_from=$run_dir/$size"
done
