"""Every key of every JSON file of a run, taken out or replaced by another value.

What reads a run (`read_run`, a model card, report.md, the same training again) must then work, or
say in one line which file is wrong.
"""

import copy
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.trainer import fake_run
from trainer.card import facts, write_card
from trainer.comparison.method_grid import describe_method
from trainer.epochs.audit import SamplerAudit
from trainer.runs import report, run_files
from trainer.runs.finished_run import read_run
from trainer.training.run import run as train

COUNTS = {"train": [3, 2, 4, 2], "validation": [3, 2, 4, 2], "test": [3, 2, 4, 2]}
PRIORS = [0.3, 0.2, 0.4, 0.1]
METHODS = {
    "crt": {"flags": {"epochs": 8}, "first_stage_updates": 40},
    "tau_norm": {"tau": 0.5, "tau_from": "given", "flags": {"tau": 0.5}},
    "posthoc_logit_adjusted": {"tau": 1.0, "priors": PRIORS, "flags": {"tau": 1.0}},
}
NAMES = ("config.json", "metrics.json", "sampler_counts.json", "sampler_audit.json", "network.json")
DELETED = object()
VALUES = (DELETED, None, "x", -1, [], {})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), COUNTS)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A finished run, made up, with its audit and the name of a checkpoint."""
    path = tmp_path_factory.mktemp("runs") / "trained"
    dataset = {**fake_run.of(data), "pixel_rules": data.pixel_rules, "folds": 0}
    settings = {"backbone": "tiny", "epochs": 8, "batch_size": 8, "augment_zoom": 0.1}
    settings |= {"augment_strength": (("COVID", 0.5),), "classes": tuple(data.class_names)}
    fake_run.write_run(path, counts=COUNTS, planned=[4] * 4, steps=1, dataset=dataset, **settings)
    (path / run_files.MODEL).write_bytes(b"a model")
    (path / "checkpoints" / "resume" / "epoch-8").mkdir(parents=True)
    audit = SamplerAudit(read_run(str(path)).config, data.class_names, COUNTS["train"])
    audit.catch_up(8)
    (path / run_files.SAMPLER_AUDIT).write_text(json.dumps(audit.to_json()))
    return str(path)


def decouple(trained, folder, method):
    """The files that trainer.decouple would make of the run, less the new output layer's."""
    path = shutil.copytree(trained, os.path.join(folder, method))
    os.remove(os.path.join(path, run_files.SAMPLER_AUDIT))
    content = _read(path, run_files.CONFIG)
    origin = {"method": method, "from_run": trained, "from_config": content["config"]}
    _write(path, run_files.CONFIG, {**content, "decoupled": {**origin, **METHODS[method]}})
    return path


def _read(path, name):
    with open(os.path.join(path, name), encoding="utf-8") as file:
        return json.load(file)


def _write(path, name, content):
    with open(os.path.join(path, name), "w", encoding="utf-8") as file:
        json.dump(content, file)


def places(content, below=()):
    """The keys that lead to each value within JSON."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*below, key)
        if isinstance(value, dict | list):
            yield from places(value, (*below, key))


def edited(content, place, value):
    content = copy.deepcopy(content)
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    if value is DELETED:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return content


def edits(path, below=()):
    """(file, keys, value) of all edits; below: only of keys that begin with these."""
    return [
        (name, place, value)
        for name in NAMES
        if os.path.exists(os.path.join(path, name))
        for place in places(_read(path, name))
        for value in VALUES
        if place[: len(below)] == below
    ]


def use(path):
    """Reads a run in all ways but the training's."""
    run = read_run(path)
    describe_method(run)
    report.write_report(path)
    write_card.render(facts.gather(path))


def refusal(words, function, *args):
    """The message of a call that refuses; empty if it works. words: of the edit before it."""
    try:
        function(*args)
    except UserError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{words}: {error!r}") from error
    return ""


def check(path, one, config=None, data=None):
    """Makes one edit, uses the run, and takes the edit back; returns whether it was refused.

    config: of the run's training, which is then started again; None: it is not.
    """
    name, place, value = one
    content = _read(path, name)
    words = f"{name}: {place} {'deleted' if value is DELETED else f'= {value!r}'}"
    _write(path, name, edited(content, place, value))
    message = refusal(words, use, path)
    assert os.path.join(path, "") in message or not message, words
    if config is not None:
        again = refusal(words, train, config, data, tf.distribute.get_strategy())
        assert path in again or not again, words
        message += again
    assert "\n" not in message, words
    _write(path, name, content)
    return bool(message)


def sample(found, number):
    rng = np.random.default_rng(0)
    return [found[i] for i in rng.choice(len(found), min(number, len(found)), replace=False)]


NUMBERS = [pytest.param(150, id="some"), pytest.param(10**9, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("number", NUMBERS)
def test_an_edited_run_is_refused_in_one_line_or_read(trained, data, number):
    config = dataclasses.replace(read_run(trained).config, run_dir=trained)
    chosen = sample(edits(trained), number)
    refused = [check(trained, one, config, data) for one in chosen]
    assert len(refused) / 2 < sum(refused) < len(refused)


@pytest.mark.parametrize("number", [10, pytest.param(10**9, id="all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
def test_an_edited_decoupled_run_is_too(trained, tmp_path, method, number):
    path = decouple(trained, tmp_path, method)
    for one in sample(edits(path, ("decoupled",)), number):
        check(path, one)
