"""A study is a grid of runs, and a comparison says no more than its predictions hold."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.trainer import processes
from tests.trainer.fake_run import CLASSES, COUNTS, write_run
from trainer.comparison import compare_methods, method_grid, study_runs
from trainer.comparison.markdown_text import markdown
from trainer.comparison.methods import group_runs
from trainer.comparison.study_cells import Study
from trainer.comparison.text import change, with_interval
from trainer.comparison.verdict_text import headline, verdict_lines, warnings
from trainer.deployment import corrected_probabilities
from trainer.evaluation import metrics
from trainer.evaluation.predictions import (
    Predictions,
    compute_metrics,
    read_predictions,
    write_predictions,
)
from trainer.runs.finished_run import read_run
from trainer.runs.training_priors import training_priors


def read_entries(named):
    return group_runs([(name, read_run(path)) for name, path in named])


def write_study(folder, shifts, seeds=(0, 1, 2)):
    """Runs whose logits of the true class are raised by `shifts[method]`: better or worse."""
    named = []
    for method, shift in shifts.items():
        flags = dict(method_grid.parse_method(method).flags)
        for seed in seeds:
            path = write_run(folder / f"{method}-{seed}", seed=seed, **{"sampler": "none", **flags})
            config = files.read_json(os.path.join(path, "config.json"))
            for split in ("validation", "test"):
                name = os.path.join(path, f"predictions_{split}.csv")
                own = read_predictions(name)
                some = slice(None, None, 6)  # enough to tell methods apart, in seconds
                own = Predictions(own.ids[some], own.labels[some], own.logits[some])
                noise = np.random.default_rng([seed, len(method)]).normal(0, 0.3, own.logits.shape)
                logits = own.logits + noise + shift * np.eye(4)[own.labels]
                write_predictions(
                    name,
                    Predictions(own.ids, own.labels, logits.astype(np.float32)),
                    CLASSES,
                )
                config["dataset"]["counts"][split] = np.bincount(own.labels).tolist()
            files.write_json(os.path.join(path, "config.json"), config)
            named.append((method, path))
    return named


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    named = write_study(
        tmp_path_factory.mktemp("study"), {"none": 0, "oversample": 0.8, "focal": 0, "weighted": -1}
    )
    return compare_methods.compare(read_entries(named), reference="none", resamples=120)


def test_methods_are_samplers_losses_or_both():
    assert method_grid.parse_method("oversample").flags == {"sampler": "oversample"}
    both = method_grid.parse_method("undersample+focal").flags
    assert both == {"sampler": "undersample", "loss": "focal"}
    assert method_grid.parse_method("crt").decoupled == "crt"
    for name, message in (
        ("undersample+oversample", "sets --sampler twice"),
        ("smote", "--methods: 'smote' is not one of none, undersample"),
        ("oversampel+focal", "'oversampel' in 'oversampel.focal' .* did you mean oversample?"),
    ):
        with pytest.raises(UserError, match=message):
            method_grid.parse_method(name)


def test_a_runs_name_is_read_back_from_its_settings(tmp_path):
    names = ("none", "oversample", "logit_adjusted", "weighted+focal", "balanced_mixup")
    names += ("ldam_drw", "undersample+class_balanced_focal")
    for name in names:
        flags = dict(method_grid.parse_method(name).flags)
        for number in flags.keys() & {"mixup_alpha", "early_stopping_patience"}:
            flags[number] = float(flags[number])
        run = read_run(write_run(tmp_path / name, **{"sampler": "none"} | flags))
        assert method_grid.describe_method(run) == name


@pytest.mark.parametrize("base", ["none", "oversample"])
def test_a_decoupled_run_is_not_taken_for_its_base(tmp_path, base):
    run = read_run(write_run(tmp_path / base, sampler=base))
    told = {"method": "tau_norm", "from_config": run.config.to_json()}
    name = method_grid.describe_method(dataclasses.replace(run, decoupled=told))
    assert name == ("tau_norm" if base == "none" else "tau_norm of oversample")


def test_seeds_come_first_so_that_a_stopped_study_can_be_compared():
    cells = method_grid.make_grid(
        [method_grid.parse_method(n) for n in ("none", "focal")], [0, 1], ["tiny"]
    )
    assert [cell.name for cell in cells] == [
        *("tiny-none-seed0", "tiny-focal-seed0", "tiny-none-seed1", "tiny-focal-seed1"),
    ]


def test_means_over_seeds_are_those_of_the_runs_metrics(content):
    for entry in content["entries"].values():
        own = [
            compute_metrics(read_predictions(os.path.join(path, "predictions_test.csv")), CLASSES)
            for path in entry["runs"]
        ]
        for name in metrics.OVERALL:
            mean = np.mean([one[name] for one in own])
            assert entry["metrics"][name]["estimate"] == pytest.approx(mean)
            if name == "ece":
                assert entry["metrics"][name]["low"] is None
                continue
            assert entry["metrics"][name]["low"] < mean < entry["metrics"][name]["high"]
            assert name in ("log_loss", "brier") or entry["metrics"][name]["high"] <= 1


def test_the_better_the_worse_and_the_same_are_told_apart(content):
    lines = dict(line.split(": ", 1) for line in verdict_lines(content))
    assert ": better; Brier score" in lines["oversample"]
    assert ": better, after correction" in lines["oversample"]
    assert ": worse; Brier score" in lines["weighted"]
    assert ": inconclusive (could have seen " in lines["focal"]
    assert headline(content).startswith(
        "Balanced accuracy of 3 methods against none (margin 2.0 points): better: oversample; "
        "worse: weighted; inconclusive: focal. Raw probabilities are worse (Brier score) with "
    )
    differences = content["differences"]
    assert [test["seed"] for test in differences["oversample"]["mcnemar"]] == [0, 1, 2]
    assert all(test["p_value"] < 0.05 for test in differences["oversample"]["mcnemar"])
    assert differences["oversample"]["delong"]["COVID"][0]["p_value"] < 0.05
    for difference in differences.values():
        for one in difference["metrics"].values():
            assert one["p_value"] is None or one["p_holm"] >= one["p_value"]


@pytest.mark.slow
def test_a_wide_margin_makes_equivalent_what_is_shown_to_be_small(tmp_path):
    entries = read_entries(write_study(tmp_path, {"none": 0, "focal": 0}))
    content = compare_methods.compare(entries, reference="none", margin=0.2, resamples=60)
    assert content["differences"]["focal"]["verdict"]["balanced_accuracy"]["word"] == "equivalent"
    assert "equivalent: focal" in headline(content)


def test_one_seed_says_nothing_of_methods(tmp_path):
    entries = read_entries(write_study(tmp_path, {"none": 0, "oversample": 0.8}, seeds=(0,)))
    content = compare_methods.compare(entries, reference="none", resamples=60)
    assert headline(content).startswith("With one seed a method these are differences of trained")
    [line] = verdict_lines(content)
    assert "these two trained models differ (p < 0.001, uncorrected)" in line
    assert content["differences"]["oversample"]["verdict"]["brier"]["word"] is None


def test_different_seeds_are_said_and_not_paired(tmp_path):
    runs = write_study(tmp_path, {"none": 0, "oversample": 0.8})
    paired, unpaired = (
        compare_methods.compare(read_entries(some), reference="none", resamples=60)
        for some in (runs, [one for one in runs if one is not runs[-1]])
    )
    assert not any("same seeds" in line for line in warnings(paired))
    assert any("same seeds for all" in line for line in warnings(unpaired))
    for content in (paired, unpaired):
        one = content["differences"]["oversample"]
        assert one["metrics"]["log_loss"]["seeds"] == "random"
        assert one["verdict"]["balanced_accuracy"]["word"] == "better"


def test_images_in_groups_are_not_tested_one_by_one(tmp_path):
    named = write_study(tmp_path, {"none": 0, "focal": 0}, seeds=(0, 1))
    for _, path in named:
        name = os.path.join(path, "predictions_test.csv")
        own = read_predictions(name)
        groups = [str(i // 2) for i in range(len(own.ids))]
        write_predictions(name, dataclasses.replace(own, groups=groups), CLASSES)
    content = compare_methods.compare(read_entries(named), reference="none", resamples=100)
    assert "mcnemar" not in content["differences"]["focal"]
    assert "hold several images" in markdown(content)


@pytest.mark.slow
def test_corrected_probabilities_are_scored_at_the_shares_of_the_deployment(tmp_path):
    entries = read_entries(write_study(tmp_path, {"none": 0, "focal": 0}, seeds=(0, 1)))
    prior = (0.7, 0.1, 0.1, 0.1)
    plain, deployed = (
        compare_methods.compare(entries, reference="none", resamples=20, deploy_prior=p)
        for p in (None, prior)
    )
    one, other = (c["entries"]["none"]["probabilities"] for c in (plain, deployed))
    assert one["raw"]["brier"] == other["raw"]["brier"]
    test = entries[0].runs[0].predictions("test")
    shares = np.bincount(test.labels) / len(test.labels)
    recalls = [plain["entries"]["none"]["probabilities"]["raw"]["accuracy"]["estimate"]]
    assert other["prior_corrected"]["accuracy"]["estimate"] != pytest.approx(recalls[0])
    weights = np.array(prior)[test.labels] / shares[test.labels]
    by_seed = []
    for run in entries[0].runs:
        plan = corrected_probabilities.plan_deployment(run, prior)
        p = run.predictions("test")
        answer = plan.variants(p.log_probabilities)["prior_corrected"].argmax(1)
        by_seed.append(np.average(answer == p.labels, weights=weights))
    assert other["prior_corrected"]["accuracy"]["estimate"] == pytest.approx(np.mean(by_seed))


def test_every_number_of_the_page_is_in_the_json(content):
    page = markdown(json.loads(json.dumps(content)))
    for name, entry in content["entries"].items():
        accuracy = with_interval("accuracy", entry["metrics"]["accuracy"])
        assert f"| {name} |" in page
        assert accuracy in page
    for part in ("## Results", "## Probabilities", "## Tests by image", "## Budget"):
        assert part in page


def test_what_cannot_be_paired_is_refused(tmp_path):
    named = write_study(tmp_path, {"none": 0, "focal": 0}, seeds=(0,))
    with pytest.raises(UserError, match="are both none with seed 0"):
        read_entries([named[0], ("none", named[1][1])])
    entries = read_entries(named)
    with pytest.raises(UserError, match="--reference=all is not one of none, focal"):
        compare_methods.compare(entries, reference="all")
    path = os.path.join(named[1][1], "predictions_test.csv")
    own = read_predictions(path)
    other = Predictions(["other.png", *own.ids[1:]], own.labels, own.logits)
    write_predictions(path, other, CLASSES)
    with pytest.raises(UserError, match="was tested on other images"):
        compare_methods.compare(read_entries(named), reference="none")


def test_priors_are_those_that_the_probabilities_are_at(tmp_path):
    def priors(**settings):
        [entry] = group_runs([("m", read_run(write_run(tmp_path / str(settings), **settings)))])
        return training_priors(entry.runs[0])

    planned = np.array([7137, 7650, 6509, 6656])
    uniform = np.full(4, 0.25)
    np.testing.assert_allclose(priors(), planned / planned.sum())
    weighted = priors(loss="class_weighted")
    np.testing.assert_allclose(weighted / weighted.sum(), weighted)
    # The fake run's stream is oversampled: the loss balances a second time.
    natural = np.array([2379, 3825, 6509, 832])
    twice = planned / natural
    np.testing.assert_allclose(weighted, twice / twice.sum())
    np.testing.assert_allclose(priors(loss="balanced_softmax"), twice / twice.sum())
    half = planned / np.sqrt(natural)
    np.testing.assert_allclose(
        priors(loss="logit_adjusted", logit_adjustment_tau=0.5), half / half.sum()
    )
    assert not np.allclose(weighted, uniform)


def test_post_hoc_adjustment_takes_the_training_shares_off(tmp_path):
    run = read_run(write_run(tmp_path / "none", sampler="none", planned=COUNTS["train"]))
    natural = np.array(COUNTS["train"]) / sum(COUNTS["train"])
    told = {"method": "posthoc_logit_adjusted", "priors": natural.tolist()}
    for tau, expected in ((0.0, natural), (1.0, np.full(4, 0.25))):
        adjusted = dataclasses.replace(run, decoupled=told | {"tau": tau})
        np.testing.assert_allclose(training_priors(adjusted), expected)


def compare(*flags):
    return processes.run("trainer.compare", *map(str, flags))


@pytest.mark.slow
def test_a_study_from_the_command_line_is_trained_once_and_grows(tmp_path):
    data = write_dataset(tmp_path / "data", image_size=24)
    flags = [f"--data_dir={data.path}", f"--study_dir={tmp_path / 'study'}", "--epochs=2"]
    flags += ["--seeds=0", "--batch_size=8", "--resamples=100"]
    first = compare(*flags, "--methods=none,oversample")
    assert first.returncode == 0, first.stderr
    assert "2 runs, 0 of them finished already" in first.stdout
    content = json.loads((tmp_path / "study" / "comparison.json").read_text())
    updates = [entry["updates"] for entry in content["entries"].values()]
    assert updates == [[10], [10]]  # 44 training images: 5 steps of 8 in each of 2 epochs
    for other in ("--budget=epochs", "--epochs=3", "--learning_rate=0.01"):
        refused = compare(*flags, "--methods=none,oversample,class_weighted", other)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "holds runs that this command would not make" in refused.stderr
        assert not (tmp_path / "study" / "runs" / "tiny-class_weighted-seed0").exists()
    again = compare(*flags, "--methods=none,oversample,class_weighted")
    assert "3 runs, 2 of them finished already" in again.stdout
    assert "oversample: balanced accuracy" in again.stdout
    gathered = compare(f"--runs={tmp_path}/study/runs/*", f"--study_dir={tmp_path / 'other'}")
    assert gathered.returncode == 0, gathered.stderr
    other = json.loads((tmp_path / "other" / "comparison.json").read_text())
    assert other["entries"].keys() == {"none", "oversample", "class_weighted"}


@pytest.mark.slow
def test_mistakes_end_with_one_line(tmp_path):
    data = write_dataset(tmp_path / "data", image_size=24)
    base = [f"--data_dir={data.path}", f"--study_dir={tmp_path / 'study'}", "--seeds=0"]
    for flags, message in (
        (["--methods=none,smote"], "--methods: 'smote' is not one of"),
        (
            ["--methods=none,oversample", "--learning_rat=1"],
            "--learning_rat (did you mean --learning_rate",
        ),
        (["--methods=none,oversample", "--seed=1"], "--seed is set by the study"),
        (["--learning_rate", "fast"], "--learning_rate=fast: not a number"),
        (["--methods=crt"], "start from the run `none`"),
        (["--methods=none,none"], "each once"),
    ):
        found = compare(*base, *flags)
        assert found.returncode == 2
        assert message in found.stderr
        assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_a_run_that_diverges_fails_alone(tmp_path, monkeypatch, capsys):
    data = write_dataset(tmp_path / "data", image_size=24)
    study_dir = str(tmp_path / "study")
    methods = [
        method_grid.parse_method(name) for name in ("none", "posthoc_logit_adjusted", "weighted")
    ]
    common = [f"--data_dir={data.path}", "--batch_size=8", "--epochs=1", "--optimizer=sgd"]
    cells = method_grid.make_grid(methods, [0], ["tiny"])
    command = Study.command

    def diverging(study, cell):
        rate = ["--learning_rate=1e30"] if cell.method.name == "none" else []
        return [*command(study, cell), *rate]

    monkeypatch.setattr(Study, "command", diverging)
    outcome = study_runs.run_study(Study(study_dir, {None: data}, common, cells), cells, jobs=1)
    assert outcome.failed == ["tiny-none-seed0", "tiny-posthoc_logit_adjusted-seed0"]
    printed = capsys.readouterr().out
    assert "tiny-none-seed0: failed with exit code 3" in printed
    assert "NaN or infinite at step" in printed
    assert re.search(r"tiny-weighted-seed0: \d+ s$", printed, re.MULTILINE)


def test_a_change_that_rounds_to_nothing_has_no_minus():
    assert change("accuracy", -0.0004) == "+0.0"
    assert change("brier", -0.00004) == "+0.0000"
    assert change("accuracy", -0.012) == "-1.2"
