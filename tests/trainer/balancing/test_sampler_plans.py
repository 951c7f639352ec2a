"""What holds for every plan: exactness, coverage, resuming by slices, hosts and replicas."""

import collections
import time
import zlib

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from trainer.balancing import sampler_options, samplers
from trainer.balancing.class_shares import Sampling
from trainer.balancing.sampler_table import SAMPLERS, names_with
from trainer.input import split_batches

EXACT = ("none", "undersample", "oversample", "oversample_exact", "progressive")
TABLE_IV = (2379, 3825, 6509, 832)

counts_lists = st.lists(st.integers(1, 40), min_size=2, max_size=5)
seeds = st.integers(0, 2**40)
any_sampler = st.sampled_from(list(SAMPLERS))


def plan(sampler, counts, *, batch_size=1, seed=0, epoch=0, epochs=10, flip=True, **settings):
    sampling = Sampling(sampler, epochs=epochs, **settings)
    return samplers.draw_epoch(
        sampling, counts, batch_size=batch_size, seed=seed, epoch=epoch, flip=flip
    )


def checksum(drawn):
    return zlib.crc32(b"".join(a.tobytes() for a in (drawn.labels, drawn.ordinals, drawn.flips)))


def rows_of(drawn, counts):
    """Number of each slot's record in the whole split."""
    return (np.cumsum(counts) - counts)[drawn.labels] + drawn.ordinals


