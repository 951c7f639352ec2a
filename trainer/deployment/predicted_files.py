"""Predicts files one after another into a CSV file; what was done is kept if it is stopped."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from cxr_tfrecords import csv_rows, files, images
from cxr_tfrecords.concurrency.ordered_threads import map_in_order
from cxr_tfrecords.errors import UserError
from trainer.deployment.predictor import Answers, Classifier, read_file
from trainer.deployment.several_models import combine
from trainer.runs import run_files, same_run

# Files of systems that are in many folders and are no images.
_PASSED_OVER = ("thumbs.db", "desktop.ini", "__macosx")
_VARIANTS = ("raw", "prior_corrected", "calibrated")
_FLAG = "out_of_distribution"
_PATH_COLUMNS = ("path", "filename", "file")


def find_files(source: str) -> tuple[str, list[str]]:
    """The folder that ids are relative to, and the ids: paths with `/`, sorted in a folder, in the
    order of a list.

    Args:
      source: an image; a folder, searched with all its subfolders; or a list, a .csv file with a
        column `path` whose paths are relative to the list's folder.

    Raises:
      UserError: nothing is there, or the list has no such column.
    """
    if os.path.isdir(source):
        found = sorted(_walk(source))
        if not found:
            raise UserError(f"--input={source}: the folder holds no file: name a folder of images")
        return source, found
    if not os.path.isfile(source):
        raise UserError(f"--input={source} does not exist: name an image, a folder or a .csv list")
    folder, name = os.path.split(source)
    return folder or ".", _read_list(source) if name.lower().endswith(".csv") else [name]


def _walk(folder: str) -> Iterator[str]:
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not _is_passed_over(name)]
        for name in names:
            if not _is_passed_over(name):
                yield os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in _PASSED_OVER


def _read_list(path: str) -> list[str]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            column = next((c for c in _PATH_COLUMNS if c in (reader.fieldnames or ())), None)
            if column is None:
                raise UserError(
                    f"--input={path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}"
                    ": it needs a column path"
                )
            return list(dict.fromkeys(row[column] for row in reader if row[column]))
    except UnicodeDecodeError as error:
        raise UserError(f"--input={path} is not a text file in UTF-8: save it so") from error
    except csv.Error as error:
        raise UserError(f"--input={path}, line {reader.line_num}: {error}: correct it") from error


def predict_files(
    classifiers: Sequence[Classifier],
    source: str,
    output: str,
    *,
    threads: int,
    finish: Callable[[str, str], None] | None = None,
) -> tuple[dict[str, int], dict[str, str]]:
    """Predicts the files of `source` into the CSV file `output`.

    Rows are written to `output`.part first. If the same command is run again after it was stopped,
    files whose row is there are not read again.

    Args:
      classifiers: one, or several whose probabilities are averaged.
      threads: that read files.
      finish: gets the path of the file of rows, and the folder that ids are relative to, as soon as
        all rows are there. If it is stopped, the same command starts with it again.

    Returns:
      Class name -> number of files whose largest probability it has; id -> reason of each file
      that cannot be used.

    Raises:
      UserError: no file is there, or `output` cannot be written.
    """
    folder, ids = find_files(source)
    header = _header(classifiers)
    part = f"{output}.part"
    with files.explained(output, "output"):
        done = _resume(part, header, _settings(classifiers, source))
        rejected: dict[str, str] = {}

        def read(identity: str) -> tuple[str, np.ndarray | str]:
            try:
                return identity, classifiers[0].read(read_file(os.path.join(folder, identity)))
            except images.BadImageError as error:
                return identity, str(error)

        todo = [identity for identity in ids if identity not in done]
        with (
            csv_rows.open_csv(part, "a") as file,
            tqdm(total=len(ids), initial=len(done), unit="image", disable=None) as bar,
        ):
            good = _good(map_in_order(read, todo, threads), rejected, bar)
            for names, pixels in _batches(good, classifiers[0].batch_size):
                _write_rows(file, names, [one.predict_pixels(pixels) for one in classifiers])
        counts = _count_classes(part, classifiers[0].class_names)
        if not sum(counts.values()):
            os.remove(part)
            os.remove(f"{part}.json")
            identity, reason = next(iter(rejected.items()))
            raise UserError(f"none of the {len(ids)} files can be used; {identity}: {reason}")
        if finish:
            finish(part, folder)
        os.replace(part, output)
        os.remove(f"{part}.json")
    return counts, rejected


def _settings(classifiers: Sequence[Classifier], source: str) -> dict[str, Any]:
    """What rows depend on, besides the files themselves."""
    return {
        "input": os.path.abspath(source),
        "models": [
            same_run.hash_file(os.path.join(one.path, run_files.MODEL)) for one in classifiers
        ],
        "target": [one.deployment.target.tolist() for one in classifiers],
        "thresholds": [one.thresholds.tolist() for one in classifiers],
        "set_thresholds": [one.set_thresholds.tolist() for one in classifiers],
        "detectors": [
            [one.detector.method, one.detector.threshold] if one.detector else []
            for one in classifiers
        ],
    }


def _header(classifiers: Sequence[Classifier]) -> list[str]:
    names = classifiers[0].class_names
    columns = ["id", "class"]
    if len(classifiers) == 1:
        columns += [f"logit_{name}" for name in names]
    columns += [f"{variant}_{name}" for variant in _VARIANTS for name in names]
    columns += [f"above_threshold_{name}" for name in names]
    columns += [f"in_set_{name}" for name in names]
    if len(classifiers) > 1:
        columns.append("disagreement")
    if all(one.detector for one in classifiers):
        columns.append(_FLAG)
        if len(classifiers) == 1:
            columns.append(f"{_FLAG}_score")
    return columns


def _resume(part: str, header: list[str], settings: dict[str, Any]) -> set[str]:
    """The ids whose rows are in the file; makes a new file if they are of another command."""
    settings_path = f"{part}.json"
    try:
        if files.read_json(settings_path) == settings:
            with csv_rows.open_csv(part) as file:
                rows = [row for row in csv.reader(file) if len(row) == len(header)]
            if rows and rows[0] == header:
                _write_all(part, rows)  # without a last row that was cut off
                return {row[0] for row in rows[1:]}
    except (OSError, ValueError, csv.Error):
        pass
    files.write_json(settings_path, settings)
    _write_all(part, [header])
    return set()


def _write_all(path: str, rows: list[list[str]]) -> None:
    with (
        files.replacing(path) as temporary,
        csv_rows.open_csv(temporary, "w") as file,
    ):
        csv_rows.writer(file).writerows(rows)


def _good(
    read: Iterable[tuple[str, np.ndarray | str]],
    rejected: dict[str, str],
    bar: tqdm,
) -> Iterator[tuple[str, np.ndarray]]:
    for identity, result in read:
        bar.update()
        if isinstance(result, str):
            rejected[identity] = result
        else:
            yield identity, result


def _batches(
    items: Iterator[tuple[str, np.ndarray]], size: int
) -> Iterator[tuple[list[str], np.ndarray]]:
    names: list[str] = []
    pixels: list[np.ndarray] = []
    for name, image in items:
        names.append(name)
        pixels.append(image)
        if len(names) == size:
            yield names, np.stack(pixels)
            names, pixels = [], []
    if names:
        yield names, np.stack(pixels)


def _write_rows(file: IO[str], names: Sequence[str], answers: Sequence[Answers]) -> None:
    """Appends a batch; floats have as many digits as are needed to read float32 back."""
    combined = combine(answers)
    columns = [combined.probabilities[variant].astype(np.float32) for variant in _VARIANTS]
    columns += [combined.above_threshold.astype(int), combined.in_set.astype(int)]
    if len(answers) == 1:
        columns.insert(0, answers[0].logits)
    else:
        columns.append(combined.disagreement[:, np.newaxis].astype(np.float32))
    if combined.out_of_distribution is not None:
        columns.append(combined.out_of_distribution[:, np.newaxis].astype(int))
        if len(answers) == 1:
            score = answers[0].out_of_distribution_score
            columns.append(np.asarray(score, np.float32)[:, np.newaxis])
    writer = csv_rows.writer(file)
    for row, name in enumerate(names):
        values = [str(value) for column in columns for value in column[row]]
        writer.writerow([name, answers[0].class_names[combined.classes[row]], *values])
    file.flush()


def _count_classes(path: str, class_names: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(class_names, 0)
    with csv_rows.open_csv(path) as file:
        for row in csv.DictReader(file):
            counts[row["class"]] += 1
    return counts


def count_flagged(path: str) -> int | None:
    """How many rows of a file of `predict_files` are flagged as unlike the training images; None if
    it does not say so."""
    with csv_rows.open_csv(path) as file:
        reader = csv.DictReader(file)
        if _FLAG not in (reader.fieldnames or ()):
            return None
        return sum(row[_FLAG] == "1" for row in reader)
