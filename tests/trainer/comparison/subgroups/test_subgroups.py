"""A comparison by subgroup: the figures of its images alone, and nobody left out silently."""

import csv
import json

import numpy as np
import pytest
import scipy.stats

from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.trainer import fake_study, processes
from trainer.comparison.markdown_text import markdown
from trainer.comparison.page.page import render
from trainer.comparison.subgroups import figures, text
from trainer.comparison.subgroups.membership import NO_VALUE, read_subgroups
from trainer.evaluation import bootstrap
from trainer.evaluation.crossed_seeds import CrossedSeeds
from trainer.evaluation.inference import Inference
from trainer.evaluation.metrics import weighted_metrics
from trainer.evaluation.predictions import Predictions, compute_metrics

COUNTS = {**fake_study.COUNTS, "test": [40, 60, 80, 20]}  # 200 images, test-0.png by class


def write_table(path, rows, header=("FILE NAME", "Sex", "Site")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def rows():
    """A third of the images are of women. Image 0 has no sex, image 1 is not listed. Site A has the
    first class alone, site C has ten images."""
    for i in range(200):
        sex = "" if i == 0 else "FMM"[i % 3]
        if i != 1:
            yield f"test-{i}", sex, "A" if i < 40 else "B" if i < 190 else "C"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    paths = fake_study.write_study(folder, seeds=(0, 1, 2), counts=COUNTS)
    content, entries = fake_study.compare(paths, resamples=40)
    table = read_subgroups(write_table(folder / "table.csv", rows()), ["Sex", "Site"])
    content["subgroups"] = figures.compare_subgroups(entries, content, table)
    return content, entries


def _column(study, name):
    return study[0]["subgroups"]["columns"][name]["subgroups"]


def test_figures_are_those_of_the_images_of_the_subgroup(study):
    content, entries = study
    member = np.array([i % 3 == 0 and i > 0 for i in range(200)])
    women = _column(study, "Sex")["F"]
    assert (
        women["counts"]
        == np.bincount(entries[0].runs[0].predictions("test").labels[member]).tolist()
    )
    means = {}
    for entry in entries:
        own = []
        for run in entry.runs:
            test = run.predictions("test")
            ids = [one for one, is_in in zip(test.ids, member, strict=True) if is_in]
            part = Predictions(ids, test.labels[member], test.logits[member])
            own.append(compute_metrics(part, run.class_names))
        means[entry.name] = np.mean([one["balanced_accuracy"] for one in own])
        shown = women["entries"][entry.name]
        for name in content["class_names"]:
            recall = np.mean([one["per_class"][name]["recall"] for one in own])
            assert shown[f"recall/{name}"]["estimate"] == pytest.approx(recall)
        primary = shown["balanced_accuracy"]
        assert primary["estimate"] == pytest.approx(means[entry.name])
        assert primary["low"] < primary["estimate"] < primary["high"]
    for name, one in women["differences"].items():
        assert one["estimate"] == pytest.approx(means[name] - means["none"])
        assert one["low"] < one["estimate"] < one["high"]
    tests = [one for part in _column(study, "Sex").values() for one in part["differences"].values()]
    assert len(tests) == 4
    adjusted = bootstrap.holm([one["p_value"] for one in tests])
    assert [one["p_holm"] for one in tests] == adjusted
    assert women["rare_classes"] == {"COVID": 13, "Viral Pneumonia": 7}
    json.dumps(content, allow_nan=False)


def test_other_subgroups_are_compared_with_the_largest(study):
    sex = _column(study, "Sex")
    assert study[0]["subgroups"]["columns"]["Sex"]["largest"] == "M"
    values = {v: sex[v]["entries"]["none"]["balanced_accuracy"]["estimate"] for v in "FM"}
    gap = sex["F"]["to_largest"]
    assert gap["estimate"] == pytest.approx(values["F"] - values["M"])
    assert gap["low"] < gap["estimate"] < gap["high"]
    assert gap["p_holm"] == gap["p_value"]
    runs = [run.predictions("test") for run in study[1][0].runs]
    weights = bootstrap.group_weights(runs[0].ids, 40, 0)
    pair = []
    for value in "FM":
        at = [i for i in range(2, 200) if "FMM"[i % 3] == value]
        rows_by_seed = [
            weighted_metrics(run.labels[at], run.log_probabilities[at], weights[:, at], lines=False)
            for run in runs
        ]
        pair.append(np.stack([one.overall["balanced_accuracy"] for one in rows_by_seed]))
    # The smallest class of the women has 7 images.
    expected = CrossedSeeds(pair, [(0, 1, 2)] * 2, groups=7).difference(0, 1).interval()
    assert (gap["low"], gap["high"]) == pytest.approx((expected.low, expected.high))
    assert sex["M"]["to_largest"] is None


def test_images_without_a_value_are_counted_and_shown(study):
    content = study[0]
    sex, site = _column(study, "Sex"), _column(study, "Site")
    assert list(sex) == ["F", "M", NO_VALUE]
    assert [one["images"] for one in sex.values()] == [66, 132, 2]
    assert sum(one["images"] for one in site.values()) == 200
    assert content["subgroups"]["columns"]["Sex"]["not_listed"] == 1
    notes = list(text.notes(content, "Sex"))
    assert notes[0].startswith(
        "2 of 200 test images have no value, 1 of them because the table does not list them"
    )
    assert sex[NO_VALUE]["entries"] == {}
    assert [NO_VALUE, "2", "2", "–", "–"] in text.largest_rows(content, "Sex")
    assert notes[1] == f"{NO_VALUE}: 2 groups of images are too few for figures."


def test_a_subgroup_without_a_class_has_no_mean_over_classes_and_is_not_compared(study):
    content = study[0]
    site = _column(study, "Site")
    assert site["A"]["missing_classes"] == ["Lung_Opacity", "Normal", "Viral Pneumonia"]
    assert "balanced_accuracy" not in site["A"]["entries"]["none"]
    assert site["A"]["entries"]["none"]["recall/COVID"]["estimate"] > 0
    assert site["A"]["entries"]["none"]["recall/Normal"]["estimate"] is None
    assert site["A"]["differences"]["oversample"]["estimate"] is not None
    assert all(one["to_largest"] is None for one in site.values())
    notes = " ".join(text.notes(content, "Site"))
    assert "A has no image of Lung_Opacity, Normal, Viral Pneumonia." in notes
    assert "C: 10 groups of images are too few for figures." in notes
    assert "No subgroup has images of all classes" in notes
    first = text.rows(content, "Site")[0]
    assert first[:3] == ["A", "none", "–"]
    assert first[-3:] == ["–", "–", "–"]


@pytest.mark.usefixtures("undrawn")
def test_text_and_page_have_a_section_and_the_checklist_says_so(study, tmp_path):
    content, entries = study
    page = render(content, entries, gallery=False)
    own = text.markdown(content)
    assert "\n## Subgroups\n" in own
    assert "| * F | 66 | 66 | " in own
    assert "* 100.0% [" in own or "* 9" in own
    assert '<section id="subgroups">' in page
    assert page.count('id="picture-subgroups-') == 1  # no site has all classes
    assert "balanced accuracy and recall by Sex (F, M, (no value)); Site (A, B, C, " in page
    bare = {name: value for name, value in content.items() if name != "subgroups"}
    assert text.markdown(bare) == ""
    assert "Subgroups" not in markdown(bare) + render(bare, entries, gallery=False)


def test_columns_of_numbers_are_in_order_and_too_many_values_are_refused(tmp_path):
    ids = [f"test-{i}.png" for i in range(200)]

    def read(values):
        path = write_table(tmp_path / "t.csv", zip(ids, values, strict=True), ("path", "age"))
        table = read_subgroups(path, ["age"])
        return table.values("age", table.find(ids))

    assert sorted(set(read(["9", "60", "100", "x", ""] * 40)), key=figures._order) == [
        *("9", "60", "100", "x", NO_VALUE)
    ]
    with pytest.raises(UserError, match=r"--subgroup_column=age .*t\.csv has 25 .*0-39, 40-64"):
        read(list(map(str, range(25))) * 8)
    with pytest.raises(UserError, match="the same value for all test images, 60"):
        read(["60"] * 200)


def test_a_table_that_does_not_fit_is_one_line(tmp_path):
    ids = ["a/1.png", "b/1.png", "b/2.png"]

    def find(*rows, key=""):
        path = write_table(tmp_path / "t.csv", rows, ("path", "sex"))
        return read_subgroups(path, ["sex"], key).find(ids)

    assert find(("2", "F"), ("a/1.png", "M")) == ["a/1.png", None, "2"]
    with pytest.raises(
        UserError, match=r"t\.csv names none of the 3 test images: it has 'x', .*key"
    ):
        find(("x", "F"))
    with pytest.raises(UserError, match=r"'1' may be a/1.png or b/1.png: name files by their path"):
        find(("1", "F"))
    with pytest.raises(UserError, match=r"line 3: 2 has other values in line 2"):
        find(("2", "F"), ("2", "M"))
    with pytest.raises(UserError, match=r"line 2: no file name.* called image; it has path, sex"):
        find(("2", "F"), key="image")
    for given in (("t.csv", [], ""), ("", ["sex"], ""), ("", [], "path")):
        with pytest.raises(UserError, match="give both"):
            read_subgroups(*given)
    assert read_subgroups("", []) is None


@pytest.mark.slow
def test_the_command_shows_subgroups(tmp_path):
    paths = fake_study.write_study(tmp_path, seeds=(0,), counts=COUNTS)
    table = write_table(tmp_path / "t.csv", rows(), ("name", "Sex", "Site"))
    flags = [f"--runs={','.join(paths[:2])}", f"--study_dir={tmp_path}", "--resamples=100"]
    flags += [f"--subgroup_csv={table}", "--subgroup_column=Sex,Site", "--subgroup_key=name"]
    done = processes.run("trainer.compare", *flags)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["subgroups"]["columns"].keys() == {"Sex", "Site"}
    assert (
        content["subgroups"]["columns"]["Sex"]["subgroups"]["F"]["to_largest"]["seeds"] == "fixed"
    )
    assert "\n## Subgroups\n" in (tmp_path / "comparison.md").read_text()


def test_a_study_refuses_a_table_of_other_images_before_it_trains(tmp_path):
    plain = write_dataset(tmp_path / "data", image_size=24)
    counts = {f"fold{k}": (2, 2, 2, 2) for k in range(3)}
    folds = write_dataset(tmp_path / "folds", counts, image_size=24)

    def refused(data, *rows_of_table, flags=()):
        table = write_table(tmp_path / "t.csv", rows_of_table, ("path", "sex"))
        flags = [f"--data_dir={data.path}", f"--study_dir={tmp_path / 'study'}", *flags]
        flags += ["--batch_size=4", f"--subgroup_csv={table}", "--subgroup_column=sex"]
        done = processes.run("trainer.compare", *flags)
        assert done.returncode == 2, done.stdout
        assert not (tmp_path / "study").exists()
        return done.stderr

    none = refused(plain, ("COVID/train-0.png", "F"))
    assert "names none of the 17 test images" in none
    assert "has the same value for all test images, (no value)" in refused(
        plain, ("COVID/test-0.png", "")
    )
    assert "'fold1-0' may be COVID/fold1-0.png or" in refused(
        folds, ("fold1-0", "F"), ("COVID/fold0-0.png", "M"), flags=["--folds"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("smallest", [15, 5])
def test_intervals_hold_in_simulated_subgroups(smallest):
    """Three seeds, which differ by 3 points in all subgroups and by 3 between them; images in
    groups of two; recall of 75% in each class of three."""
    sizes = ((120, 80, 50), (40, 25, smallest))  # groups of each class, by subgroup
    covered = {"difference": 0, "subgroup": 0}
    repetitions = 150
    for number in range(repetitions):
        parts = _simulate(sizes, np.random.default_rng([3, number]))
        content = {
            "primary": "balanced_accuracy",
            "reference": "none",
            "entries": {"none": {"seeds": [0, 1, 2]}},
        }
        figures._add_to_largest(parts, "0", content)
        gap = parts["1"].described["to_largest"]
        covered["difference"] += gap["low"] <= 0 <= gap["high"]
        one = parts["1"]
        study = one.inference.study("balanced_accuracy", [one.values["none"]["balanced_accuracy"]])
        interval = one.inference.mean("balanced_accuracy", study.mean(0))
        covered["subgroup"] += interval.low <= 0.75 <= interval.high
    print({name: count / repetitions for name, count in covered.items()})
    least = 0.93 - 3.5 * (0.93 * 0.07 / repetitions) ** 0.5
    assert all(count / repetitions > least for count in covered.values())


def _simulate(sizes, rng):
    """Subgroups of one method, whose true recall is 75% for all classes."""
    seeds, spread, seed_spread = 3, np.hypot(1, 0.55), 0.107  # 3 points of accuracy
    group_of = np.repeat(np.arange(np.sum(sizes)), 2)
    subgroup = np.repeat(np.arange(len(sizes)), np.sum(sizes, axis=1))[group_of]
    labels = np.repeat(np.tile(np.arange(3), len(sizes)), np.ravel(sizes))[group_of]
    mean = scipy.stats.norm.ppf(0.75) * np.sqrt(spread**2 + 2 * seed_spread**2)
    models = rng.normal(0, seed_spread, (seeds, 1))
    models = models + rng.normal(0, seed_spread, (seeds, len(sizes)))[:, subgroup]
    images = rng.normal(0, 1, group_of[-1] + 1)[group_of]
    right = mean + models + images + rng.normal(0, 0.55, (seeds, len(labels))) > 0
    weights = bootstrap.group_weights(group_of, 300, int(rng.integers(2**31)))
    parts = {}
    for value in range(len(sizes)):
        recalls = []
        for c in range(3):
            member = (subgroup == value) & (labels == c)
            count = weights[:, member].sum(axis=1)
            with np.errstate(invalid="ignore"):
                recalls.append(right[:, member] @ weights[:, member].T / count)
        member = subgroup == value
        groups = [str(one) for one in group_of[member]]
        test = Predictions(groups, labels[member], np.zeros((member.sum(), 3)), groups)
        parts[str(value)] = figures._Subgroup(
            {"missing_classes": []},
            Inference(test, ["a", "b", "c"], [(0, 1, 2)]),
            {"none": {"balanced_accuracy": np.mean(recalls, axis=0)}},
        )
    return parts
