"""Flags and the data set that `benchmarks.samplers` and `benchmarks.training` share."""

from __future__ import annotations

import os
import subprocess
import sys

from absl import flags

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.concurrency.cores import usable_cores
from cxr_tfrecords.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", "", "Dataset directory. Empty: synthetic radiographs, built once.")
flags.DEFINE_float("synthetic_scale", 0.2, "Size of the synthetic set; 1.0: 21,165 images.", 0.001)
flags.DEFINE_string("work_dir", "data/benchmark", "Where the synthetic set is built and kept.")
flags.DEFINE_string("json", "", "File for the rows.")
flags.DEFINE_integer("batch_size", 32, "Images in a batch.", lower_bound=1)


def open_dataset(image_size: int) -> dataset_dir.DatasetDir:
    """The data set of --data_dir, or synthetic radiographs of so many pixels."""
    return dataset_dir.load(FLAGS.data_dir or _build(image_size))


def describe(data: dataset_dir.DatasetDir) -> str:
    """What is read, and how busy the machine is that reads it."""
    return (
        f"{data.path}: {data.num_examples('train'):,} training images, {data.image_size} px, "
        f"{data.encoding}; {usable_cores()} cores, load {os.getloadavg()[0]:.1f}"
    )


def _build(image_size: int) -> str:
    """Path of the synthetic dataset directory, built in a process of its own if it is not there."""
    name = f"synthetic-{FLAGS.synthetic_scale:g}-{image_size}px-tfrecords"
    path = os.path.join(FLAGS.work_dir, name)
    command = [sys.executable, "-m", "beam_pipelines.build", f"--output_dir={path}"]
    command += [f"--synthetic_scale={FLAGS.synthetic_scale}", f"--image_size={image_size}"]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise UserError(f"{' '.join(command)} failed")
    return path
