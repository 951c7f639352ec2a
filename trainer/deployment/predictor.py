"""Uses a trained model: from files, bytes or pixels to probabilities."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from cxr_tfrecords import files, images
from cxr_tfrecords.errors import UserError
from trainer.deployment.colour import check_gray
from trainer.deployment.corrected_probabilities import Deployment, plan_deployment
from trainer.deployment.decoders import Decoders
from trainer.deployment.fitted_detector import open_detector
from trainer.deployment.thresholds import COVERAGE, SENSITIVITY, choose_thresholds
from trainer.evaluation import conformal, out_of_distribution
from trainer.evaluation.metrics import log_odds
from trainer.evaluation.predictions import Predictions
from trainer.models.classifier import features_and_logits_model
from trainer.models.grad_cam import GradCam
from trainer.runs import run_directory, run_files, same_run
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.runs.run_data import reading_of


@dataclasses.dataclass(frozen=True)
class Answers:
    """A model's answers to n images.

    Attributes:
      class_names: the classes, in label order.
      logits: float32 [n, classes], as the model gives them.
      probabilities: `raw`, `prior_corrected` and `calibrated`, see
        `corrected_probabilities.VARIANTS`; each float64 [n, classes], rows sum to 1.
      above_threshold: bool [n, classes], whether the raw probability of a class reaches the
        threshold that was chosen for it on validation. False for a class without a threshold.
      in_set: bool [n, classes], the classes that cannot be excluded: for images of each class, the
        set holds it with the wanted coverage, see `evaluation.conformal`.
      out_of_distribution: bool [n], whether an image is flagged as unlike the training images;
        None where that was not checked.
      out_of_distribution_score: float64 [n], the higher the less alike; None likewise.
    """

    class_names: tuple[str, ...]
    logits: np.ndarray
    probabilities: dict[str, np.ndarray]
    above_threshold: np.ndarray
    in_set: np.ndarray
    out_of_distribution: np.ndarray | None = None
    out_of_distribution_score: np.ndarray | None = None

    @property
    def classes(self) -> list[str]:
        """n names: the class of the largest logit, as in the run's own metrics."""
        return [self.class_names[c] for c in self.logits.argmax(axis=1)]


class Classifier:
    """A finished run's model, with the reading of files and the correction of probabilities that
    belong to it.

      classifier = Classifier.load("runs/mobilenet_v2-oversample-seed0")
      answers = classifier.predict(["chest.dcm", "chest.png"])
      answers.classes, answers.probabilities["calibrated"]
    """

    def __init__(
        self,
        run: FinishedRun,
        deployment: Deployment,
        sensitivity: float,
        coverage: float,
        ood_method: str = "none",
        false_alarms: float = out_of_distribution.FALSE_ALARMS,
    ) -> None:
        validation = run.predictions("validation")
        self.path = run.path
        self.class_names = tuple(run.class_names)
        self.deployment = deployment
        self.thresholds = choose_thresholds(validation, sensitivity)
        self.set_thresholds = conformal.choose_thresholds(
            validation.labels, validation.probabilities, coverage, validation.groups
        )
        self.reading = reading_of(run)
        self.decoders = Decoders(self.reading)
        # Always whole batches of this size: on one CPU, logits are those of the run to the bit.
        self.batch_size = run.config.batch_size
        self.model = run_directory.load_model(run.path, len(run.class_names))
        model = features_and_logits_model(self.model)
        self._outputs = tf.function(
            lambda x: [tf.cast(output, tf.float32) for output in model(x, training=False)]
        )
        self.detector = open_detector(run, self._compute, ood_method, false_alarms)
        self._heat_maps: GradCam | None = None

    @classmethod
    def kind_of(cls, path: str) -> type[Classifier]:
        """The class that loads a folder: a subclass that knows it, else this one."""
        return next((kind for kind in cls.__subclasses__() if kind.is_in(path)), cls)

    @classmethod
    def is_in(cls, path: str) -> bool:
        """Whether a folder is one that this class loads."""
        return run_files.is_finished(path)

    @classmethod
    def names_in(cls, path: str) -> tuple[str, ...]:
        """The classes of a folder that this class loads, in label order.

        Raises:
          UserError: see `load`.
        """
        return tuple(read_run(path).class_names)

    @classmethod
    def load(
        cls,
        run_dir: str | os.PathLike[str],
        *,
        deploy_prior: Sequence[float] | None = None,
        sensitivity: float = SENSITIVITY,
        coverage: float = COVERAGE,
        ood_method: str = out_of_distribution.DEFAULT,
        false_alarms: float = out_of_distribution.FALSE_ALARMS,
    ) -> Classifier:
        """Loads the model of a finished run, or the models of a finished cascade, whose classes are
        those that it leads to.

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
            masks, or nothing tells how its images were read.
        """
        kind = cls.kind_of(os.fspath(run_dir))
        if kind is not cls:
            return kind.load(
                run_dir,
                deploy_prior=deploy_prior,
                sensitivity=sensitivity,
                coverage=coverage,
                ood_method=ood_method,
                false_alarms=false_alarms,
            )
        run = read_run(os.fspath(run_dir))
        if run.config.mask != "none":
            raise UserError(
                f"{run.path} was trained with --mask={run.config.mask}, and a single file has no "
                "lung mask: use a run without --mask"
            )
        deployment = plan_deployment(run, deploy_prior)
        return cls(run, deployment, sensitivity, coverage, ood_method, false_alarms)

    @property
    def model_hash(self) -> str:
        """SHA-256 of the model's file, hexadecimal."""
        return same_run.hash_file(os.path.join(self.path, run_files.MODEL))

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
            return self.reading.stored(_check_array(source))
        if not isinstance(source, bytes):
            source = read_file(source)
        # In a process of its own, because a damaged or malicious file may crash a decoder.
        return self.reading.encoded(self.decoders.decode(source).pixels)

    def predict(self, sources: Iterable[str | os.PathLike[str] | bytes | np.ndarray]) -> Answers:
        """The answers to images, in their order; see `read` for what an image may be.

        Raises:
          UserError: an image cannot be used; it names it.
        """
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
        """
        if self._heat_maps is None:
            self._heat_maps = GradCam(self.model)
        return self._heat_maps.maps(pixels, labels)

    def _batch_outputs(self, pixels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [n, F] and logits float32 [n, classes] of at most `size` images."""
        missing = size - len(pixels)
        padded = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
        features, logits = self._compute(padded)
        return features[: len(pixels)], logits[: len(pixels)]

    def _compute(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, logits = self._outputs(tf.constant(pixels))
        return features.numpy(), logits.numpy()


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
      images.BadImageError: it cannot be read.
    """
    try:
        return files.read_regular(os.fspath(path))
    except OSError as error:
        raise images.BadImageError(f"unreadable ({error.strerror or error})") from error
    except UserError as error:  # an address that no package here can open
        raise images.BadImageError(f"unreadable ({error})") from error


def _check_array(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8:
        raise images.BadImageError(
            f"pixels of type {pixels.dtype}: give uint8 from 0 to 255, as decoded; the model "
            "scales them itself"
        )
    shape = pixels.shape
    if pixels.size == 0 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))):
        raise images.BadImageError(
            f"pixels of shape {list(shape)}: give one image, [height, width] or [height, width, 3]"
        )
    if pixels.max() <= 1:
        raise images.BadImageError(
            "no pixel is above 1: give values from 0 to 255, not scaled ones"
        )
    check_gray(pixels)
    return pixels
