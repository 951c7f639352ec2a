"""TensorFlow is imported once, quietly, before any test module does it."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from cxr_tfrecords.quiet import quiet_tensorflow

quiet_tensorflow()
