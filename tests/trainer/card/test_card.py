"""A model card says what the run's files say, shows names as they are, and lists what is open."""

import dataclasses
import json
import re

import numpy as np
import pytest

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.checks import seal
from cxr_tfrecords.errors import UserError
from tests.helpers import make_manifest
from tests.trainer import fake_run
from trainer.card import checklists, facts, write_card
from trainer.card.description import AUTHOR
from trainer.card.front_matter import METRICS
from trainer.comparison.text import number
from trainer.runs import same_run

COUNTS = {"train": [90, 200, 300, 30], "validation": [20, 40, 60, 12], "test": [20, 40, 60, 12]}
READING = {"image_size": 96, "channels": 1, "enhance": "none", "encoding": "png"}
SHARDS = [
    {
        "class": name,
        "split": split,
        "file": dataset_dir.shard_name(split, name.lower().replace(" ", "_"), 0, 1),
        "num_examples": count,
        "num_bytes": 9,
        "digest": "",
    }
    for split, counts in COUNTS.items()
    for name, count in zip(fake_run.CLASSES, counts, strict=True)
]
IMAGE = {"size": 96, "channels": 1, "encoding": "png"}
MANIFEST = make_manifest(fake_run.CLASSES, COUNTS, IMAGE, SHARDS)
MANIFEST |= {
    "split_proof": {
        "unit": "group",
        "groups": {"test": 101, "train": 602, "validation": 103},
        "groups_in_two_splits": 0,
    },
    "duplicates": {
        **MANIFEST["duplicates"],
        **{"images": 31, "num_groups": 15, "num_label_conflicts": 2},
    },
    "rejected": [{"file": name, "reason": ""} for name in "ab"],
}
NASTY = ["<img src=x onerror=alert(1)>", "a|b", "null", "`*_\n- c: 'd\" ünïcode"]


def _write_run(folder, **values):
    data = folder / "radio`graphs"
    data.mkdir()
    (data / "manifest.json").write_text(json.dumps(MANIFEST))
    dataset = {"path": str(data), "fingerprint": MANIFEST["fingerprint"], "reading": READING}
    path = fake_run.write_run(folder / "run", counts=COUNTS, dataset=dataset, **values)
    (folder / "run" / "model.keras").write_bytes(b"weights")
    return path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return _write_run(tmp_path_factory.mktemp("card"))


@pytest.fixture(scope="module")
def gathered(run_dir):
    return facts.gather(run_dir)


@pytest.fixture(scope="module")
def card(gathered):
    return write_card.render(gathered)


def _metadata(text):
    yaml = pytest.importorskip("yaml", reason="pyyaml comes with the extra dev")
    start, block, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(block)


def _section(text, title):
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_front_matter_holds_the_metrics_to_the_last_bit(card, gathered):
    content = _metadata(card)
    [model] = content["model-index"]
    [result] = model["results"]
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    test = gathered.run.metrics["test"]
    assert values == {title: test[key] for key, (_, title, _) in METRICS.items()}
    assert (content["library_name"], content["license"]) == ("keras", "other")
    assert content["pipeline_tag"] == result["task"]["type"] == "image-classification"
    assert result["dataset"]["name"] == "radio'graphs"
    assert "license" in card.split("---")[1].split("\n")[1]


def test_figures_of_the_test_split_are_those_of_the_metrics(card, gathered):
    results, test = _section(card, "Results on the test split"), gathered.run.metrics["test"]
    for title, metric in [
        ("accuracy", "accuracy"),
        ("macro F1", "macro_f1"),
        ("MCC", "mcc"),
        ("AUROC (macro)", "auroc_macro"),
        ("AUPRC (macro)", "auprc_macro"),
    ]:
        ends = gathered.ends[metric]
        shown = [number(metric, value) for value in (test[metric], ends.low, ends.high)]
        assert f"| {title} | {shown[0]} [{shown[1]}, {shown[2]}] |" in results
    for name, values in test["per_class"].items():
        assert f"| {values['support']} | {number('recall', values['recall'])} [" in results
        lines = "calibration_intercept", "calibration_slope"
        shown = " | ".join(f"{values[line]:.2f}" for line in lines)
        assert f"| {name} | {shown} |" in _section(card, "Probabilities")
    confusion = [" | ".join(map(str, row)) for row in test["confusion_matrix"]]
    assert all(f" | {row} |" in results for row in confusion)
    for output, scores in gathered.deployment["test"].items():
        cells = " | ".join(number(m, scores[m]) for m in ("brier", "ece", "log_loss"))
        assert f"| `{output}` | {cells} |" in card


