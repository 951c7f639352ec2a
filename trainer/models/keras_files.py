"""Reads and writes model files of Keras (`.keras`)."""

from __future__ import annotations

import zipfile

import keras
import numpy as np

from cxr_tfrecords.concurrency import temporary
from trainer.models import tf_internals

# Of config.json in the file: the largest network here has 2 MB. Keras would unpack any number.
_MOST_TEXT = 50_000_000


def load(path: str) -> keras.Model:
    """Reads a model, without its optimizer. Code in the file is never run (Keras' `safe_mode`).

    Raises:
      Exception: it cannot be read; Keras, zipfile and HDF5 raise errors of any type.
      ValueError: a weight is not finite, or a part of the file is too large.
    """
    tf_internals.own_generated_code()  # of what is made of the model
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            for part in parts.infolist():
                if part.filename.endswith(".json") and part.file_size > _MOST_TEXT:
                    raise ValueError(f"{part.filename} in it has {part.file_size:,} bytes")
    with temporary.of_libraries("keras"):  # Keras leaves a folder in $TMPDIR if it is killed
        model = keras.models.load_model(path, compile=False)
    for variable in model.variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise ValueError(f"its weights {variable.path} are NaN or infinite")
    return model


def save(path: str, model: keras.Model) -> None:
    """Writes a model; `path` ends with `.keras`."""
    with temporary.of_libraries("keras"):
        model.save(path)
