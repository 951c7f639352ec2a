#!/usr/bin/env bash
# Rahman et al. 2021: five ways of enhancing the contrast and none, each on whole images and on lungs
# alone. What the authors did and report: rahman.flags.
#
#   launch/recipes/rahman.sh --input_dir=IMAGES --output_dir=BUILDS --run_dir=RUNS \
#       [--image_size=224] [--enhancements='none gamma'] [--masks=none] [-- --epochs=5 …]
#
# Options, as --NAME=VALUE or --NAME VALUE:
#   --input_dir     images as of beam_pipelines.build, with masks in CLASS/masks
#   --output_dir    gets a data set for each enhancement, BUILDS/ENHANCEMENT
#   --run_dir       gets a run for each, RUNS/ENHANCEMENT-MASK
#   --image_size    of the data sets (default 224)
#   --enhancements  default: none histogram clahe complement gamma bcet
#   --masks         default: none lungs. With none alone, no masks are needed
#   --dry_run       print the commands, run nothing
#   -- …            the rest goes to trainer.main
# PYTHON names the interpreter (default: python3).
#
# Cost: six builds, twelve trainings. After a stop, the same command goes on. Expect differences
# between enhancements that are no larger than those between seeds (--seed after --). trainer.compare
# pairs runs of one data set only, so read RUNS/*/report.md.
set -euo pipefail
# shellcheck source=launch/recipes/recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

input_dir="" output_dir="" run_dir="" image_size=224
enhancements="none histogram clahe complement gamma bcet" masks="none lungs"
read_options "input_dir output_dir run_dir image_size enhancements masks" "$@"
need input_dir output_dir run_dir

stored=()
[[ "$masks" == none ]] || stored+=(--with_masks)
for enhancement in $enhancements; do
  run beam_pipelines.build --runner=DirectRunner "--input_dir=$input_dir" \
    "--output_dir=$output_dir/$enhancement" "--image_size=$image_size" "--enhance=$enhancement" \
    ${stored[@]+"${stored[@]}"}
  for mask in $masks; do
    train rahman "$run_dir/$enhancement-$mask" "--data_dir=$output_dir/$enhancement" "--mask=$mask"
  done
done
