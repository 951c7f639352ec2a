"""Audits one finished run and writes the page, its figures and its text into a new folder."""

from __future__ import annotations

import os
from typing import Any

from cxr_tfrecords import files
from cxr_tfrecords.checks import seal
from cxr_tfrecords.concurrency import temporary
from cxr_tfrecords.dataset_dir import DatasetDir
from trainer.audit import figures, page, verdict
from trainer.audit.conditions import WHOLE
from trainer.audit.file_facts import predict_from_files
from trainer.audit.masks import BLACK, Masks
from trainer.audit.predict_conditions import predict_conditions
from trainer.comparison.study_progress import announced
from trainer.evaluation.inference import Inference
from trainer.runs import remote_run
from trainer.runs.finished_run import FinishedRun


def audit_run(
    run: FinishedRun,
    data: DatasetDir,
    split: str,
    masks: Masks,
    output_dir: str,
    *,
    fill: str = "gray",
    resamples: int = 500,
) -> dict[str, Any]:
    """Writes shortcuts.html, shortcuts.md and shortcuts.json.

    Args:
      run, data: of `open_run`.
      split: `validation` or `test`.
      output_dir: new or empty; nothing is left in it if anything fails.
      fill: `gray`: what is taken away gets the mean gray value of the training split, black where
        the images are black around the lungs; `black`: always black.

    Returns:
      The content of shortcuts.json.

    Raises:
      UserError: see `predict_conditions`.
    """
    is_black = fill == "black" or masks.source == BLACK or data.mask != "none"
    value = 0 if is_black else round(sum(data.mean) / len(data.mean))
    shown = predict_conditions(run, data, split, masks, value)
    tested = shown.predictions[WHOLE]
    of_files, unchecked = predict_from_files(data, tested)
    names = run.class_names
    with announced(f"computing intervals from {resamples:,} resamples"):
        described = figures.describe(
            {**shown.predictions, **of_files}, names, run.config.seed, resamples
        )
    content: dict[str, Any] = {
        "run": remote_run.address_of(os.path.abspath(run.path)),
        "data": os.path.abspath(data.path),
        "split": split,
        "class_names": list(names),
        "rare_classes": list(Inference(tested, names, [[0]]).rare_classes()),
        "images": len(tested.ids),
        "groups": len(set(tested.groups)),
        "left_out": shown.no_lungs,
        "mask_source": masks.source,
        "lung_share": shown.lung_share,
        "fill": value,
        "resamples": resamples,
        "example": shown.example_id,
        "empty": dict(shown.empty),
        "files_unchecked": unchecked,
        "conditions": described,
    }
    content["verdict"] = verdict.judge(content)
    with temporary.replacing_folder(output_dir) as folder:
        files.write_json(
            os.path.join(folder, "shortcuts.json"),
            seal.sealed(content),
            sort_keys=False,
            allow_nan=False,
        )
        files.write_text(os.path.join(folder, "shortcuts.md"), page.render_markdown(content))
        html = page.render(content, shown.example)
        files.write_text(os.path.join(folder, "shortcuts.html"), html)
    return content
