#!/usr/bin/env bash
# Hammoudi et al. 2021: normal, bacterial and viral pneumonia; then a blind test on images of a class
# that was never trained on, COVID. What the authors did and report: hammoudi.flags.
#
#   launch/recipes/hammoudi.sh --data_dir=DATA --run_dir=RUN [--backbones='densenet169 resnet50'] \
#       [--classes='Normal,Lung_Opacity,Viral Pneumonia'] \
#       [--blind_map='COVID:Viral Pneumonia,Normal:,Lung_Opacity:,Viral Pneumonia:'] [-- --epochs=5 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --data_dir        data set of the training
#   --run_dir         gets a run for each backbone, RUN/BACKBONE, and its blind test, RUN/BACKBONE-blind
#   --backbones       default densenet169; resnet34, resnet50, vgg19 and inception_resnet_v2 are theirs
#                     too. resnet34 starts from random weights
#   --classes         classes that are trained on (default: Normal,Bacterial Pneumonia,Viral Pneumonia)
#   --blind_data_dir  data set of the blind test (default: --data_dir)
#   --blind_map       as --map_classes of trainer.evaluate: the unknown class and what it should be
#                     called, and the other classes of that data set, which are left out
#                     (default: COVID is Viral Pneumonia, the --classes are left out)
#   --dry_run         print the commands, run nothing
#   -- …              the rest goes to trainer.main; --head=rnn is an LSTM over rows of the feature map
# PYTHON names the interpreter (default: python3).
#
# Cost: a training for each backbone. After a stop, the same command goes on. Expect in
# RUN/BACKBONE-blind/evaluation.md the share of COVID images that are called each class.
set -euo pipefail
# shellcheck source=launch/recipes/recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

data_dir="" run_dir="" backbones=densenet169 blind_data_dir="" blind_map=""
classes="Normal,Bacterial Pneumonia,Viral Pneumonia"
read_options "data_dir run_dir backbones classes blind_data_dir blind_map" "$@"
need data_dir run_dir
blind_map="${blind_map:-COVID:Viral Pneumonia,${classes//,/:,}:}"

for backbone in $backbones; do
  one="$run_dir/$backbone"
  train hammoudi "$one" "--data_dir=$data_dir" "--backbone=$backbone" "--classes=$classes"
  # A finished blind test stays as it is: trainer.evaluate wants a new folder.
  [[ -e "$one-blind/evaluation.md" ]] || run trainer.evaluate "--model=$one" \
    "--data_dir=${blind_data_dir:-$data_dir}" "--output_dir=$one-blind" --split=all \
    "--map_classes=$blind_map"
done