def test_thresholds_and_sets_are_counted_on_the_test_split(card, gathered):
    test = gathered.run.predictions("test")
    [row] = re.findall(r"^\| COVID \| (0\.\d{4}) \| (\S+)% .*\| (\S+)% \[\S+ \S+ \|$", card, re.M)
    points = gathered.deployment["operating_points"]["thresholds"]
    sets = gathered.deployment["prediction_sets"]["thresholds"]
    of_class = test.probabilities[test.labels == 0, 0]
    shares = [100 * np.mean(of_class >= one["COVID"]) for one in (points, sets)]
    assert row == (f"{points['COVID']:.4f}", *(f"{share:.1f}" for share in shares))


def test_data_and_balancing_are_those_of_the_run(card):
    data = _section(card, "Data")
    assert "| COVID | 90 | 20 | 20 |" in data
    assert "train 602, validation 103, test 101; in two splits: 0." in data
    assert "31 images in 15 groups, 2 of them under several classes" in data
    assert "left out: 2." in data
    assert "Only training was balanced" in _section(card, "How the classes were balanced")


def test_names_are_shown_as_they_are_and_end_nothing(tmp_path):
    run = _write_run(tmp_path, class_names=NASTY)
    text = write_card.render(facts.gather(run))
    _metadata(text)
    body = re.sub(r"```.*?```", "", text.split("---\n", 2)[2], flags=re.DOTALL)
    assert "<" not in body
    for table in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table
    assert "\n- c:" not in body
    assert "a&#124;b" in body


def test_no_path_of_this_machine_is_in_the_card(card, run_dir):
    assert run_dir not in card
    assert "/radio" not in card


def test_what_a_run_lacks_leaves_no_heading(card, gathered):
    headings = re.findall(r"^## (.+)\n\n(.)", card, re.MULTILINE)
    assert {"Limits", "Data"} < {title for title, _ in headings}
    assert not [title for title, first in headings if first == "#"]
    for title in (checklists.UNLIKE, checklists.ELSEWHERE, checklists.SHORTCUTS):
        assert f"## {title}" not in card
    less = dataclasses.replace(gathered, manifest=None)
    assert "not in its place when this card was written" in write_card.render(less)


def test_other_results_get_their_sections(gathered):
    other = facts.Elsewhere(
        "On the test split of <b>, lower.", ["1 image | left out."], [["a"] * 4], [["b"] * 5]
    )
    more = dataclasses.replace(
        gathered, elsewhere=[other], shortcuts=["Shortcut likely."], detector=("knn", 132)
    )
    text = write_card.render(more)
    assert "**On the test split of &#60;b&#62;, lower.**" in text
    assert "**Shortcut likely.**" in text
    assert "132 validation images" in text
    assert "No other hospital" not in text
    assert f"[{checklists.ELSEWHERE}](#on-other-data-sets)" in text


def test_each_item_of_a_guideline_is_answered_or_left_to_the_author(card):
    reporting = _section(card, "Reporting guidelines")
    links = set(re.findall(r"\]\(#([\w-]+)\)", reporting))
    titles = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert links <= {checklists._anchor(title) for title in titles}
    for (source, topics, answers), size in zip(checklists.CHECKLISTS, (52, 44, 48), strict=True):
        assert len(topics) == size
        assert answers.keys() < topics.keys()
        part = reporting.split(f"### {source}\n", 1)[1].split("\n### ", 1)[0]
        rows, _, left = part.partition(f"{AUTHOR}: ")
        left_open = left.rstrip(".\n").split("; ")
        for item in (f"{item} {topic}" for item, topic in topics.items()):
            assert (f"| {item} | " in rows) != (item in left_open), item


def test_folders_of_another_run_are_refused(run_dir, tmp_path):
    for name, content, message in [
        ("evaluation", {"runs": [{"runs": ["/x/other"]}]}, "is of other runs (other)"),
        ("evaluation", {"runs": 3}, "run trainer.evaluate again"),
        ("shortcuts", {"run": "/x/other"}, "is of /x/other"),
        ("deployment", {"model_sha256": "0"}, "was not exported from the model of"),
    ]:
        (tmp_path / f"{name}.json").write_text(json.dumps(seal.sealed(content)))
        folders = {
            "evaluation": {"evaluations": [str(tmp_path)]},
            "shortcuts": {"shortcuts": str(tmp_path)},
            "deployment": {"export": str(tmp_path)},
        }
        with pytest.raises(UserError, match=re.escape(message)):
            facts.gather(run_dir, **folders[name])


def test_exported_files_are_used_by_themselves(run_dir, gathered, tmp_path):
    content = {**gathered.deployment, "files": {"keras": {"path": "model.keras"}}}
    assert content["model_sha256"] == same_run.hash_file(f"{run_dir}/model.keras")
    (tmp_path / "deployment.json").write_text(json.dumps(seal.sealed(content)))
    text = write_card.render(facts.gather(run_dir, str(tmp_path)))
    assert 'keras.models.load_model("model.keras")' in text
