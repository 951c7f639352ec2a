"""Sections of a card on its limits, and on how to use the model and compute it again."""

from __future__ import annotations

from collections.abc import Iterator

from cxr_tfrecords import __version__
from trainer.card.description import AUTHOR
from trainer.card.facts import Facts
from trainer.exporting.format_table import FORMATS
from trainer.runs import report
from trainer.runs.run_limits import run_limits

_RUN = """from trainer import Classifier

classifier = Classifier.load("RUN")
answers = classifier.predict(["chest.dcm", "chest.png"])  # paths, bytes, or uint8 pixels
print(answers.classes, answers.probabilities["calibrated"])"""
_KERAS = """import json, keras, numpy as np

names = json.load(open("deployment.json"))["class_names"]
images = np.load("images.npy")  # uint8 [n, size, size, channels]
probabilities = keras.models.load_model("model.keras").predict(images)["probabilities"]
print([names[c] for c in probabilities.argmax(axis=1)], probabilities.max(axis=1))"""


def limits(facts: Facts) -> Iterator[str]:
    notes = list(run_limits(facts.run, elsewhere=bool(facts.elsewhere)))
    if not facts.shortcuts:
        notes.append(
            "Whether the model looks at the lungs, or at marks and borders that go with a class, "
            "was not tested."
        )
    notes.append(
        "Whether it is as good in every group of patients (sex, age, origin) is not known."
    )
    yield "\n".join(f"- {note}" for note in notes)
    yield f"{AUTHOR}: what is particular to these data and labels."


def how_to_use(facts: Facts) -> Iterator[str]:
    if not facts.exported:
        yield f"RUN is the run directory; the package is cxr-balance {__version__}."
        yield _code(_RUN)
        return
    files = ", ".join(f"`{path}`" for path in facts.exported)
    yield (
        f"{files} and `deployment.json`, which says how a file becomes the pixels that the model "
        "takes, and what each output means. Pixels that are already divided by 255 give wrong "
        "answers without any error."
    )
    if FORMATS["keras"].path in facts.exported:
        yield "`pip install keras tensorflow`, then:"
        yield _code(_KERAS)


def recompute(facts: Facts) -> Iterator[str]:
    command = report.run_command(facts.run)
    yield (
        "With other names in the place of folders (DATA: the data set that `beam_pipelines.build` "
        "wrote; RUN: the run directory):"
    )
    lines = ["python -m cxr_tfrecords.verify DATA", command]
    lines.append("python -m trainer.model_card --run_dir=RUN --output=README.md")
    yield "```\n" + "\n".join(lines) + "\n```"
    yield (
        "RUN/predictions_test.csv has the answer to each test image; every figure of the test "
        f"split above comes from it. To cite the software: cxr-balance {__version__}, its "
        "CITATION.cff."
    )
    yield f"{AUTHOR}: how to cite the model, where its code and data can be had, and a contact."


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
