#!/usr/bin/env bash
# Basu, Mitra, Saha 2020: a network is trained on a large set, healthy against diseased, and then
# trained further on the classes that are wanted. What the authors did and report: basu.flags.
#
#   launch/recipes/basu.sh --first_data_dir=LARGE --data_dir=DATA --run_dir=RUN \
#       [--first_map='Lung_Opacity:Diseased,COVID:Diseased'] [--backbone=vgg16] \
#       [--weights=FILE.h5] [-- --epochs=5 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --first_data_dir  data set of the first stage; no image of it may be a test image of --data_dir
#   --first_map       its classes as two, as in --map_classes of trainer.main (default: as they are)
#   --data_dir        data set of the second stage
#   --run_dir         gets the runs: RUN/first and RUN/second
#   --backbone        vgg16 (default), alexnet or resnet50; alexnet starts from random weights
#   --weights         of the first stage, as in trainer.main (default: auto)
#   --dry_run         print the commands, run nothing
#   -- …              the rest goes to trainer.main in both stages
# PYTHON names the interpreter (default: python3).
#
# Cost: two trainings. After a stop, the same command goes on. Expect both stages' accuracies in
# RUN/*/report.md; to see what the first stage is worth, train basu.flags without it too.
set -euo pipefail
# shellcheck source=launch/recipes/recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

first_data_dir="" first_map="" data_dir="" run_dir="" backbone=vgg16 weights=auto
read_options "first_data_dir first_map data_dir run_dir backbone weights" "$@"
need first_data_dir data_dir run_dir

train basu "$run_dir/first" "--data_dir=$first_data_dir" "--backbone=$backbone" \
  "--weights=$weights" ${first_map:+"--map_classes=$first_map"}
train basu "$run_dir/second" "--data_dir=$data_dir" "--backbone=$backbone" \
  "--init_from=$run_dir/first"