@given(st.sampled_from(EXACT), counts_lists, seeds, st.integers(0, 9))
def test_exact_samplers_deliver_their_counts_and_repeat_no_record_oftener_than_they_must(
    sampler, counts, seed, epoch
):
    drawn = plan(sampler, counts, seed=seed, epoch=epoch)
    wanted = samplers.expected_counts(Sampling(sampler, epochs=10), counts, epoch)
    assert np.bincount(drawn.labels, minlength=len(counts)).tolist() == wanted.tolist()
    for label, size in enumerate(counts):
        times = np.bincount(drawn.ordinals[drawn.labels == label], minlength=size)
        assert times.max() == -(-wanted[label] // size)
        assert times.min() == wanted[label] // size


@given(counts_lists, seeds)
def test_exact_oversampling_keeps_the_images_that_come_once_more_unless_told_to_draw_again(
    counts, seed
):
    def times(epoch, **arguments):
        drawn = plan("oversample_exact", counts, seed=seed, epoch=epoch, **arguments)
        return np.bincount(rows_of(drawn, counts), minlength=sum(counts))

    assert np.array_equal(times(0), times(1))
    assert np.array_equal(times(0), times(0, resample_each_epoch=True))


@pytest.mark.parametrize("sampler", ["oversample_exact", "progressive"])
def test_every_image_of_a_class_comes_once_more_equally_often(sampler):
    counts, draws = (7, 20, 31), 1500
    extra = np.zeros(sum(counts), np.int64)
    for epoch in range(draws):
        drawn = plan(sampler, counts, epoch=epoch, epochs=3000, resample_each_epoch=True)
        times = np.bincount(rows_of(drawn, counts), minlength=sum(counts))
        whole = np.bincount(drawn.labels) // counts
        extra += times - np.repeat(whole, counts)  # the rest alone is random
    parts = [part for part in np.split(extra, np.cumsum(counts)[:-1]) if part.any()]
    assert len(parts) >= 2
    for part in parts:
        assert scipy.stats.chisquare(part).pvalue > 1e-3


@given(any_sampler, counts_lists, seeds, st.integers(1, 6), st.data())
def test_epoch_cut_at_any_step_goes_on_with_the_rest(sampler, counts, seed, batch_size, data):
    whole = plan(sampler, counts, seed=seed)
    if len(whole.labels) < batch_size:
        return
    again = plan(sampler, counts, seed=seed, batch_size=batch_size)
    step = data.draw(st.integers(0, again.steps))
    begun, rest = slice(step * batch_size), slice(step * batch_size, again.steps * batch_size)
    for name in ("labels", "ordinals", "flips"):
        parts = [getattr(again, name)[begun], getattr(again, name)[rest]]
        assert np.array_equal(np.concatenate(parts), getattr(whole, name)[: len(again.labels)])


@given(any_sampler, counts_lists, seeds, st.sampled_from([(1, 1), (1, 4), (2, 2), (2, 4), (4, 4)]))
def test_hosts_share_the_plan_without_overlap(sampler, counts, seed, layout):
    hosts, replicas = layout
    batch_size = 2 * replicas
    if samplers.expected_counts(Sampling(sampler), counts).sum() < batch_size:
        return
    drawn = plan(sampler, counts, seed=seed, batch_size=batch_size)
    slots = [_slots(drawn, batch_size, number, hosts, replicas) for number in range(hosts)]
    together = np.concatenate(slots)
    assert len(together) == len(drawn.labels)
    assert np.array_equal(np.sort(together), np.arange(len(drawn.labels)))
    assert {len(part) for part in slots} == {len(drawn.labels) // hosts}
    rows = rows_of(drawn, counts)
    seen = sum((collections.Counter(rows[part].tolist()) for part in slots), collections.Counter())
    assert seen == collections.Counter(rows.tolist()), "an image came oftener than planned"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_host_trains_on_the_shares_of_the_whole_plan(sampler):
    drawn = plan(sampler, TABLE_IV, batch_size=32, epoch=4)
    whole = np.bincount(drawn.labels, minlength=4)
    for number in range(4):
        part = drawn.labels[_slots(drawn, 32, number, 4, 8)]
        observed = np.bincount(part, minlength=4)
        expected = whole / whole.sum() * len(part)
        assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize("distribution", ["uniform", "sqrt", "natural"])
@pytest.mark.parametrize("sampler", names_with("takes_target"))
def test_shares_by_a_word_are_met_over_many_epochs(sampler, distribution):
    counts = (24, 38, 65, 8)
    target = sampler_options.resolve_distribution(distribution, None, "abcd", counts)
    drawn = [plan(sampler, counts, target=target, epoch=epoch) for epoch in range(300)]
    observed = sum(np.bincount(p.labels, minlength=4) for p in drawn)
    assert np.abs(observed / observed.sum() - target).max() < 0.01


def test_plans_stay_the_same_from_version_to_version():
    """A run that is resumed with newer releases goes on with the records that it began with."""
    sums = {}
    for sampler in SAMPLERS:
        drawn = plan(sampler, TABLE_IV, seed=7, epoch=2, epochs=5)
        sums[sampler] = checksum(drawn)
    assert sums == {
        "none": 2184794162,
        "undersample": 1598233143,
        "oversample": 1659068626,
        "oversample_exact": 1833086380,
        "rejection": 1392093380,
        "weighted": 1504555758,
        "progressive": 1037686374,
    }


@pytest.mark.parametrize(
    ("sampler", "arguments", "expected"),
    [
        ("undersample", {"resample_each_epoch": True}, 95456577),
        ("weighted", {"target": (4, 1, 3, 2)}, 2811583789),
        ("rejection", {"target": (4, 1, 3, 2)}, 2749681318),
        ("oversample", {"flip": False}, 2145634867),
    ],
)
def test_plans_with_other_settings_stay_the_same_too(sampler, arguments, expected):
    drawn = plan(sampler, TABLE_IV, seed=7, epoch=2, batch_size=32, **arguments)
    assert checksum(drawn) == expected


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_million_records_are_planned_within_a_second(sampler):
    counts = (176_000, 282_000, 480_000, 62_000)
    started = time.process_time()
    plan(sampler, counts, batch_size=32)
    assert time.process_time() - started < 1.0


def _slots(drawn, batch_size, host, hosts, replicas):
    context = tf.distribute.InputContext(
        num_input_pipelines=hosts, input_pipeline_id=host, num_replicas_in_sync=replicas
    )
    return split_batches._host_slots(len(drawn.labels), batch_size, context).ravel()
