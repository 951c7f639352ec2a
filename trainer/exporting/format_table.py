"""The names of `--format` and what each writes. Without TensorFlow, so that --help is quick."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence

from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
      path: file or folder below --output_dir.
      packages: modules that a plain install for training lacks; the extra of setup.py that brings
        them has the format's name.
      float32: computes in float32 even where the run trained in bfloat16.
    """

    path: str
    packages: tuple[str, ...] = ()
    float32: bool = False


INT8 = "litert_int8"
FORMATS = {
    "keras": Format("model.keras"),
    "saved_model": Format("saved_model"),
    "onnx": Format("model.onnx", ("tf2onnx", "onnx", "onnxruntime"), float32=True),
    "litert": Format("model.tflite", float32=True),
    INT8: Format("model_int8.tflite", float32=True),
}


def check_formats(names: Sequence[str]) -> None:
    """Refuses what can be refused before TensorFlow is imported.

    Raises:
      UserError: a name is unknown or given twice, or a format's packages are not installed.
    """
    given = f"--format={','.join(names)}"
    for name in names:
        if name not in FORMATS:
            raise UserError(f"{given}: {name!r} is not one of {', '.join(FORMATS)}")
    if not names or len(set(names)) < len(names):
        raise UserError(f"{given}: name each format once, of {', '.join(FORMATS)}")
    for name in names:
        for package in FORMATS[name].packages:
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"{given}: {package} is not installed: pip install 'cxr-balance[{name}]'"
                )
