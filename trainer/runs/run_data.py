"""The data set that a finished run was trained on: where it is now, and how its files were decoded.

Nothing here needs TensorFlow.
"""

from __future__ import annotations

from cxr_tfrecords import dataset_dir, files
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.decoding import rules
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.reading import Reading
from trainer.runs.finished_run import FinishedRun


def find_data(run: FinishedRun, data_dir: str = "") -> DatasetDir:
    """The data set of a run, as the run sees it.

    Args:
      data_dir: where it is now; empty: see `find_place`.

    Raises:
      UserError: it is not there any more, or another one lies in its place.
    """
    path = data_dir or find_place(run)
    if not data_dir and not files.exists(path):
        raise UserError(
            f"{path}, the data set of {run.path}, is not there any more: put it or a link to it "
            "there, or give its new place as --data_dir if the command has that flag"
        )
    data = run.config.shown(dataset_dir.load(path, run.config.fold))
    if data.fingerprint != run.dataset["fingerprint"]:
        remedy = "name that one with --data_dir" if data_dir else "put that one back in its place"
        raise UserError(f"{path} is not the data set that {run.path} was trained on: {remedy}")
    return data


def find_place(run: FinishedRun) -> str:
    """Path of the data set that a run was trained on, or of another one in its place.

    It is where the data set was for training, or else where the run's own --data_dir leads from
    the current folder, as after run and data set were moved together.
    """
    places = (run.dataset["path"], run.config.data_dir)
    there = (p for p in places if p and files.exists(files.join(p, dataset_dir.MANIFEST)))
    return next(there, places[0])


def is_data_of(run: FinishedRun, path: str) -> bool:
    """Whether a run was trained on the data set at a path, whatever its classes and fold."""
    try:
        data = dataset_dir.load(path, run.config.fold)
        return run.config.with_classes(data).fingerprint == run.dataset["fingerprint"]
    except UserError:
        return False


def pixel_rules(run: FinishedRun) -> int | None:
    """The version of the rules by which the files of a run's data set were decoded; None for a run
    of an earlier version, which does not record it, if its data set is gone."""
    if (version := run.dataset.get("pixel_rules")) is not None:
        return version
    try:
        return find_data(run).pixel_rules
    except UserError:
        return None


def changed_pixel_rules(run: FinishedRun) -> str:
    """What this version decodes in another way than the build of a run's data set did.

    Returns:
      Lines for the user. Empty if nothing differs, or if the rules are not known.

    Raises:
      UserError: the data set was built by a later version than this one.
    """
    return changed_rules(pixel_rules(run), run.path)


def changed_rules(version: int | None, path: str) -> str:
    """As `changed_pixel_rules`, of the model at a path, whose images were decoded by the rules of a
    version."""
    if version is None:
        return ""
    changes = rules.changes_since(version)
    if version > rules.VERSION:
        raise UserError(
            f"{path} needs a later version of this software, because its images were decoded "
            f"by rules that this one does not have ({changes[0]}): install the version that built "
            "its data set"
        )
    if not changes:
        return ""
    lines = "".join(f"\n  {line}" for line in changes)
    return (
        f"warning: {path} was trained on images that an earlier version decoded, and files of "
        f"these kinds are decoded in another way now:{lines}\n"
        "answers for such files may be wrong: build the data set again and train on it"
    )


def reading_of(run: FinishedRun) -> Reading:
    """How the run's images were read; runs of earlier versions ask the data set.

    Prints a warning where this version decodes some files in another way.

    Raises:
      UserError: nothing tells it, or only a later version can decode as the run's build did.
    """
    if warning := changed_pixel_rules(run):
        print(warning, flush=True)
    if "reading" in run.dataset:
        return Reading.from_json(run.dataset["reading"])
    try:
        return find_data(run).reading
    except UserError as error:
        raise UserError(
            f"{run.path} does not say how its images were read, and its data set cannot be asked "
            f"({error}): put it back in its place, or train again"
        ) from error
