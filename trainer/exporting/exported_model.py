"""Writes a run's model with corrected probabilities as outputs, in formats of other programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from cxr_tfrecords import files
from cxr_tfrecords.checks import seal
from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError, first_line
from trainer.deployment import corrected_probabilities
from trainer.deployment.corrected_probabilities import Deployment
from trainer.exporting import contract, report
from trainer.exporting.checked_files import CheckedFiles
from trainer.exporting.format_table import FORMATS, INT8, check_formats
from trainer.runs import run_directory
from trainer.runs.finished_run import FinishedRun, read_run
from trainer.runs.run_data import find_data, reading_of


def export(
    run_dir: str,
    output_dir: str,
    deploy_prior: Sequence[str] = (),
    names: Sequence[str] = ("keras",),
) -> Iterator[str]:
    """Writes the model and deployment.json; yields lines for the user.

    Args:
      run_dir: a finished run.
      output_dir: new or empty; if anything fails it is not created.
      deploy_prior: `CLASS=share` items; none: the natural shares.
      names: keys of `format_table.FORMATS`.

    Raises:
      UserError: `run_dir` is not finished, `output_dir` is not empty or cannot be written, the
        shares are wrong, or a file does not answer as the trained model does.
    """
    check_formats(names)
    files.check_output_dir(output_dir)
    run = read_run(run_dir)
    shares = corrected_probabilities.parse_deploy_prior(deploy_prior, run.class_names)
    reading = reading_of(run)
    data = _find_data(run, names)
    plan = corrected_probabilities.plan_deployment(run, shares)
    model = create_deployed(run_directory.load_model(run.path, len(run.class_names)), plan)
    content = contract.describe_run(run, plan, reading, natural=shares is None)
    yield from report.describe_probabilities(content)
    yield "\ncomputing exact answers, in float64\n"
    checked = CheckedFiles(model, reading, run.config.mask, data)
    try:
        with temporary.of_libraries("export"), temporary.replacing_folder(output_dir) as folder:
            for name in names:
                yield f"writing and checking {FORMATS[name].path}"
                checked.add(name, folder)
            content |= contract.describe_files(run, reading, folder, checked)
            run_directory.write_json(os.path.join(folder, contract.FILE), seal.sealed(content))
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or first_line(error, 160)
        if "no space left" in str(error).lower():  # at the end of TensorFlow's long message
            reason = "no space left on its disk"
        raise UserError(
            f"--output_dir={output_dir} cannot be written ({reason}): nothing was left there; make "
            "room or name another directory"
        ) from error
    yield from report.describe_files(content, output_dir)


def create_deployed(model: keras.Model, plan: Deployment) -> keras.Model:
    """Adds the outputs of `contract.OUTPUTS` to a classifier of uint8 images to logits [batch,
    classes]."""
    [logits] = model.outputs
    outputs = {"logits": keras.layers.Identity(dtype="float32", name="logits_out")(logits)}
    for name, (scale, offset) in contract.finite_scaling(plan).items():
        variant = contract.OUTPUTS[name]
        layer = keras.layers.Rescaling(scale, offset, dtype="float32", name=f"{variant}_logits")
        outputs[name] = keras.layers.Softmax(dtype="float32", name=name)(layer(logits))
    return keras.Model(model.input, outputs, name="deployed")


def _find_data(run: FinishedRun, names: Sequence[str]) -> DatasetDir | None:
    """The run's data set; None, and a printed line, where it is not there any more."""
    try:
        return find_data(run)
    except UserError as error:
        if INT8 in names:
            raise UserError(
                f"--format={INT8} needs images of the run's data set ({error}): put it back in its "
                f"place, or leave {INT8} out"
            ) from error
        print(f"warning: {error}. The files are checked on synthetic radiographs", flush=True)
        return None
