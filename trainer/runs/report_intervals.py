"""Intervals of one run's figures, which hold for other test images and not for other seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.evaluation import bootstrap, metrics
from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.inference import Inference, name_metrics
from trainer.evaluation.predictions import Predictions
from trainer.evaluation.shares import grouped_share
from trainer.runs.finished_run import FinishedRun

# Not the calibration error (ECE): noise makes it larger, and so do resamples, whose interval would
# lie above the error itself.
OVERALL = tuple(name for name in metrics.OVERALL if name != "ece")
BY_CLASS = ("recall", "precision", "specificity", "f1", "auroc", "auprc")
_RESAMPLES = 500


def intervals(run: FinishedRun, split: str) -> tuple[dict[str, Interval], Sequence[str]]:
    """(metric -> interval, names of rare classes) of a split; a class's are called `recall/COVID`.

    Groups of images are resampled; the accuracy has a score interval over groups. Rare classes are
    those with fewer groups than `inference.RARE_BELOW`.

    Raises:
      UserError: the run has no readable predictions.
    """
    return prediction_intervals(run.predictions(split), run.class_names)


def prediction_intervals(
    answers: Predictions, names: Sequence[str]
) -> tuple[dict[str, Interval], Sequence[str]]:
    """The same of any predictions of one model; names: its classes, in label order."""
    groups = np.asarray(answers.groups or answers.ids)
    weights = bootstrap.group_weights(groups, _RESAMPLES, seed=0)
    resampled = metrics.weighted_metrics(
        answers.labels, answers.log_probabilities, weights, lines=False
    )
    values = resampled.flat(names)
    inference = Inference(answers, names, [(0,)])
    result = {}
    for metric in name_metrics(OVERALL, BY_CLASS, names):
        study = inference.study(metric, [values[metric][np.newaxis]])
        result[metric] = inference.mean(metric, study.mean(0))
    result["accuracy"] = grouped_share(answers.logits.argmax(axis=1) == answers.labels, groups)
    return result, list(inference.rare_classes())
