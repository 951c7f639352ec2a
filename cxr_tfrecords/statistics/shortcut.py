"""Whether format and size of a file alone predict its class: a shortcut that a model may learn.

Radiographs of one class often come from one source, with its own format, image size and file
size. A network can recognise such a source by traces in the pixels, and then its scores measure
the source and not the disease. So a small decision tree predicts the class from these properties
of the files, without the pixels, and is scored on images that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier

FEATURES = ("format", "mode", "height", "width", "aspect_ratio", "file_size")
FOLDS = 5
MAX_ROWS = 20_000
# A warning needs both: an accuracy above chance by so many standard errors, which luck does not
# explain, and by so much, as less is not worth a warning.
_STANDARD_ERRORS = 3.0
_MARGIN = 0.05
_SEED = 0

SHORTCUT, NONE, ALIKE, NOT_TESTED = "shortcut", "none", "alike", "not tested"


def choose_rows(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Chooses at most `MAX_ROWS` rows, and at most an equal part of them from each class.

    Args:
      labels: [rows], class indices; negative: not to be chosen.

    Returns:
      int64, row numbers, ascending.
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
    """Measures by cross-validation how well each feature alone, and all, predict the class.

    Args:
      features: name -> [rows], numbers or codes of categories; see `FEATURES`.
      labels: [rows], class indices.
      groups: [rows], equal for images that must lie in the same fold.

    Returns:
      `verdict` and `reason`; if it could be tested, the scores as well (see `_describe`).
    """
    count = len(class_names)
    result: dict[str, Any] = {"rows": len(labels), "folds": FOLDS}
    if count < 2:
        return {**result, "verdict": NOT_TESTED, "reason": "there is one class only"}
    if all(len(np.unique(values)) < 2 for values in features.values()):
        reason = "all files are alike in format, mode, image size and file size"
        return {**result, "verdict": ALIKE, "reason": reason}
    fold, num_groups = _make_folds(labels, groups, count)
    fewest = int(num_groups.argmin())
    if num_groups[fewest] < FOLDS:
        reason = (
            f"class {class_names[fewest]} has {num_groups[fewest]} independent images or groups, "
            f"and {FOLDS} are needed"
        )
        return {**result, "verdict": NOT_TESTED, "reason": reason}
    every = np.column_stack(list(features.values()))
    other = np.column_stack([v for name, v in features.items() if name != "file_size"])
    singles = {name: _score(values[:, None], labels, fold) for name, values in features.items()}
    scores = _describe(_score(every, labels, fold), num_groups)
    without_file_size = _describe(_score(other, labels, fold), num_groups)
    warned = scores["above_chance"]
    return {
        **result,
        **scores,
        "verdict": SHORTCUT if warned else NONE,
        "reason": f"{'above' if warned else 'not clearly above'} guessing",
        "without_file_size": without_file_size,
        # A weaker sign: the size of a compressed image also depends on what the image shows.
        "file_size_only": warned and not without_file_size["above_chance"],
        "single_features": {name: _describe(s, num_groups) for name, s in singles.items()},
    }


def _make_folds(
    labels: np.ndarray, groups: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distributes whole groups over the folds, evenly for each of `count` classes.

    scikit-learn's StratifiedGroupKFold does the same, but slowly: group by group in Python.

    Returns:
      The fold of each row, int64 [rows], and the number of groups of each class, int64 [count]. A
      group of more than one class counts for the class of its first row.
    """
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(_SEED).permutation(len(first))
    group_labels = labels[first]
    fold = np.zeros(len(first), np.int64)
    for label in range(count):
        members = order[group_labels[order] == label]
        fold[members] = (np.arange(len(members)) + label) % FOLDS
    return fold[inverse], np.bincount(group_labels, minlength=count)


def fit_tree(features: np.ndarray, labels: np.ndarray) -> DecisionTreeClassifier:
    """A tree that predicts labels [rows] from features [rows, features].

    A tree, because it needs no scaling of the features, accepts codes of categories as they are,
    and gives the same result each time.
    """
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_depth=6, min_samples_leaf=2, class_weight="balanced", random_state=_SEED
    )
    return tree.fit(features, labels)


def _score(features: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Balanced accuracy in each fold, [FOLDS], of a tree that sees features [rows, features]."""
    scores = []
    for number in range(FOLDS):
        held_out = fold == number
        tree = fit_tree(features[~held_out], labels[~held_out])
        truth = labels[held_out]
        hits = tree.predict(features[held_out]) == truth
        # Every class has a group in every fold, so none of these is 0 / 0.
        scores.append((np.bincount(truth, weights=hits) / np.bincount(truth)).mean())
    return np.array(scores)


def _describe(scores: np.ndarray, num_groups: np.ndarray) -> dict[str, Any]:
    """Mean, its standard errors, and whether it is above chance, which is 1 / classes.

    The scores of five folds of a small set can agree by luck, so that their standard error is too
    small. The standard error of guessing, which follows from the number of groups of each class,
    is therefore used where it is larger.
    """
    chance = 1 / len(num_groups)
    mean, error = scores.mean(), scores.std(ddof=1) / np.sqrt(len(scores))
    guessing = chance * np.sqrt((chance * (1 - chance) / num_groups).sum())
    excess = mean - chance
    return {
        "balanced_accuracy": round(float(mean), 4),
        "standard_error": round(float(error), 4),
        "standard_error_of_guessing": round(float(guessing), 4),
        "chance": round(chance, 4),
        "above_chance": bool(excess > _STANDARD_ERRORS * max(error, guessing) and excess > _MARGIN),
    }
