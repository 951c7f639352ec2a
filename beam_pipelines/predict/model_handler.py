"""The part of the work that workers do: load the models once, predict chunks of files.

Beam's own handler for TensorFlow imports tensorflow_hub and reads no Keras 3 model. This one uses
the same `Classifier` as trainer.predict.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference

from cxr_tfrecords import files
from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.errors import UserError, first_line

if TYPE_CHECKING:
    from trainer.deployment.predictor import Classifier


@dataclasses.dataclass(frozen=True)
class Models:
    """Which models a worker loads, and how they are to answer.

    Attributes:
      run_dirs: copies of run directories that workers can read, see `model_copies.save`.
      identity: differs if the models or what they answer differs; a worker that outlives a command
        then loads the new ones.
      deploy_prior, sensitivity, coverage, ood_method, false_alarms: see `load_models`.
    """

    run_dirs: tuple[str, ...]
    identity: str
    deploy_prior: tuple[str, ...]
    sensitivity: float
    coverage: float
    ood_method: str
    false_alarms: float


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Files that are predicted in one call.

    Attributes:
      ids: paths below the input folder.
      part: path of the JSON file that gets their rows.
    """

    ids: list[str]
    part: str

    def __len__(self) -> int:
        return len(self.ids)  # Beam's counter of inferences asks for it


class Loaded:
    """Models in memory. A class of its own, because Beam makes weak references to it."""

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self.classifiers = classifiers


# Beam itself keeps a model alive only while a bundle uses it, on some runners, and would load it
# again for the next one.
_kept: dict[Models, Loaded] = {}
_loading = threading.Lock()


def keep(models: Models, classifiers: Sequence[Classifier]) -> None:
    """Workers in this process use models that it has loaded, rather than loading them again."""
    _kept.clear()
    _kept[models] = Loaded(classifiers)


def _load(models: Models) -> Loaded:
    with _loading:
        if models not in _kept:
            from cxr_tfrecords.console.quiet import quiet_tensorflow

            quiet_tensorflow()
            from beam_pipelines.predict import model_copies
            from trainer.deployment.several_models import load_models

            with temporary.folder("models") as folder:
                run_dirs = [
                    one
                    if files.is_local(one)
                    else model_copies.fetch(one, os.path.join(folder, str(number)))
                    for number, one in enumerate(models.run_dirs)
                ]
                settings = vars(models).copy()
                del settings["run_dirs"], settings["identity"]
                # The process that started the work has shown these lines already.
                with contextlib.redirect_stdout(io.StringIO()):
                    keep(models, load_models(run_dirs, **settings))
        return _kept[models]


class ClassifierHandler(ModelHandler):
    """Chunks of files to their rows.

    Files are read here and not in a step before, so that no runner keeps or moves pixels.
    """

    def __init__(self, models: Models, folder: str, threads: int) -> None:
        super().__init__()
        self._models, self._folder, self._threads = models, folder, threads

    def load_model(self) -> Loaded:
        with _explained("load the model"):
            return _load(self._models)

    def run_inference(
        self, batch: Any, model: Loaded, inference_args: dict[str, Any] | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Predicts a `Chunk`; yields the path of its part and the part's content: `rows`, and
        `rejected` as id -> reason."""
        from trainer.deployment.prediction_rows import predict_rows

        with _explained("predict"):
            rejected: dict[str, str] = {}
            batches = predict_rows(
                model.classifiers, self._folder, batch.ids, rejected, threads=self._threads
            )
            rows = [row for rows in batches for row in rows]
        yield batch.part, {"rows": rows, "rejected": rejected}


@contextlib.contextmanager
def _explained(action: str) -> Iterator[None]:
    """Turns whatever TensorFlow or Keras raises into one line that names the worker."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"worker {socket.gethostname()} cannot {action}: {type(error).__name__}: "
            f"{first_line(error, 300)}: install the same versions of this package, TensorFlow and "
            "Keras on every worker, with enough memory, and run the same command again"
        ) from error


class Predict(beam.PTransform):
    """Paths of chunk files to paths of parts, which are written whole or not at all."""

    def __init__(self, handler: ClassifierHandler) -> None:
        super().__init__()
        self._handler = handler

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        return (
            chunks
            | "Chunk" >> beam.Map(_read_chunk)
            | "Infer" >> RunInference(self._handler.with_no_batching())
            | "Write" >> beam.Map(_write_part)
        )


def _read_chunk(paths: tuple[str, str]) -> Chunk:
    chunk, part = paths
    return Chunk(files.read_json(chunk), part)


def _write_part(result: tuple[str, dict[str, Any]]) -> str:
    path, content = result
    with files.explained(path, "output"):
        files.write_json(path, content)
    return path
