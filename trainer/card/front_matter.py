"""The YAML block at the top of a card, by which the Hugging Face Hub finds and lists a model.

Its keys are those of the Hub's model card metadata (huggingface/hub-docs, modelcard.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from trainer.card.facts import Facts

# Key of metrics.json -> the Hub's id, the title, and arguments of the metric.
METRICS: dict[str, tuple[str, str, dict[str, str]]] = {
    "accuracy": ("accuracy", "accuracy", {}),
    "balanced_accuracy": ("recall", "balanced accuracy (mean recall)", {"average": "macro"}),
    "macro_f1": ("f1", "macro F1", {"average": "macro"}),
    "mcc": ("matthews_correlation", "MCC", {}),
    "auroc_macro": ("roc_auc", "AUROC, mean over classes", {"multi_class": "ovr"}),
    "brier": ("brier_score", "Brier score, 0 to 2", {}),
}
_PLAIN = re.compile(r"[A-Za-z][\w./-]*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")  # not text in YAML 1.1


def front_matter(facts: Facts) -> str:
    """The block with its two rules. Values from data are quoted as JSON strings, which are YAML."""
    run = facts.run
    test = run.metrics["test"]
    results = [
        {"type": kind, "name": title, "value": test[key], **({"args": args} if args else {})}
        for key, (kind, title, args) in METRICS.items()
        if test[key] is not None
    ]
    content = {
        "license": "other",
        "license_name": "to-be-chosen-by-the-author",
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["chest-x-ray", "medical-imaging", "class-imbalance", run.config.backbone],
        "metrics": sorted({kind for kind, _, _ in METRICS.values()}),
        "model-index": [
            {
                "name": f"{run.config.backbone}-{run.config.sampler}-seed{run.config.seed}",
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image Classification"},
                        "dataset": {
                            "type": "imagefolder",
                            "name": run.dataset["path"],
                            "split": "test",
                            "args": {"fingerprint": run.dataset["fingerprint"]},
                        },
                        "metrics": results,
                    }
                ],
            }
        ],
    }
    author = (
        "# To be answered by the author: the license, of the weights and of the data behind them."
    )
    return "\n".join(["---", author, *_lines(content), "---"])


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    pairs = value.items() if isinstance(value, dict) else (("-", one) for one in value)
    for key, one in pairs:
        start = f"{indent}{key}" if key == "-" else f"{indent}{key}:"
        if not isinstance(one, dict | list):
            yield f"{start} {_scalar(one)}"
        elif key == "-":  # the first line of an item stands behind its dash
            first, *more = _lines(one, indent + "  ")
            yield f"{start} {first.lstrip()}"
            yield from more
        else:
            yield start
            yield from _lines(one, indent + "  ")


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, allow_nan=False)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    printable = "".join(c if c.isprintable() else " " for c in value)
    return json.dumps(printable, ensure_ascii=False)
