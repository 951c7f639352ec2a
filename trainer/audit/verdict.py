"""The verdict: rules that were written before any figure was seen, and their words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.audit.conditions import (
    BLURRED,
    BORDER,
    NO_BOX,
    NO_LUNGS,
    ONLY_LUNGS,
    ONLY_MIDDLE,
    OUTLINE,
    SHUFFLED,
    TITLES,
    WHOLE,
)
from trainer.audit.file_facts import WITHOUT_SIZE
from trainer.comparison.text import number, with_interval

LIKELY, POSSIBLE, NONE, UNKNOWN = "likely", "possible", "none", "unknown"
# Less than this above chance is not worth a warning.
MARGIN = 0.05
# A shortcut is likely if this much of what the model knows is there without the lungs.
KEPT = 0.5
# Here nothing of the lungs is left but where their rectangle is; in the next ones their outline is.
WITHOUT_LUNGS = (NO_BOX, BORDER)
WITH_OUTLINE = (NO_LUNGS, OUTLINE)
_OVERALL = ("balanced_accuracy", "auroc_macro")
_PHRASES = {
    NO_BOX: "with a rectangle over the lungs",
    BORDER: "from the outer 10% of the images, without lungs,",
    NO_LUNGS: "with the lungs covered",
    OUTLINE: "from the outline of the lungs",
}
NEARLY_ALL = 0.99


def is_above(figure: Mapping[str, Any]) -> bool:
    """Whether a figure is above chance: its interval is, and it is by `MARGIN`."""
    low, chance = figure["low"], figure["chance"]
    return low is not None and low > chance and figure["estimate"] - chance >= MARGIN


def judge(content: Mapping[str, Any]) -> dict[str, Any]:
    """`level`, one of the four above, and `text`: sentences, the most important one first."""
    figures = content["conditions"]
    whole = figures[WHOLE]
    if not any(is_above(whole[metric]) for metric in _OVERALL):
        shown = with_interval("balanced_accuracy", whole["balanced_accuracy"])
        return {
            "level": UNKNOWN,
            "text": [
                "Nothing can be said: the model is not shown to be better than chance on whole "
                f"images (balanced accuracy {shown}, chance is "
                f"{number('balanced_accuracy', whole['balanced_accuracy']['chance'])})."
            ],
        }
    likely = _strongest(content, WITHOUT_LUNGS, KEPT)
    possible = _strongest(content, (*WITHOUT_LUNGS, *WITH_OUTLINE), 0.0)
    if likely:
        level, text = LIKELY, [f"Shortcut likely: {_sentence(content, *likely)}"]
    elif possible:
        level, text = POSSIBLE, [f"Shortcut possible: {_sentence(content, *possible)}"]
    elif _files_tell(content):
        level, text = POSSIBLE, [f"Shortcut possible: {_of_files(content)}"]
    else:
        level, text = NONE, [f"No shortcut was seen: {_nothing(content)}"]
    if level in (LIKELY, POSSIBLE) and (likely or possible) and _files_tell(content):
        text.append(_upper(_of_files(content)))
    return {"level": level, "text": text}


def shown_conditions(content: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """Those that were shown and left something to see."""
    return [
        name
        for name in names
        if name in content["conditions"] and content["empty"].get(name, 0) < NEARLY_ALL
    ]


def _strongest(
    content: Mapping[str, Any], names: tuple[str, ...], kept: float
) -> tuple[str, str] | None:
    """Condition and metric that keep most, of those that are above chance: of balanced accuracy and
    AUROC or, if there are none, of the AUROC of single classes.

    Single classes, the rare ones left out, count only where `kept` asks for more than being above
    chance: so many figures would else give a false alarm too often.
    """
    by_class = [
        f"auroc/{name}" for name in content["class_names"] if name not in content["rare_classes"]
    ]
    for metrics in (_OVERALL, by_class if kept else ()):
        signs = []
        for name in shown_conditions(content, names):
            for metric in metrics:
                figure = content["conditions"][name][metric]
                if is_above(figure) and (figure["kept"] or 0) >= kept:
                    signs.append((figure["kept"] or 0, name, metric))
        if signs:
            _, name, metric = max(signs)
            return name, metric
    return None


def _sentence(content: Mapping[str, Any], name: str, metric: str) -> str:
    """Both overall metrics in a condition, or one of a class."""
    _, _, class_name = metric.partition("/")
    one, whole = (content["conditions"][c] for c in (name, WHOLE))
    if class_name:
        titles = {metric: f"an AUROC for {class_name}"}
    else:
        titles = {"balanced_accuracy": "a balanced accuracy", "auroc_macro": "an AUROC"}
    parts = [
        f"{title} of {with_interval(m, one[m])} ({number(m, whole[m]['estimate'])} on whole "
        f"images, {number(m, one[m]['chance'])} by chance)"
        for m, title in titles.items()
    ]
    text = f"{_PHRASES[name]} the model still reaches {' and '.join(parts)}."
    if name in WITH_OUTLINE:
        text += (
            " The outline of the lungs may be a sign of disease, or of how the images were made or "
            "their lungs found."
        )
    return text


def _files_tell(content: Mapping[str, Any]) -> bool:
    one = content["conditions"].get(WITHOUT_SIZE)
    return bool(one) and is_above(one["balanced_accuracy"])


def _of_files(content: Mapping[str, Any]) -> str:
    one = content["conditions"][WITHOUT_SIZE]["balanced_accuracy"]
    return (
        "format and size in pixels of the files alone tell the class with a balanced accuracy of "
        f"{with_interval('balanced_accuracy', one)}; a model may see their traces in the pixels."
    )


def _nothing(content: Mapping[str, Any]) -> str:
    names = shown_conditions(content, (*WITHOUT_LUNGS, *WITH_OUTLINE))
    if not names:
        return "nothing outside the lungs is left in these images."
    worst = max(
        names,
        key=lambda name: content["conditions"][name]["balanced_accuracy"]["estimate"],
    )
    one, whole = (content["conditions"][c]["balanced_accuracy"] for c in (worst, WHOLE))
    return (
        f"{_PHRASES[worst]} balanced accuracy is {with_interval('balanced_accuracy', one)}, near "
        f"chance, which is {number('balanced_accuracy', one['chance'])}; on whole images it is "
        f"{number('balanced_accuracy', whole['estimate'])}."
    )


def notes(content: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know before the figures."""
    figures = content["conditions"]
    source = content["mask_source"]
    if source == "box":
        yield (
            "Where the lungs are is not known, so only the outer 10% of the images was looked at "
            "alone, and a little of the lungs may lie there. A shortcut nearer to the middle "
            "cannot be seen: build the data set with --with_masks, or name a --segmenter."
        )
    if source == "segmenter":
        yield (
            "The lungs were found by a segmenter. Where it is wrong, parts of the lungs are left: "
            "look at the pictures."
        )
    empty = [n for n in (*WITHOUT_LUNGS, NO_LUNGS) if content["empty"].get(n, 0) >= NEARLY_ALL]
    if empty:
        shown = "; ".join(TITLES[name] for name in empty)
        yield (
            f"Nothing is left to see in these conditions, which say nothing here: {shown}. The "
            "images are black around the lungs, so that only their outline can be looked at."
        )
    if content["left_out"]:
        yield f"{content['left_out']:,} images were left out because no lungs were found in them."
    for name in (ONLY_LUNGS, ONLY_MIDDLE):
        if name in figures and _kept(figures[name]) < KEPT:
            shown = with_interval("balanced_accuracy", figures[name]["balanced_accuracy"])
            yield (
                f"{_upper(TITLES[name])}: the model reaches {shown}. It needs what was taken away, "
                "or images with covered parts are too strange to it. In the second case a low "
                "figure of the other conditions proves little."
            )
    for name, words in (
        (BLURRED, "Exposure, size and position of the patient are left there."),
        (SHUFFLED, "Texture and marks are left there; where they are is lost."),
    ):
        if is_above(figures[name]["balanced_accuracy"]) and _kept(figures[name]) >= KEPT:
            yield (
                f"{_upper(TITLES[name])}: the model still reaches "
                f"{with_interval('balanced_accuracy', figures[name]['balanced_accuracy'])}. {words}"
            )
    if content["files_unchecked"]:
        yield f"The files alone were not tested: {content['files_unchecked']}."


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _kept(one: Mapping[str, Any]) -> float:
    kept = one["balanced_accuracy"]["kept"]
    return 1.0 if kept is None else kept
