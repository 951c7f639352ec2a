"""Writes a run's model with corrected probabilities as outputs, from Keras' own layers."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.markdown import markdown_table
from trainer.deployment import corrected_probabilities
from trainer.deployment.corrected_probabilities import Deployment
from trainer.evaluation.metrics import weighted_metrics
from trainer.runs import run_directory, run_files, same_run
from trainer.runs.finished_run import FinishedRun, read_run

# Output of the exported model -> one of `corrected_probabilities.VARIANTS`.
OUTPUTS = {
    "probabilities_raw": "raw",
    "probabilities_uncalibrated": "prior_corrected",
    "probabilities": "calibrated",
}
_SCORES = ("brier", "ece", "log_loss")
# Instead of the logarithm of a share of 0: a layer needs a finite number, and float32's softmax
# makes 0 of this one.
_LEAST = -1e4


def export(
    run_dir: str, output_dir: str, deploy_prior: Sequence[str] = (), form: str = "keras"
) -> Iterator[str]:
    """Writes the model and deployment.json; yields lines for the user.

    Args:
      run_dir: a finished run.
      output_dir: new or empty; if anything fails it is not created.
      deploy_prior: `CLASS=share` items; none: the natural shares.
      form: `keras` or `saved_model`.

    Raises:
      UserError: `run_dir` is not finished, `output_dir` is not empty, or the shares are wrong.
    """
    run = read_run(run_dir)
    shares = corrected_probabilities.parse_deploy_prior(deploy_prior, run.class_names)
    plan = corrected_probabilities.plan_deployment(run, shares)
    model = create_deployed(run_directory.load_model(run_dir), plan)
    if os.path.exists(output_dir) and (not os.path.isdir(output_dir) or os.listdir(output_dir)):
        raise UserError(
            f"--output_dir={output_dir} exists and is not empty: name a new or an empty directory"
        )
    content = describe(run, plan, natural=shares is None)
    with files.replacing_folder(output_dir) as temporary:
        if form == "keras":
            model.save(os.path.join(temporary, "model.keras"))
        else:
            with contextlib.redirect_stdout(io.StringIO()):  # Keras prints the signature
                model.export(temporary, verbose=False)
        run_directory.write_json(os.path.join(temporary, "deployment.json"), content)
    yield from _describe_content(content)
    where = os.path.join(output_dir, "model.keras") if form == "keras" else output_dir
    yield f"\n{where} gives {', '.join(['logits', *OUTPUTS])}; deployment.json holds the correction"


def create_deployed(model: keras.Model, plan: Deployment) -> keras.Model:
    """Adds the outputs of `OUTPUTS` to a classifier of uint8 images to logits [batch, classes]."""
    [logits] = model.outputs
    outputs = {"logits": keras.layers.Identity(dtype="float32", name="logits_out")(logits)}
    scaling = plan.scaling()
    for name, variant in OUTPUTS.items():
        scale, offset = scaling[variant]
        finite = np.maximum(offset, _LEAST).tolist()
        layer = keras.layers.Rescaling(scale, finite, dtype="float32", name=f"{variant}_logits")
        scaled = layer(logits)
        outputs[name] = keras.layers.Softmax(dtype="float32", name=name)(scaled)
    return keras.Model(model.input, outputs, name="deployed")


def describe(run: FinishedRun, plan: Deployment, *, natural: bool) -> dict[str, Any]:
    """The content of deployment.json.

    Args:
      natural: whether the deployment's shares are those of the data. If not, or if the test split
        was balanced, its images are weighted to the shares of the deployment.
    """
    test = run.predictions("test")
    weighted = not natural or "test" in run.dataset["balanced_splits"]
    weights = np.ones(len(test.labels))
    if weighted:
        weights = corrected_probabilities.deployment_weights(test.labels, plan.target)
    scores = {}
    for output, variant in OUTPUTS.items():
        answers = plan.variants(test.log_probabilities)[variant]
        values = weighted_metrics(test.labels, answers, weights, lines=False)
        report = values.report(run.class_names)
        scores[output] = {name: report[name] for name in _SCORES}
    shares = {
        name: dict(zip(run.class_names, map(float, getattr(plan, name)), strict=True))
        for name in ("trained_at", "natural", "target")
    }
    return {
        "run": os.path.abspath(run.path),
        "model_sha256": same_run.hash_file(os.path.join(run.path, run_files.MODEL)),
        "class_names": list(run.class_names),
        "input": "uint8 [batch, size, size, channels], not scaled",
        "class_shares": shares,
        "temperature": plan.temperature,
        "temperature_warning": plan.temperature_warning(),
        "test": scores,
        "test_weighted_to_target": weighted,
    }


def _describe_content(content: dict[str, Any]) -> Iterator[str]:
    header = ["class shares", *content["class_names"]]
    titles = {"trained_at": "trained at", "natural": "of the data", "target": "of the deployment"}
    rows = [
        [title, *(f"{share:.1%}" for share in content["class_shares"][name].values())]
        for name, title in titles.items()
    ]
    yield markdown_table(header, rows)
    yield f"\ntemperature {content['temperature']:.3f}, fitted on validation\n"
    rows = [
        [name, *("–" if scores[m] is None else f"{scores[m]:.4f}" for m in _SCORES)]
        for name, scores in content["test"].items()
    ]
    yield markdown_table(["test split", "Brier score", "ECE", "log loss"], rows)
    if content["test_weighted_to_target"]:
        yield (
            "\nthe test split has other class shares than the deployment: each image was weighted "
            "by the share of its class there / in the test split"
        )
