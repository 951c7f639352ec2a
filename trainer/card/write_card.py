"""Writes a model card: the front matter and all sections that have something to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cxr_tfrecords.files import write_text
from trainer.card import checklists, description, measurements, usage
from trainer.card.facts import Facts
from trainer.card.front_matter import front_matter

_SECTIONS: dict[str, Callable[[Facts], Iterator[str]]] = {
    checklists.MODEL: description.what_it_is,
    checklists.USE: description.intended_use,
    checklists.HOW: usage.how_to_use,
    checklists.RESULTS: measurements.results,
    checklists.PROBABILITIES: measurements.probabilities,
    checklists.THRESHOLDS: measurements.thresholds,
    checklists.UNLIKE: measurements.unlike_training,
    checklists.ELSEWHERE: measurements.elsewhere,
    checklists.SHORTCUTS: measurements.shortcuts,
    checklists.LIMITS: usage.limits,
    checklists.DATA: description.data,
    checklists.BALANCE: description.balancing,
    checklists.TRAINING: description.training,
    checklists.AGAIN: usage.recompute,
}


def write_card(path: str, facts: Facts) -> None:
    """Writes the card to `path`, in one step."""
    write_text(path, render(facts))


def render(facts: Facts) -> str:
    """The card as Markdown with YAML at its top."""
    config = facts.run.config
    sections = {title: list(blocks(facts)) for title, blocks in _SECTIONS.items()}
    sections = {title: blocks for title, blocks in sections.items() if blocks}
    lines = [
        front_matter(facts),
        f"# Chest radiographs of {len(facts.run.class_names)} classes: {config.backbone}, sampler "
        f"{config.sampler}, seed {config.seed}",
        "Written by `python -m trainer.model_card` from the files of one training run. What only "
        f'its author can say is marked "{description.AUTHOR}".',
    ]
    for title, blocks in sections.items():
        lines += [f"## {title}", *blocks]
    lines += ["## Reporting guidelines", *checklists.checklists(sections)]
    return "\n\n".join(lines) + "\n"
