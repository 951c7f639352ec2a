"""Predicts files one after another into a CSV file; what was done is kept if it is stopped."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from typing import Any

from cxr_tfrecords import csv_rows, files
from cxr_tfrecords.concurrency import locks
from cxr_tfrecords.console.progress import progress
from trainer.deployment import prediction_rows
from trainer.deployment.input_files import find_files
from trainer.deployment.predictor import Classifier


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
    files whose row is there are not read again. With other files than then, all are: an answer's
    last bits depend on its place in a batch, and rows of files that went would stay.

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
      TemporaryError: another process writes `output`.
    """
    folder, ids = find_files(source, output)
    columns = prediction_rows.header(classifiers)
    part = f"{output}.part"
    with files.explained(output, "output"), locks.held_file(part, f"--output={output}"):
        settings = {
            "input": os.path.abspath(source),
            "ids": prediction_rows.hash_ids(ids),
            **prediction_rows.row_settings(classifiers),
        }
        done = _resume(part, columns, settings)
        rejected: dict[str, str] = {}
        with (
            csv_rows.open_csv(part, "a") as file,
            progress(len(ids), "predict", " images", initial=len(done)) as bar,
        ):
            writer = csv_rows.writer(file)
            for rows in prediction_rows.predict_rows(
                classifiers, folder, ids, rejected, threads=threads, progress=bar.update, done=done
            ):
                writer.writerows(rows)
                file.flush()
        counts = _count_classes(part, classifiers[0].class_names)
        if not sum(counts.values()):
            os.remove(part)
            os.remove(f"{part}.json")
            raise prediction_rows.nothing_usable(ids, rejected)
        if finish:
            finish(part, folder)
        os.replace(part, output)
        os.remove(f"{part}.json")
    return counts, rejected


def _resume(part: str, header: list[str], settings: dict[str, Any]) -> set[str]:
    """The ids whose rows are in the file; makes a new file if they are of another command."""
    settings_path = f"{part}.json"
    try:
        if files.read_json(settings_path) == settings:
            with csv_rows.open_csv(part) as file:
                # Less a last line that was cut off. A quoted name may hold a carriage return.
                whole = (line for line in file if line.endswith(("\n", "\r")))
                rows = [row for row in csv_rows.reader(whole) if len(row) == len(header)]
            if rows and rows[0] == header:
                _write_all(part, rows)
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


def _count_classes(path: str, class_names: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(class_names, 0)
    with csv_rows.open_csv(path) as file:
        for row in csv_rows.dict_reader(file):
            counts[row["class"]] += 1
    return counts


def count_flagged(path: str) -> int | None:
    """How many rows of a file of `predict_files` are flagged as unlike the training images; None if
    it does not say so."""
    with csv_rows.open_csv(path) as file:
        reader = csv_rows.dict_reader(file)
        if prediction_rows.FLAG not in (reader.fieldnames or ()):
            return None
        return sum(row[prediction_rows.FLAG] == "1" for row in reader)
