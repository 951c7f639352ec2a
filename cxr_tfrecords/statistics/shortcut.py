"""Whether a file's format and size alone tell its class: a shortcut that a model may learn.

Radiographs of one class often come from one source, with its own format, image size and file
size. A network can tell such sources apart by traces of them in the pixels, and then its figures
are of the source and not of the disease. So a small decision tree is asked to name the class
from these properties, without ever seeing a pixel, on images that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FEATURES = ("format", "mode", "height", "width", "aspect_ratio", "file_size")
FOLDS = 5
MAX_ROWS = 20_000
# A warning needs both: what luck does not explain, and an effect worth a warning.
_STANDARD_ERRORS = 3.0
_MARGIN = 0.05
_SEED = 0

SHORTCUT, NONE, ALIKE, NOT_TESTED = "shortcut", "none", "alike", "not tested"


def choose_rows(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """At most `MAX_ROWS` rows, int64 and ascending, no more of one class than of another's share.

    Args:
      labels: [rows], class indices; negative: not to be chosen.
    """
    generator = np.random.default_rng(_SEED)
    quota = MAX_ROWS // max(num_classes, 1)
    chosen = []
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        if len(rows) > quota:
            rows = generator.choice(rows, quota, replace=False)
        chosen.append(rows)
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def measure(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """How well each feature, and all of them, predict the class of images not trained on.

    Args:
      features: name -> [rows], numbers or codes; see `FEATURES`.
      labels: [rows], class indices; groups: [rows], of images that must stay together.

    Returns:
      `verdict` and `reason`; where it was tested, the scores as well (see `_describe`).
    """
    count = len(class_names)
    result: dict[str, Any] = {"rows": len(labels), "folds": FOLDS}
    if count < 2:
        return {**result, "verdict": NOT_TESTED, "reason": "there is one class only"}
    if all(len(np.unique(values)) < 2 for values in features.values()):
        reason = "all files are alike in format, mode, image size and file size"
        return {**result, "verdict": ALIKE, "reason": reason}
    fold, groups_of = _deal(labels, groups, count)
    fewest = int(groups_of.argmin())
    if groups_of[fewest] < FOLDS:
        reason = (
            f"class {class_names[fewest]} has {groups_of[fewest]} independent images or groups, "
            f"and {FOLDS} are needed"
        )
        return {**result, "verdict": NOT_TESTED, "reason": reason}
    every = np.column_stack(list(features.values()))
    other = np.column_stack([v for name, v in features.items() if name != "file_size"])
    singles = {name: _score(values[:, None], labels, fold) for name, values in features.items()}
    scores = _describe(_score(every, labels, fold), groups_of)
    sourced = _describe(_score(other, labels, fold), groups_of)
    warned = scores["above_chance"]
    return {
        **result,
        **scores,
        "verdict": SHORTCUT if warned else NONE,
        "reason": f"{'above' if warned else 'not clearly above'} guessing",
        "without_file_size": sourced,
        # The weaker sign: how far a picture compresses also depends on what it shows.
        "file_size_only": warned and not sourced["above_chance"],
        "single_features": {name: _describe(s, groups_of) for name, s in singles.items()},
    }


def _deal(labels: np.ndarray, groups: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Deals whole groups to the folds, each class in turn.

    scikit-learn's StratifiedGroupKFold does the like, group by group in Python.

    Returns:
      int64 [rows], the fold of each; int64 [count], groups of each class. A group of several
      classes counts for that of its first row.
    """
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(_SEED).permutation(len(first))
    own = labels[first]
    fold = np.zeros(len(first), np.int64)
    for label in range(count):
        members = order[own[order] == label]
        fold[members] = (np.arange(len(members)) + label) % FOLDS
    return fold[inverse], np.bincount(own, minlength=count)


def _score(features: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Balanced accuracy in each fold, [FOLDS]. features: [rows, features]."""
    from sklearn.tree import DecisionTreeClassifier

    scores = []
    for number in range(FOLDS):
        held_out = fold == number
        # A tree, as it needs no scaling, takes codes as they are and repeats to the bit.
        tree = DecisionTreeClassifier(
            max_depth=6, min_samples_leaf=2, class_weight="balanced", random_state=_SEED
        )
        tree.fit(features[~held_out], labels[~held_out])
        truth = labels[held_out]
        hits = tree.predict(features[held_out]) == truth
        # Every class has a group in every fold, so none of these is 0 / 0.
        scores.append((np.bincount(truth, weights=hits) / np.bincount(truth)).mean())
    return np.array(scores)


def _describe(scores: np.ndarray, groups_of: np.ndarray) -> dict[str, Any]:
    """Mean, its errors, and whether it is above chance, which is 1 / classes.

    Five folds of a small set can agree by luck. The error of mere guessing, which the number of
    groups gives, is therefore the least that is allowed for.
    """
    chance = 1 / len(groups_of)
    mean, error = scores.mean(), scores.std(ddof=1) / np.sqrt(len(scores))
    guessing = chance * np.sqrt((chance * (1 - chance) / groups_of).sum())
    excess = mean - chance
    return {
        "balanced_accuracy": round(float(mean), 4),
        "standard_error": round(float(error), 4),
        "standard_error_of_guessing": round(float(guessing), 4),
        "chance": round(chance, 4),
        "above_chance": bool(excess > _STANDARD_ERRORS * max(error, guessing) and excess > _MARGIN),
    }
