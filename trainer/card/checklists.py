"""A card's tables of reporting guidelines: where an item is answered, and what is left to authors.

An item that is in no table here can be answered by an author alone, and is listed as such.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from cxr_tfrecords.pages.markdown import plain_table
from trainer.card.description import AUTHOR
from trainer.comparison.page import reporting_items as items

MODEL, USE, DATA = "What it is", "Intended use", "Data"
BALANCE, TRAINING = "How the classes were balanced", "Training"
RESULTS, PROBABILITIES = "Results on the test split", "Probabilities"
THRESHOLDS = "Thresholds and prediction sets"
UNLIKE = "Images unlike the training images"
ELSEWHERE, SHORTCUTS = "On other data sets", "Lungs or a shortcut"
LIMITS, HOW, AGAIN = "Limits", "How to use it", "Computing it again, and citing it"
# What stands in the place of a section that a card does not have.
_ABSENT = {
    UNLIKE: "not fitted yet: `python -m trainer.predict` does it",
    ELSEWHERE: "not tested: `python -m trainer.evaluate` does it",
    SHORTCUTS: "not tested: `python -m trainer.shortcuts` does it",
}
# Item -> the section that answers it, and what is left to the author; nothing: it is answered.
_Answers = Mapping[str, tuple[str, str]]
TRIPOD_AI: _Answers = {
    "3b": (USE, "population, place in the care pathway, users"),
    "7": (DATA, "quality checks before the build, in every group of patients"),
    "8a": (MODEL, "how, when and by whom classes were given; why this outcome"),
    "9a": (MODEL, ""),
    "9b": (MODEL, "when and how the images were taken"),
    "10": (DATA, "how the size was arrived at, and why it is enough"),
    "11": (DATA, "what was never collected"),
    "12a": (DATA, ""),
    "12b": (DATA, ""),
    "12c": (TRAINING, "why this model; what was tuned before"),
    "12e": (RESULTS, "why these measures"),
    "12f": (PROBABILITIES, ""),
    "12g": (HOW, ""),
    "13": (BALANCE, "why it was done"),
    "15": (THRESHOLDS, "why these thresholds"),
    "16": (DATA, "setting and eligibility, where other data were tested"),
    "18f": (AGAIN, "where the code can be had"),
    "21": (DATA, "patients, if one has several images"),
    "22": (HOW, "terms of use"),
    "23a": (RESULTS, "subgroups of patients"),
    "23b": (ELSEWHERE, "hospitals, countries"),
    "24": (PROBABILITIES, ""),
    "26": (LIMITS, "what is particular to the data"),
    "27a": (UNLIKE, "what is done with such images"),
}
CLAIM: _Answers = {
    "3": (USE, "clinical background, role of the model"),
    "9": (DATA, "what was done before the build"),
    "10": (DATA, "selection before the build"),
    "12": (DATA, "what was never collected"),
    "19": (DATA, ""),
    "20": (DATA, "whether the unit is the patient"),
    "22": (MODEL, ""),
    "23": (TRAINING, ""),
    "24": (TRAINING, ""),
    "25": (TRAINING, ""),
    "26": (TRAINING, "what was tuned before"),
    "28": (RESULTS, ""),
    "29": (RESULTS, ""),
    "30": (SHORTCUTS, "other analyses"),
    "32": (RESULTS, ""),
    "33": (ELSEWHERE, "why not, if it was not tested"),
    "35": (DATA, "patients, and those excluded before the build"),
    "37": (RESULTS, ""),
    "38": (RESULTS, ""),
    "39": (RESULTS, "examples, and what the mistakes mean"),
    "40": (LIMITS, "what is particular to the data"),
    "42": (AGAIN, "the protocol"),
    "43": (AGAIN, "where software, model and data can be had"),
}
STARD_AI: _Answers = {
    "3": (USE, "clinical background, place in the workflow"),
    "13": (TRAINING, "devices"),
    "14": (DATA, "acquisition"),
    "15a": (MODEL, ""),
    "15b": (DATA, ""),
    "15c": (THRESHOLDS, "why these"),
    "17a": (MODEL, ""),
    "18": (RESULTS, ""),
    "20": (DATA, "what was never collected"),
    "23": (RESULTS, "bias and fairness in groups of patients"),
    "24": (DATA, "flow of patients"),
    "25": (DATA, "demographic and clinical characteristics"),
    "26b": (DATA, ""),
    "28": (PROBABILITIES, "class shares of the intended use"),
    "29": (ELSEWHERE, "setting and devices"),
    "30": (RESULTS, ""),
    "31": (RESULTS, ""),
    "33": (LIMITS, "what is particular to the data"),
    "40a": (AGAIN, "where data and code can be had"),
    "40b": (AGAIN, "outputs in use"),
}
CHECKLISTS: tuple[tuple[str, Mapping[str, str], _Answers], ...] = (
    (items.TRIPOD_AI_SOURCE, items.TRIPOD_AI, TRIPOD_AI),
    (items.CLAIM_SOURCE, items.CLAIM, CLAIM),
    (items.STARD_AI_SOURCE, items.STARD_AI, STARD_AI),
)


def checklists(sections: Container[str]) -> Iterator[Any]:
    """Blocks of Markdown.

    Args:
      sections: titles of the sections that the card has.
    """
    yield (
        "Where this card answers the items of three guidelines. Topics are in words of this "
        "project: the guidelines say what an item asks for. This is no statement of compliance."
    )
    for source, topics, answers in CHECKLISTS:
        yield f"### {source}"
        rows = []
        for number, (section, left) in answers.items():
            where = f"[{section}](#{_anchor(section)})"
            if section not in sections:
                where = _ABSENT[section]
            rows.append([f"{number} {topics[number]}", where, left])
        yield plain_table(["item", "in this card", "left to the author"], rows, texts=3)
        open_items = "; ".join(f"{n} {topic}" for n, topic in topics.items() if n not in answers)
        yield f"{AUTHOR}: {open_items}."


def _anchor(section: str) -> str:
    """The address that GitHub and the Hugging Face Hub give a heading."""
    return section.lower().replace(",", "").replace(" ", "-")
