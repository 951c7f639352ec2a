"""The rules of the verdict, one by one."""

import pytest

from trainer.audit import verdict

CLASSES = ["COVID", "Normal"]
METRICS = ("balanced_accuracy", "accuracy", "auroc_macro", "auroc/COVID", "auroc/Normal")


def figure(estimate, reach=0.03, chance=0.5):
    return {
        "estimate": estimate,
        "low": estimate - reach,
        "high": estimate + reach,
        "chance": chance,
        "kept": (estimate - chance) / 0.4,
    }


def content(empty=(), rare=(), source="data_set", **figures):
    """Chance everywhere except 0.9 on whole images and where (metric, estimate, reach) is given."""
    conditions = {}
    names = ("image", "no_lungs", "no_box", "border", "only_lungs", "lung_outline", "blurred")
    for name in (*names, "shuffled", "file_facts_without_size"):
        base = 0.9 if name in ("image", "only_lungs") else 0.5
        conditions[name] = {metric: figure(base) for metric in METRICS}
        if name in figures:
            metric, *numbers = figures[name]
            conditions[name][metric] = figure(*numbers)
    return {
        "class_names": CLASSES,
        "rare_classes": list(rare),
        "empty": dict.fromkeys(empty, 1.0),
        "conditions": conditions,
        "mask_source": source,
        "left_out": 0,
        "files_unchecked": "",
    }


BALANCED = "balanced_accuracy"


@pytest.mark.parametrize(
    ("level", "start", "given"),
    [
        ("none", "No shortcut was seen: ", {}),
        ("unknown", "Nothing can be said: ", {"image": (BALANCED, 0.6, 0.2)}),
        ("likely", "with a rectangle over the lungs", {"no_box": (BALANCED, 0.71)}),
        ("likely", "from the outer 10% of the images", {"border": (BALANCED, 0.72)}),
        ("likely", "an AUROC for COVID of 80", {"border": ("auroc/COVID", 0.8)}),
        ("possible", "with a rectangle", {"no_box": (BALANCED, 0.69)}),
        ("possible", "with the lungs covered", {"no_lungs": (BALANCED, 0.85)}),
        ("possible", "The outline of the lungs may", {"lung_outline": (BALANCED, 0.85)}),
        ("possible", "format and size", {"file_facts_without_size": (BALANCED, 0.8)}),
        ("none", "near chance", {"border": (BALANCED, 0.6, 0.11)}),
        ("none", "near chance", {"border": (BALANCED, 0.54, 0.01)}),
        ("none", "near chance", {"border": ("auroc/COVID", 0.6)}),
        ("none", "near chance", {"border": ("auroc/COVID", 0.8), "rare": ["COVID"]}),
        ("none", "from the outline", {"border": (BALANCED, 0.8), "empty": ("border",)}),
    ],
)
def test_each_rule(level, start, given):
    made = content(**given)
    if level == "unknown":
        made["conditions"]["image"]["auroc_macro"] = figure(0.52)
    if "empty" in given:
        made["empty"] |= {"no_box": 1.0, "no_lungs": 1.0}
    judged = verdict.judge(made)
    assert judged["level"] == level
    assert start.replace("80", "0.8000") in judged["text"][0]


def test_notes_say_what_a_low_figure_does_not_prove():
    made = content(only_lungs=(BALANCED, 0.55), blurred=(BALANCED, 0.8), empty=("no_box",))
    said = " ".join(verdict.notes(made))
    assert "images with covered parts are too strange to it" in said
    assert "Blurred to 8 × 8 pixels: the model still reaches 80.0%" in said
    assert "which say nothing here: a rectangle over the lungs" in said
    assert list(verdict.notes(content())) == []
