"""Uses a trained model: from files, bytes or pixels to probabilities."""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from cxr_tfrecords import images
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.reading import Reading
from trainer.deployment.answers import Answers
from trainer.deployment.corrected_probabilities import Deployment, plan_deployment
from trainer.deployment.decoders import Decoders
from trainer.deployment.fitted_detector import FittedDetector, open_detector
from trainer.deployment.image_sources import check_pixels, read_file
from trainer.deployment.thresholds import COVERAGE, SENSITIVITY, choose_both
from trainer.evaluation import conformal, out_of_distribution
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import Predictions
from trainer.models.classifier import features_and_logits_model
from trainer.models.grad_cam import GradCam
from trainer.runs import run_directory, run_files, same_run
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.runs.run_data import reading_of


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `Classifier.load` can be asked for; its arguments describe them."""

    deploy_prior: Sequence[float] | None
    sensitivity: float
    coverage: float
    ood_method: str
    false_alarms: float


class Classifier(abc.ABC):
    """A model with the reading of files and the correction of probabilities that belong to it.

      classifier = Classifier.load("runs/mobilenet_v2-oversample-seed0")
      answers = classifier.predict(["chest.dcm", "chest.png"])
      answers.classes, answers.probabilities["calibrated"]

    Attributes:
      path: the folder that it was loaded from.
      class_names: the classes, in label order.
      deployment: what corrects its probabilities.
      thresholds: float64 [classes], log odds of a class's raw probability; inf: no threshold.
      set_thresholds: float64 [classes], see `conformal.choose_thresholds`.
      reading: what makes a file the model's input.
      decoders: processes that read files so.
      batch_size: of all computations, so that logits are the run's to the bit on one CPU.
      detector: of images unlike the training images; None: images are not checked.
      model: what heat maps are computed from; None: there is nothing to compute them from.
    """

    def __init__(
        self,
        path: str,
        class_names: Sequence[str],
        *,
        deployment: Deployment,
        thresholds: np.ndarray,
        set_thresholds: np.ndarray,
        reading: Reading,
        batch_size: int,
        model: keras.Model | None,
    ) -> None:
        self.path = path
        self.class_names = tuple(class_names)
        self.deployment = deployment
        self.thresholds = thresholds
        self.set_thresholds = set_thresholds
        self.reading = reading
        self.decoders = Decoders(reading)
        self.batch_size = batch_size
        self.model = model
        self.detector: FittedDetector | None = None
        self._heat_maps: GradCam | None = None

    @classmethod
    def kind_of(cls, path: str) -> type[Classifier]:
        """The subclass that loads a folder; that of a run where none knows it."""
        kinds = [kind for kind in Classifier.__subclasses__() if kind is not RunClassifier]
        return next((kind for kind in kinds if kind.is_in(path)), RunClassifier)

    @classmethod
    @abc.abstractmethod
    def is_in(cls, path: str) -> bool:
        """Whether a folder is one that this class loads."""

    @classmethod
    @abc.abstractmethod
    def names_in(cls, path: str) -> tuple[str, ...]:
        """The classes of a folder that this class loads, in label order.

        Raises:
          UserError: see `load`.
        """

    @classmethod
    @abc.abstractmethod
    def open(cls, path: str, settings: Settings) -> Classifier:
        """What `load` returns, from a folder that this class loads."""

    @staticmethod
    def load(
        run_dir: str | os.PathLike[str],
        *,
        deploy_prior: Sequence[float] | None = None,
        sensitivity: float = SENSITIVITY,
        coverage: float = COVERAGE,
        ood_method: str = out_of_distribution.DEFAULT,
        false_alarms: float = out_of_distribution.FALSE_ALARMS,
    ) -> Classifier:
        """Loads the model of a finished run; that of a folder of trainer.export; or the models of a
        finished cascade, whose classes are those that it leads to.

        The first time, the detector of images unlike the training images is fitted on the run's
        data set, with a progress bar, and written into the run directory.

        Args:
          deploy_prior: class shares where the model is used, in label order and any scale; None:
            those of the training split before any balancing.
          sensitivity: of the thresholds, which are chosen on the run's validation predictions.
          coverage: probability with which a set holds the true class, also from validation.
          ood_method: the detector, `mahalanobis`, `knn` or `vim`; `none`: images are not checked.
          false_alarms: share of images like those of validation that it may flag.

        Raises:
          UserError: `run_dir` is not a finished run whose model was kept, the model needs lung
            masks, or nothing tells how its images were read. Of an exported model also: other
            thresholds are asked for than it has.
        """
        path = os.fspath(run_dir)
        settings = Settings(deploy_prior, sensitivity, coverage, ood_method, false_alarms)
        return Classifier.kind_of(path).open(path, settings)

    @property
    @abc.abstractmethod
    def model_hash(self) -> str:
        """SHA-256 of the model, hexadecimal: two folders with the same hold the same model."""

    @property
    def no_heat_maps(self) -> str:
        """Why `heat_maps` cannot be computed, as a line for a user; empty: they can be."""
        return ""

    def read(self, source: str | os.PathLike[str] | bytes | np.ndarray) -> np.ndarray:
        """Reads one image as the build of the training data did.

        Args:
          source: a path; a file's bytes; or decoded pixels, uint8 [height, width] or
            [height, width, 1 or 3].

        Returns:
          uint8 [size, size, channels], what the model takes.

        Raises:
          images.BadImageError: not a readable image, one that crashes its decoder or takes it over
            20 seconds of processor time, a colour photograph, or an array that is not uint8 pixels.
        """
        if isinstance(source, np.ndarray):
            return self.reading.stored(check_pixels(source))
        if not isinstance(source, bytes):
            source = read_file(source)
        # In a process of its own, because a damaged or malicious file may crash a decoder.
        return self.reading.encoded(self.decoders.decode(source).pixels)

    def predict(self, sources: Iterable[str | os.PathLike[str] | bytes | np.ndarray]) -> Answers:
        """The answers to images, in their order; see `read` for what an image may be.

        Args:
          sources: several images; a single path or a file's bytes is one image.

        Raises:
          UserError: an image cannot be used; it names it.
        """
        if isinstance(sources, str | os.PathLike | bytes):
            sources = [sources]
        pixels = []
        for number, source in enumerate(sources):
            try:
                pixels.append(self.read(source))
            except images.BadImageError as error:
                name = str(source) if isinstance(source, str | os.PathLike) else f"image {number}"
                raise UserError(f"{name}: {error}") from error
        if not pixels:
            raise UserError("there is no image to predict: give at least one")
        return self.predict_pixels(np.stack(pixels))

    def predict_pixels(self, pixels: np.ndarray, batch_size: int | None = None) -> Answers:
        """The answers to images that `read` made, uint8 [n, size, size, channels].

        Args:
          batch_size: images computed at once, padded with black ones; None: those of the run. With
            another number, the last bits of the answers may differ.
        """
        size = batch_size or self.batch_size
        parts = [
            self._batch_outputs(pixels[start : start + size], size)
            for start in range(0, len(pixels), size)
        ]
        features, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not np.isfinite(logits).all():  # the weights are finite, see `keras_files.load`
            raise UserError(
                f"{self.path}: the model gives numbers that are NaN or infinite: train it again, "
                "with a lower --learning_rate or in float32"
            )
        given = Predictions([""] * len(logits), np.zeros(len(logits), np.int32), logits)
        variants = self.deployment.variants(given.log_probabilities)
        scores = flags = None
        if self.detector:
            scores = self.detector.score(features, logits)
            flags = scores > self.detector.threshold
        return Answers(
            class_names=self.class_names,
            logits=logits,
            probabilities={name: np.exp(values) for name, values in variants.items()},
            above_threshold=log_odds(given.log_probabilities) >= self.thresholds,
            in_set=conformal.prediction_sets(given.probabilities, self.set_thresholds),
            out_of_distribution=flags,
            out_of_distribution_score=scores,
        )

    def heat_maps(self, pixels: np.ndarray, labels: Sequence[int]) -> np.ndarray:
        """Where in each image the logit of a class comes from, see `GradCam.maps`.

        Args:
          pixels: uint8 [n, size, size, channels], made by `read`; labels: n classes.

        Returns:
          float32 [n, size, size], from 0 to 1.

        Raises:
          UserError: see `no_heat_maps`.
        """
        if self._heat_maps is None:
            if self.model is None:
                raise UserError(self.no_heat_maps)
            self._heat_maps = GradCam(self.model)
        return self._heat_maps.maps(pixels, labels)

    def _batch_outputs(self, pixels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [n, F] and logits float32 [n, classes] of at most `size` images."""
        missing = size - len(pixels)
        padded = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
        features, logits = self._compute(padded)
        return features[: len(pixels)], logits[: len(pixels)]

    def _compute(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [batch, F], F = 0 without a detector, and logits float32
        [batch, classes] of a whole batch. `predict_pixels` alone needs it."""
        raise NotImplementedError


class RunClassifier(Classifier):
    """The model of a finished run of trainer.main or trainer.decouple."""

    def __init__(self, run: FinishedRun, settings: Settings) -> None:
        thresholds, set_thresholds = choose_both(
            run.predictions("validation"), settings.sensitivity, settings.coverage
        )
        super().__init__(
            run.path,
            run.class_names,
            deployment=plan_deployment(run, settings.deploy_prior),
            thresholds=thresholds,
            set_thresholds=set_thresholds,
            reading=reading_of(run),
            batch_size=run.config.batch_size,
            model=run_directory.load_model(run.path, len(run.class_names)),
        )
        model = features_and_logits_model(self.model)
        self._outputs = tf.function(
            lambda x: [tf.cast(output, tf.float32) for output in model(x, training=False)]
        )
        self.detector = open_detector(
            run, self._compute, settings.ood_method, settings.false_alarms
        )

    @classmethod
    def is_in(cls, path: str) -> bool:
        return run_files.is_finished(path)

    @classmethod
    def names_in(cls, path: str) -> tuple[str, ...]:
        return tuple(read_run(path).class_names)

    @classmethod
    def open(cls, path: str, settings: Settings) -> RunClassifier:
        run = read_run(path)
        if run.config.mask != "none":
            raise UserError(
                f"{run.path} was trained with --mask={run.config.mask}, and a single file has no "
                "lung mask: use a run without --mask"
            )
        return cls(run, settings)

    @property
    def model_hash(self) -> str:
        return same_run.hash_file(os.path.join(self.path, run_files.MODEL))

    def _compute(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, logits = self._outputs(tf.constant(pixels))
        return features.numpy(), logits.numpy()
