"""Corrects a run's probabilities to the class shares of the place where the model is used.

A model that was trained on a changed class mix gives probabilities of that mix. `Deployment` holds
the correction: class shares (Saerens et al. 2002) and a temperature (Guo et al. 2017), both found
without the test split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax

from cxr_tfrecords.errors import UserError
from trainer.balancing import sampler_options
from trainer.evaluation import calibration
from trainer.runs.finished_run import FinishedRun
from trainer.runs.training_priors import training_priors

# As the model gives them; at the deployment's class shares; and with the temperature too.
VARIANTS = ("raw", "prior_corrected", "calibrated")


@dataclasses.dataclass(frozen=True)
class Deployment:
    """The correction of a run's probabilities to a deployment.

    Attributes:
      trained_at: float64 [classes], sum 1: the class shares that the raw probabilities are at.
      natural: float64 [classes], those of the training split before any balancing; validation has
        the same.
      target: float64 [classes], those of the deployment.
      temperature: fitted on validation, after the correction to `natural`; no estimate if it is an
        end of `calibration.TEMPERATURES`, see `temperature_warning`.
    """

    trained_at: np.ndarray
    natural: np.ndarray
    target: np.ndarray
    temperature: float

    def temperature_warning(self) -> str | None:
        """One sentence if validation has no best temperature within the range, or None."""
        return temperature_warning(self.temperature)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperature; of a cascade of models those of its stages."""
        return (self.temperature,)

    def temperature_warnings(self) -> list[str]:
        """`temperature_warning` as a list: of a cascade there may be several."""
        return [warning] if (warning := self.temperature_warning()) else []

    def scaling(self) -> dict[str, tuple[float, np.ndarray]]:
        """Variant -> (scale, offset): its probabilities are the softmax of scale * logits + offset.

        The temperature applies at the shares that it was fitted at, the natural ones. offset is
        float64 [classes], minus infinity for a class of share 0 in the target.
        """
        with np.errstate(divide="ignore"):
            trained, natural, target = map(np.log, (self.trained_at, self.natural, self.target))
        sharpness = 1 / self.temperature
        return {
            "raw": (1.0, np.zeros_like(trained)),
            "prior_corrected": (1.0, target - trained),
            "calibrated": (sharpness, (natural - trained) * sharpness + target - natural),
        }

    def variants(self, log_probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `VARIANTS` of log-probabilities, all float64 [n, classes]."""
        corrected = {
            variant: log_softmax(scale * log_probabilities + offset, axis=1)
            for variant, (scale, offset) in self.scaling().items()
        }
        return {**corrected, "raw": log_probabilities}  # unchanged to the last bit


def temperature_warning(temperature: float) -> str | None:
    """One sentence if a fitted temperature is an end of `calibration.TEMPERATURES`, or None."""
    lowest, highest = calibration.TEMPERATURES
    if lowest < temperature < highest:
        return None
    reason = (
        "validation is classified perfectly, and ever lower ones would look better"
        if temperature <= lowest
        else "the model says nothing about validation, and ever higher ones would look better"
    )
    return (
        f"the temperature is at its bound of {temperature:g}: {reason}. Use the "
        "prior-corrected probabilities without it, or validate on more images."
    )


def plan_deployment(run: FinishedRun, deploy_prior: Sequence[float] | None = None) -> Deployment:
    """Fits the temperature on a run's validation predictions; prints a warning at its bounds.

    Args:
      deploy_prior: class shares of the deployment, in any scale; None: the natural ones.

    Raises:
      UserError: the run has no readable validation predictions.
    """
    validation = run.predictions("validation")
    trained_at = training_priors(run)
    natural = np.array(run.samples["natural"], np.float64)
    natural /= natural.sum()
    target = natural
    if deploy_prior is not None:
        target = np.asarray(deploy_prior, np.float64) / np.sum(deploy_prior)
    at_natural = calibration.correct_priors(validation.log_probabilities, trained_at, natural)
    temperature = calibration.fit_temperature(validation.labels, at_natural)
    plan = Deployment(trained_at, natural, target, temperature)
    if warning := plan.temperature_warning():
        print(f"warning: {run.path}: {warning}", flush=True)
    return plan


def deployment_weights(
    labels: np.ndarray, target: Sequence[float] | np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """How much each test image counts where the classes have other shares (post-stratification).

    An image of class c weighs target share / share of c among the images. Metrics with these
    weights are those of a test set at the shares of the deployment; like the correction itself,
    they assume that the images of a class look the same there. In a resample the shares are those
    of the resample, which so has the target shares exactly.

    Args:
      labels: integer [n], true classes.
      target: [classes], shares of the deployment in any scale, such as `Deployment.target`.
      weights: [b, n], how often each image counts, such as `bootstrap.group_weights`; None: once.

    Returns:
      float64 [n], or [b, n] if `weights` are given, for `metrics.weighted_metrics`. The sum of a
      row stays what it was. A row without any image of a class that `target` has is NaN.
    """
    shares = np.asarray(target, np.float64) / np.sum(target)
    counts = np.ones((1, len(labels))) if weights is None else np.asarray(weights, np.float64)
    by_class = counts @ (np.asarray(labels)[:, np.newaxis] == np.arange(len(shares)))
    wanted = shares * by_class.sum(axis=1, keepdims=True)
    factors = np.divide(wanted, by_class, out=np.zeros_like(by_class), where=by_class > 0)
    missing = ((by_class == 0) & (shares > 0)).any(axis=1)
    factors[np.ix_(missing, shares > 0)] = np.nan
    result = counts * factors[:, labels]
    return result[0] if weights is None else result


def parse_deploy_prior(
    items: Sequence[str], class_names: Sequence[str]
) -> tuple[float, ...] | None:
    """Turns `["COVID=0.1", "Normal=0.9"]` into shares in label order; None if there is no item.

    Raises:
      UserError: a class is missing, unknown or has a negative share, or all shares are 0.
    """
    pairs = dict(
        sampler_options.parse_pairs("deploy_prior", items, float, "CLASS=share, such as COVID=0.02")
    )
    if not pairs:
        return None
    if unknown := [name for name in pairs if name not in class_names]:
        raise UserError(
            f"--deploy_prior: there is no class {unknown[0]}; its classes are "
            f"{', '.join(class_names)}"
        )
    shares = np.array(list(pairs.values()))
    if set(pairs) != set(class_names) or not (shares >= 0).all() or not 0 < shares.sum() < np.inf:
        raise UserError(
            f"--deploy_prior={','.join(items)} must give each class "
            f"({', '.join(class_names)}) a share of 0 or more, not all 0"
        )
    return tuple(pairs[name] for name in class_names)
