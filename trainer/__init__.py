"""Reads shards, balances, trains, evaluates exactly, compares and reports.

The names in `__all__` are the public Python API, see docs/api.md. They are imported when they are
first used, so that `--help` of a command does not wait for them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.api import compare_runs, train
    from trainer.deployment.predictor import Classifier
    from trainer.runs.finished_run import FinishedRun, read_run
    from trainer.settings.config import TrainConfig

__all__ = ["Classifier", "FinishedRun", "TrainConfig", "compare_runs", "read_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = "trainer.api"
    if name == "Classifier":
        from cxr_tfrecords.console.quiet import quiet_tensorflow

        quiet_tensorflow()
        module = "trainer.deployment.predictor"
        # With these imported, Classifier.load knows cascades and exported models too.
        importlib.import_module("trainer.cascades.cascade_classifier")
        importlib.import_module("trainer.exporting.exported_classifier")
    return getattr(importlib.import_module(module), name)
