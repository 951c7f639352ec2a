#!/usr/bin/env bash
# Shelke et al., "Chest X-ray Classification Using Deep Learning for Automated COVID-19 Screening", SN
# Comput. Sci. 2, 2021: a cascade of three networks, as told by Wuisan et al. 2022, section I.A.
#
#   launch/recipes/shelke.sh --data_dir=DATA --cascade_dir=DIR [--third=none] \
#       [--backbones='vgg16 densenet169 resnet18'] [-- --epochs=5 …]
#
# What the authors did: VGG16 decides among normal (388 images), tuberculosis (303) and pneumonia with
# COVID (500); DenseNet161 calls the pneumonia images COVID (500) or other (500); ResNet18 says how
# severe COVID is (80 images in all). What they report: accuracy 95.9%, 98.9% and 76%, each stage on
# images that belong to it.
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --data_dir     data set with all final classes
#   --cascade_dir  gets the runs of the stages and cascade.md
#   --first        answers of the first stage (default: Normal, Tuberculosis, Pneumonia)
#   --second       answers for Pneumonia
#                  (default: COVID, Other=Viral Pneumonia+Bacterial Pneumonia)
#   --third        answers for COVID (default: Mild, Moderate, Severe); none: the cascade ends at COVID
#   --backbones    of the stages, with spaces (default: vgg16 densenet169 resnet18)
#   --dry_run      print the command, run nothing
#   -- …           the rest goes to trainer.cascade, and what it does not know to the trainer.main of
#                  all stages
# PYTHON names the interpreter (default: python3).
#
# Cost: three trainings. After a stop, the same command goes on. Expect from end to end less than the
# product of the three figures above: an image that one stage gets wrong is lost to the next, which the
# authors' figures leave out. 80 images leave about 16 in a test split, whose interval is 40 points wide.
# Our choice: densenet169, because keras.applications has no DenseNet161; answers are named as above;
# resnet18 starts from random weights; settings that are not given are those of trainer.main.
set -euo pipefail
# shellcheck source=launch/recipes/recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

data_dir="" cascade_dir="" rest_is_for=trainer.cascade
first="Normal, Tuberculosis, Pneumonia"
second="COVID, Other=Viral Pneumonia+Bacterial Pneumonia"
third="Mild, Moderate, Severe" backbones="vgg16 densenet169 resnet18"
read_options "data_dir cascade_dir first second third backbones" "$@"
need data_dir cascade_dir

read -ra backbone <<<"$backbones"
((${#backbone[@]} == 3)) || fail "--backbones='$backbones' must name three, one for each stage"
stages=("--stage=first: $first --backbone=${backbone[0]}"
  "--stage=Pneumonia: $second --backbone=${backbone[1]}")
[[ "$third" == none ]] || stages+=("--stage=COVID: $third --backbone=${backbone[2]}")
run trainer.cascade "--data_dir=$data_dir" "--cascade_dir=$cascade_dir" --recipe=shelke \
  "${stages[@]}" \
  ${rest[@]+"${rest[@]}"}
