"""file_hashes.json: by it a reader sees that a run's model and predictions are still its own.

Thresholds, temperature and intervals come from the predictions and are used with the model: of two
runs they would not fit together, and no figure would look wrong.
"""

from __future__ import annotations

import os

from cxr_tfrecords import files
from cxr_tfrecords.checks import seal
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.sealed_files import read_sealed
from trainer.runs import run_files, same_run


def write(run_dir: str) -> None:
    """Writes the hashes of the files that `check` may be asked for."""
    paths = [run_files.predictions_path(run_dir, split) for split in run_files.SPLITS]
    paths.append(os.path.join(run_dir, run_files.MODEL))
    content = {"sha256": {os.path.basename(path): same_run.hash_file(path) for path in paths}}
    files.write_json(os.path.join(run_dir, run_files.FILE_HASHES), seal.sealed(content))


def check(path: str) -> None:
    """Refuses a file of a run that is not the one that its training wrote. Runs of earlier versions
    have no hashes: nothing is checked.

    Raises:
      UserError: it was changed, or file_hashes.json was.
    """
    known = os.path.join(os.path.dirname(path), run_files.FILE_HASHES)
    if not os.path.exists(known):
        return
    remedy = "restore it from a copy, or train the run again in another --run_dir"
    content = read_sealed(known, remedy, "the training")
    if content["sha256"].get(os.path.basename(path)) != same_run.hash_file(path):
        raise UserError(f"{path} is not the file that the run's training has written: {remedy}")
