"""Tuning gives each method the same number of tries, and validation alone chooses among them."""

import dataclasses
import json
import os
import shutil
import sys

import pytest

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.trainer import processes
from tests.trainer.fake_study import decouple_cell, finish_cell
from trainer.balancing.loss_table import LOSSES
from trainer.balancing.sampler_table import SAMPLERS
from trainer.comparison import method_grid, study_checks, study_runs, tuning
from trainer.comparison.study_cells import Study
from trainer.comparison.verdict_text import warnings

METHODS = ("none", "focal", "posthoc_logit_adjusted")
COMMON = ["--epochs=2", "--batch_size=8", "--monitor=validation_balanced_accuracy"]
COMMON += ["--steps_per_epoch=5", "--early_stopping_patience=0", "--reduce_lr_patience=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), image_size=24)


def make_study(folder, data, *flags, methods=METHODS, seeds=(0, 1)):
    parsed = [method_grid.parse_method(name) for name in methods]
    cells = method_grid.make_grid(parsed, seeds, ["tiny"])
    return Study(str(folder), {None: data}, [f"--data_dir={data.path}", *COMMON, *flags], cells)


def finish_try(tries, cell, validation, test=0.5):
    """Writes the run of a try, with these balanced accuracies."""
    path = os.path.join(finish_cell(tries, cell), "metrics.json")
    content = files.read_json(path)
    for split, value in (("validation", validation), ("test", test)):
        content[split]["balanced_accuracy"] = value
    files.write_json(path, content)


def finish_tries(study, scores):
    """scores: method -> balanced accuracy on validation of each try; None: it failed."""
    tries = tuning.make_tries(study, len(next(iter(scores.values()))))
    for cell in tries.cells:
        if (score := scores[cell.method.name][cell.draw]) is not None:
            finish_try(tries, cell, score, test=1 - score)
    return tries


def test_every_method_has_tries_that_can_be_trained(tmp_path, data):
    names = [*SAMPLERS, *(name for name in LOSSES if name != "cross_entropy"), "balanced_mixup"]
    tries = tuning.make_tries(make_study(tmp_path, data, methods=names), 6)
    assert len(tries.cells) == 6 * len(names)  # one seed, whatever the study's
    assert {cell.seed for cell in tries.cells} == {tuning.SEED}
    rates = [set() for _ in range(6)]
    for cell in tries.cells:
        config = tries.config(cell)  # refuses values that do not fit the method
        rates[cell.draw].add(config.learning_rate)
        assert 1e-4 <= config.learning_rate <= 1e-2
    assert [len(one) for one in rates] == [1] * 6
    assert len(set.union(*rates)) == 6

    def parameters(name):
        return set().union(*(tries.values[c] for c in tries.cells if c.method.name == name))

    rate = {"learning_rate"}
    assert parameters("none") == parameters("balanced_softmax") == rate
    assert parameters("weighted") == rate | {"balance_power"}
    assert parameters("balanced_mixup") == rate | {"mixup_alpha"}
    assert parameters("ldam_drw") == rate | {"ldam_max_margin", "effective_number_beta"}
    assert parameters("class_balanced_focal") == rate | {"focal_gamma", "effective_number_beta"}


def test_tries_are_the_same_whatever_their_number_and_start_at_the_users_values(tmp_path, data):
    study = make_study(tmp_path, data, "--learning_rate=0.01", "--focal_gamma=3")
    few, many = (tuning.make_tries(study, count) for count in (2, 5))
    assert few.values.items() <= many.values.items()
    first = [c for c in few.cells if c.draw == 0]
    assert [few.config(c).learning_rate for c in first] == [0.01, 0.01]
    assert few.config(first[1]).focal_gamma == 3
    assert few.run_dir(first[1]).endswith("tuning/tiny-focal-try0-seed1000")


def test_validation_alone_chooses(tmp_path, data):
    study = make_study(tmp_path, data)
    tries = finish_tries(study, {"none": (0.6, 0.7, 0.7), "focal": (0.8, None, 0.5)})
    chosen, tuned = tuning.choose(study, tries, "balanced_accuracy")
    assert [one.best for one in tuned] == [1, 0]  # the test split says the opposite
    none = [c for c in study.cells if c.method.name == "none"]
    assert {chosen.config(c).learning_rate for c in none} == {tuned[0].values[1]["learning_rate"]}
    assert all(chosen.config(c) == study.config(c) for c in study.cells if c.method.name == "focal")
    # A decoupled method starts from the tuned run.
    posthoc = next(c for c in study.cells if c.method.decoupled)
    assert chosen.config(posthoc) == chosen.config(none[0])
    none_left = tuning.make_tries(make_study(tmp_path / "new", data), 2)
    assert [one.best for one in tuning.choose(study, none_left, "mcc")[1]] == [0, 0]


def test_runs_without_tuning_or_of_other_tries_are_refused_before_training(tmp_path, data):
    study = make_study(tmp_path, data)
    with pytest.raises(UserError, match="--tune=1 tries the defaults alone: give 2 or more"):
        tune(study, 1)
    with pytest.raises(UserError, match="--seeds: 1000 is the seed of --tune's runs"):
        tune(make_study(tmp_path, data, seeds=(0, 1000)), 2)
    finish_cell(study, study.cells[0])
    with pytest.raises(UserError, match=r"none-seed0 was trained without tuning: leave --tune"):
        tune(study, 2)
    finish_cell(study, study.cells[0], learning_rate=0.5)
    finish_tries(study, {"none": (0.6, 0.7), "focal": (0.6, 0.7)})
    with pytest.raises(UserError, match=r"--learning_rate: 0.5 there, 0.001 here \(tiny-none-se"):
        tune(study, 2)
    shutil.rmtree(study.run_dir(study.cells[0]))
    with pytest.raises(
        UserError, match=r"holds runs .*\n.*epochs: 2 there, 3 here \(tiny-none-try0"
    ):
        tune(make_study(tmp_path, data, "--epochs=3"), 2)


def test_another_number_of_tries_is_refused_once_it_has_chosen(tmp_path, data, monkeypatch):
    study = make_study(tmp_path, data)
    tries = finish_tries(study, {"none": (0.6, 0.7, 0.7), "focal": (0.8, 0.6, 0.5)})
    monkeypatch.setattr(tuning.study_runs, "run_study", None)  # nothing may be trained
    chosen, _ = tuning.choose(study, tries, "balanced_accuracy")
    finish_cell(chosen, chosen.cells[0])
    for count in (2, 4):
        with pytest.raises(UserError, match=rf"^--tune={count}: .*none-seed0 was .* after 3 tries"):
            tune(study, count)
    # A try that failed early has left its log alone, and counts.
    shutil.rmtree(tries.run_dir(tries.cells[2]))
    open(tries.log(tries.cells[2]), "w").close()
    with pytest.raises(UserError, match="give --tune=3, or name another"):
        tune(study, 4)


class Diverging(Study):
    """A study whose runs all diverge at once."""

    def command(self, cell):
        code = "import os, sys; os.makedirs(sys.argv[1]); print('error: NaN'); sys.exit(3)"
        return [sys.executable, "-c", code, self.run_dir(cell)]


def test_a_try_that_diverged_is_a_result_and_never_chosen(tmp_path, data, capsys):
    study = make_study(tmp_path, data, methods=("focal",))
    tries = tuning.make_tries(study, 2)
    finish_try(tries, tries.cells[1], 0.1)
    shown = Diverging(**{f.name: getattr(tries, f.name) for f in dataclasses.fields(tries)})
    outcome = study_runs.run_study(shown, tries.cells, jobs=1)
    assert outcome.failed == ["tiny-focal-try0-seed1000"]
    assert tries.has_diverged(tries.cells[0])
    assert study_runs.run_study(shown, tries.cells, jobs=1).failed == []  # not trained again
    assert "2 runs, 2 of them finished already" in capsys.readouterr().out
    _, [tuned] = tuning.choose(study, tries, "balanced_accuracy")
    assert (tuned.best, tuned.diverged) == (1, [True, False])
    content = tuning.describe([tuned], "balanced_accuracy", lambda cell: cell.method.name)
    assert [one["diverged"] for one in content["methods"]["focal"][0]["tries"]] == [True, False]
    entries = {"focal": {"seeds": [0, 1, 2], "updates": [5], "epochs": [2], "best_epochs": [1]}}
    [line] = warnings({"test": {"rare_classes": {}}, "entries": entries, "tuning": content})
    assert line.endswith("(of the tries 1 diverged).")
    # It is of its settings, as a finished run.
    config = files.read_json(os.path.join(finish_cell(tries, tries.cells[0]), "config.json"))
    os.unlink(os.path.join(tries.run_dir(tries.cells[0]), "report.md"))
    study_checks.check_same_study(tries)
    config["config"]["focal_gamma"] = 1.0
    files.write_json(os.path.join(tries.run_dir(tries.cells[0]), "config.json"), config)
    with pytest.raises(UserError, match=r"--focal_gamma: 1.0 there, 2.0 here"):
        study_checks.check_same_study(tries)


def test_a_part_of_a_tuned_study_has_whole_methods(tmp_path, data):
    study = make_study(tmp_path, data, methods=(*METHODS, "oversample"))
    parts = [study.part(k, 2, whole_methods=True) for k in (1, 2)]
    names = [{cell.method.name for cell in part} for part in parts]
    assert names == [{"none", "posthoc_logit_adjusted", "oversample"}, {"focal"}]
    assert sorted(c.name for p in parts for c in p) == sorted(c.name for c in study.cells)


def tune(study, count):
    return tuning.tune(study, study.cells, count, "balanced_accuracy", jobs=1)


def command(study, data, *flags):
    return processes.run(
        "trainer.compare",
        *(f"--data_dir={data.path}", f"--study_dir={study}", f"--methods={','.join(METHODS)}"),
        *("--batch_size=8", "--epochs=2", "--resamples=100", "--seeds=0,1", *flags),
    )


@pytest.mark.slow
def test_the_comparison_says_what_was_tuned(tmp_path, data):
    study = make_study(tmp_path / "study", data)
    tries = finish_tries(study, {"none": (0.6, 0.7), "focal": (0.8, 0.5)})
    chosen, tuned = tuning.choose(study, tries, "balanced_accuracy")
    for number, cell in enumerate(chosen.cells):
        if cell.method.decoupled:
            decouple_cell(chosen, cell)
        else:
            finish_cell(chosen, cell, rng_seed=1 + number)
    result = command(study.folder, data, "--tune=2")
    assert result.returncode == 0, result.stderr
    rate = tuned[0].values[1]["learning_rate"]
    line = (
        "Each method had 2 tries of the learning rate and its own parameters (seed 1000), judged "
        f"by balanced accuracy on validation. Chosen values: none: learning rate {rate:g}; focal: "
        "learning rate 0.001, focal gamma 2. Not tuned themselves, they start from the tuned runs: "
        "posthoc_logit_adjusted."
    )
    assert "4 runs, 4 of them finished already" in result.stdout
    assert line in result.stdout
    content = json.loads((tmp_path / "study" / "comparison.json").read_text())
    assert [entry["seeds"] for entry in content["entries"].values()] == [[0, 1]] * 3
    assert content["tuning"]["methods"]["none"][0]["chosen"] == 1
    assert content["tuning"]["methods"]["none"][0]["tries"][1]["values"] == {"learning_rate": rate}
    for name in ("comparison.md", "comparison.html"):
        page = (tmp_path / "study" / name).read_text()
        assert line in page
        assert "tuning besides" in page
        assert "tuned nothing" not in page
    refused = command(study.folder, data)
    assert refused.returncode == 2
    assert f"--learning_rate: {rate:g} there, 0.001 here" in refused.stderr
    both = processes.run("trainer.compare", f"--runs={tmp_path}/study/runs/*", "--tune=2")
    assert (both.returncode, both.stdout) == (2, "")
    assert "--tune trains runs and --runs compares finished ones: give only one" in both.stderr


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ({"none": 0.001, "focal": 0.001, "crt": 0.01}, "This comparison tuned nothing"),
        ({"none": 0.001, "focal": 0.002}, "The methods have different learning rates"),
    ],
)
def test_other_comparisons_say_as_much_as_they_know(rates, text):
    one = {"seeds": [0, 1, 2], "updates": [5], "epochs": [2], "best_epochs": [1]}
    entries = {name: {**one, "config": {"learning_rate": rate}} for name, rate in rates.items()}
    [line] = warnings({"test": {"rare_classes": {}}, "entries": entries})
    assert line.startswith(text)


@pytest.mark.slow
def test_a_study_is_tuned_from_the_command_line_in_parts(tmp_path, data):
    study = tmp_path / "study"
    part = command(study, data, "--tune=2", "--seeds=0", "--cells=1/2")
    assert part.returncode == 0, part.stderr
    assert "run 1 of 2: tiny-none-try0-seed1000" in part.stdout
    assert sorted(p.name for p in (study / "tuning").glob("*seed1000")) == [
        *("tiny-none-try0-seed1000", "tiny-none-try1-seed1000"),
    ]
    whole = command(study, data, "--tune=2", "--seeds=0")
    assert whole.returncode == 0, whole.stderr
    assert "4 runs, 2 of them finished already" in whole.stdout
    content = json.loads((study / "comparison.json").read_text())
    for name, [fold] in content["tuning"]["methods"].items():
        tries = fold["tries"]
        assert max(t["validation"] for t in tries) == tries[fold["chosen"]]["validation"]
        chosen = tries[fold["chosen"]]["values"]
        config = content["entries"][name]["config"]
        assert {key: config[key] for key in chosen} == chosen
