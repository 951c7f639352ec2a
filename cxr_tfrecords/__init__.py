"""What a radiograph record is, what a dataset directory is, and how images are split.

The lowest package of the project: it imports neither Apache Beam nor Keras. The names in `__all__`
are the public Python API, see docs/api.md; they are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr_tfrecords.dataset_dir import DatasetDir
    from cxr_tfrecords.dataset_dir import load as load_dataset
    from cxr_tfrecords.errors import UserError
    from cxr_tfrecords.tfds_metadata import tfds_builder

__all__ = ["DatasetDir", "UserError", "load_dataset", "tfds_builder"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "UserError":
        from cxr_tfrecords import errors

        return errors.UserError
    if name == "tfds_builder":
        from cxr_tfrecords import tfds_metadata

        return tfds_metadata.tfds_builder
    from cxr_tfrecords import dataset_dir

    return dataset_dir.load if name == "load_dataset" else dataset_dir.DatasetDir
