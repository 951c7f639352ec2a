"""The audit says what was planned, delivered and read; training is held against it."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from tests.trainer import fake_run
from trainer.balancing.sampler_table import SAMPLERS
from trainer.distribution import strategies
from trainer.epochs.audit import SamplerAudit, check_trained, describe_epoch
from trainer.epochs.plan import EpochPlanner
from trainer.input import shard_reading
from trainer.input.split_batches import SplitSource
from trainer.runs import report
from trainer.runs.finished_run import read_run
from trainer.settings.config import TrainConfig
from trainer.training.run import run

COUNTS = {"train": (8, 12, 20, 4), "validation": (3, 4, 6, 2), "test": (3, 5, 7, 2)}
NAMES = helpers.CLASS_NAMES


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return helpers.write_dataset(tmp_path_factory.mktemp("data"), COUNTS, num_shards=3)


def _config(sampler="oversample", **settings) -> TrainConfig:
    values = {"batch_size": 8, "epochs": 4, "flip": False, "optimizer": "sgd"}
    return TrainConfig("d", sampler=sampler, **values | settings)


def _audit(config, **arguments) -> SamplerAudit:
    return SamplerAudit(config, NAMES, COUNTS["train"], **arguments)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_figures_are_those_counted_one_record_at_a_time(sampler):
    config = _config(sampler)
    audit = _audit(config)
    audit.catch_up(3)
    ever: set[tuple[int, int]] = set()
    for epoch, row in enumerate(audit.rows):
        drawn = EpochPlanner(config, NAMES, COUNTS["train"]).plan(epoch)
        records = list(zip(drawn.labels.tolist(), drawn.ordinals.tolist(), strict=True))
        ever |= set(records)
        assert row.epoch == epoch + 1
        assert row.planned.sum() - row.realised.sum() in range(8)
        assert row.realised.tolist() == [drawn.labels.tolist().count(c) for c in range(4)]
        assert row.unique.tolist() == [sum(c == r[0] for r in set(records)) for c in range(4)]
        assert row.unique_so_far.tolist() == [sum(c == r[0] for r in ever) for c in range(4)]
        assert row.largest_repeat == max(records.count(record) for record in set(records))
        assert row.read_amplification == 1


@pytest.mark.parametrize(
    ("done", "sampler"), [(0, "weighted"), (2, "weighted"), (3, "progressive")]
)
def test_resumed_audit_is_that_of_an_uninterrupted_run(done, sampler):
    config = _config(sampler)
    whole, resumed = _audit(config), _audit(config)
    whole.catch_up(4)
    resumed.catch_up(done)
    for epoch in range(done, 4):
        measured = resumed.measure(resumed.plan(epoch))
        assert measured.to_json() == resumed.add(resumed.plan(epoch)).to_json()
    assert resumed.to_json() == whole.to_json()


# With no record twice, with some, and with many; the figures of each sampler are checked above.
@pytest.mark.parametrize(
    ("sampler", "buffer"),
    [("undersample", 1024), ("oversample", 2), ("weighted", 1024), ("rejection", 2)],
)
def test_streaming_reads_as_many_records_as_the_audit_says(sampler, buffer, data, monkeypatch):
    monkeypatch.setattr(shard_reading, "SHUFFLE_RECORDS", buffer)
    read = []
    read_shard = shard_reading._read_shard

    def counted(path, first, size):
        def note(number, record):
            with tf.control_dependencies(
                [tf.py_function(lambda n: read.append(int(n)), [number], [])]
            ):
                return tf.identity(number), record

        return read_shard(path, first, size).map(note)

    monkeypatch.setattr(shard_reading, "_read_shard", counted)
    config = _config(sampler)
    source = SplitSource(data, "train", cache="none")
    assert source.streamed
    row = _audit(config, streaming_hosts=1).add(plan := _audit(config).plan(0))
    delivered = sum(len(labels) for _, labels in source.training(plan, batch_size=8))
    assert len(read) == row.records_read
    assert row.read_amplification == len(read) / delivered
    twice = _audit(config, streaming_hosts=2).add(plan)
    assert twice.records_read == 2 * len(read), "each host reads for itself"


def test_training_on_other_classes_than_planned_is_a_bug_that_raises():
    audit = _audit(_config())
    row = audit.add(audit.plan(0))
    check_trained(row, np.diag(row.realised))
    wrong = np.diag(row.realised)
    wrong[0, 0] -= 1
    with pytest.raises(RuntimeError, match="epoch 1 trained on"):
        check_trained(row, wrong)


def test_run_that_trains_on_other_labels_than_its_plan_stops(data, tmp_path, monkeypatch):
    training = SplitSource.training

    def swapped(self, plan, **arguments):
        return training(self, plan, **arguments).map(lambda images, labels: (images, labels * 0))

    monkeypatch.setattr(SplitSource, "training", swapped)
    config = _config(run_dir=str(tmp_path))
    with pytest.raises(RuntimeError, match="trained on"):
        run(config, data, strategies.create_strategy("cpu"))


@pytest.mark.parametrize(
    ("sampler", "cache"),
    [
        pytest.param("progressive", "auto", marks=pytest.mark.slow),
        ("oversample", "none"),
    ],
)
def test_run_writes_its_audit_and_its_report_tells_it(sampler, cache, data, tmp_path, capsys):
    config = _config(sampler, run_dir=str(tmp_path), epochs=2, cache=cache)
    run(config, data, strategies.create_strategy("cpu"))
    audit = _audit(config, streaming_hosts=int(cache == "none"))
    audit.catch_up(2)
    content = json.loads((tmp_path / "sampler_audit.json").read_text())
    assert content == audit.to_json()
    (line,) = [t for t in capsys.readouterr().out.splitlines() if t.startswith("audit: ")]
    first = describe_epoch(content, content["epochs"][0])
    assert line == f"audit: {first}"
    text = (tmp_path / "report.md").read_text()
    assert first in text
    assert describe_epoch(content, content["epochs"][1]) in text
    # Epoch 1 of progressive is natural, but the run is not.
    assert "Recalibrate" in text


def test_line_tells_shares_plan_coverage_repeats_and_reading():
    audit = SamplerAudit(_config(batch_size=16), ("A", "B"), (30, 4), streaming_hosts=1)
    row = audit.add(audit.plan(0))
    assert row.realised.sum() == 48  # of 30 + 4 * 8 = 62
    a, b = row.realised / 48
    line = describe_epoch(audit.to_json(), row.to_json())
    seen = int(row.unique.sum())
    times = row.largest_repeat
    assert line == (
        f"epoch 1 shares A {a:.1%} (plan 48.4%), B {b:.1%} (plan 51.6%); {seen} of 34 images "
        f"seen, one image at most {times} times, {(30 + 4 * times) / 48:.2f} records "
        "read for each one delivered"
    )


def test_report_of_a_run_without_an_audit_is_written_all_the_same(tmp_path):
    path = fake_run.write_run(tmp_path)
    assert read_run(path).audit is None
    with open(report.write_report(path), encoding="utf-8") as file:
        assert "Sampler audit" not in file.read()
