"""Images of another data set that a run was trained or validated on, as exact or near copies."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

import numpy as np

from cxr_tfrecords import csv_rows, dataset_dir, files
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError, first_line
from cxr_tfrecords.near_duplicates import DEFAULT_MAX_DISTANCE, near_pairs
from trainer.runs import initial_run
from trainer.runs.finished_run import FinishedRun
from trainer.runs.run_data import find_data


class _DamagedListError(UserError):
    """A sources.csv whose images are not those of its data set."""


def find_copies(
    runs: Sequence[FinishedRun], data: DatasetDir, splits: Sequence[str], classes: Sequence[str]
) -> tuple[set[str], str]:
    """Compares perceptual hashes of sources.csv; a hash that differs in few bits is a copy.

    Args:
      data: the other data set, and the splits and classes of it that are evaluated.

    Runs whose weights the training started from (`--init_from`) count too.

    Returns:
      The ids of its images that are copies of a training or validation image of any run; and why a
      run could not be checked, empty if all were.

    Raises:
      UserError: a sources.csv is damaged: copies that it lacks would count as images not seen.
    """
    try:
        names, hashes = _read_hashes(data.path, () if data.folds else splits, classes)
        # Seeds of one method were trained on the same images, runs of two folds were not.
        trainings = {(one.dataset["fingerprint"], one.config.fold): one for one in _chain(runs)}
        known = np.concatenate([_read_training_hashes(one) for one in trainings.values()])
    except _DamagedListError:
        raise
    except UserError as error:
        return set(), str(error)
    distinct, member = np.unique(np.concatenate([known, hashes]), axis=0, return_inverse=True)
    trained = np.zeros(len(distinct), bool)
    trained[member[: len(known)]] = True
    copied = trained.copy()
    for low, high in near_pairs(distinct, DEFAULT_MAX_DISTANCE):
        copied[low] |= trained[high]
        copied[high] |= trained[low]
    rows = np.flatnonzero(copied[member[len(known) :]])
    return {names[row] for row in rows}, ""


def _chain(runs: Sequence[FinishedRun]) -> Iterator[FinishedRun]:
    """The runs, and those that they were started from."""
    for run in runs:
        yield run
        if run.config.init_from:
            yield from _chain([initial_run.read_source(run.config)])


def _read_training_hashes(run: FinishedRun) -> np.ndarray:
    data, fold = find_data(run), run.config.fold
    manifest = dataset_dir.read_manifest(data.path)
    tested = "test" if fold is None else f"fold{fold}"
    splits = [split for split in dataset_dir.split_names(manifest) if split != tested]
    names = manifest["class_names"]
    labels = data.label_map or range(len(names))
    used = [name for name, c in zip(names, labels, strict=True) if c >= 0]
    return _read_hashes(data.path, splits, used)[1]


def _read_hashes(
    path: str, splits: Sequence[str], classes: Sequence[str] = ()
) -> tuple[list[str], np.ndarray]:
    """Names and hashes, uint64 [n, 4], of the images of some splits and classes; empty: of all."""
    names: list[str] = []
    digits: list[str] = []
    file_name = files.join(path, dataset_dir.SOURCES)
    if not files.exists(file_name):
        raise UserError(f"{file_name} is missing")
    try:
        with csv_rows.open_csv(file_name) as file:
            for row in csv_rows.dict_reader(file):
                is_wanted = (not splits or row["split"] in splits) and (
                    not classes or row["class"] in classes
                )
                if row["shard"] and is_wanted:
                    names.append(row["filename"])
                    digits.append(row.get("near_hash") or "")
        if names and not any(digits):
            raise UserError(f"{file_name} has no perceptual hashes")
        _check_number(path, splits, classes, len(names))
        hashes = [np.frombuffer(bytes.fromhex(text), np.uint64) for text in digits]
        return names, np.array(hashes, np.uint64).reshape(len(names), 4)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise _DamagedListError(
            f"{file_name} is damaged ({first_line(error)}): restore it from a copy, or build its "
            "data set again"
        ) from error


def _check_number(path: str, splits: Sequence[str], classes: Sequence[str], found: int) -> None:
    """Refuses a list that was cut short: images that it lacks would not be known for copies.

    Raises:
      ValueError: it has other images than the manifest counts.
    """
    counts = dataset_dir.read_manifest(path)["counts"]
    expected = sum(
        number
        for split, of_classes in counts.items()
        for name, number in of_classes.items()
        if (not splits or split in splits) and (not classes or name in classes)
    )
    if found != expected:
        raise ValueError(f"it lists {found:,} images, {dataset_dir.MANIFEST} counts {expected:,}")
