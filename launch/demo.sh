#!/usr/bin/env bash
# The whole job on synthetic radiographs, small enough for a laptop: about a minute on 2 cores.
#   launch/demo.sh            (or: make demo, which installs what it needs first)
# Expect a balanced accuracy well above 0.25 (chance for four classes) and below 1: the synthetic
# classes overlap on purpose. All files are written into demo/, which git ignores.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
radiographs=demo/radiographs
data=demo/data
run=demo/run

echo "1/3  radiographs to TFRecords, split before anything else"
"$python" -m cxr_tfrecords.synthetic --output_dir="$radiographs" --synthetic_scale=0.05
"$python" -m beam_pipelines.build --runner=DirectRunner --input_dir="$radiographs" \
  --output_dir="$data" --image_size=64
echo
echo "2/3  proof: every record read once, no group of images in two splits"
"$python" -m cxr_tfrecords.verify "$data"
echo
echo "3/3  a small network on an oversampled stream, evaluated at natural prevalence"
"$python" -m trainer.main --data_dir="$data" --run_dir="$run" --strategy=cpu \
  --backbone=tiny --sampler=oversample --epochs=6
echo
echo "next:    $python -m beam_pipelines.build --help; $python -m trainer.main --help"
