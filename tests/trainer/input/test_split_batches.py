"""Batches hold the plan's records, each replica its part, whether cached or streamed."""

import collections
import dataclasses
import os

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from cxr_tfrecords import records, tfrecord
from cxr_tfrecords.errors import UserError
from tests.helpers import COUNTS, write_dataset
from trainer.balancing import samplers
from trainer.balancing.augmentation import Augmentation
from trainer.balancing.class_shares import Sampling
from trainer.input import shard_reading, split_batches
from trainer.input.split_batches import SplitSource

CACHES = ("memory", "none")
CHANGES = Augmentation(20, 0.1, 0.2, 0.2, 0.3, 0.2, (1.0, 0.0, 2.0, 1.0))
SAMPLERS = ("none", "oversample", "weighted", "rejection")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("set"), num_shards=3)


@pytest.fixture(scope="module")
def sources(data):
    return {
        (split, cache): SplitSource(data, split, cache=cache)
        for split in ("train", "test")
        for cache in CACHES
    }


@pytest.fixture(scope="module")
def stored(data):
    """split -> image bytes of each example in canonical order, read without the pipeline."""
    images: dict[str, list[bytes]] = {}
    for shard in data.split_shards("train") + data.split_shards("test"):
        for serialized in tf.data.TFRecordDataset(shard.path):
            record = records.parse_record(serialized.numpy())
            pixels = tf.io.decode_png(record.encoded).numpy()
            images.setdefault(shard.split, []).append(pixels.tobytes())
    return images


def plan(sampling="none", batch_size=8, epoch=0, **arguments):
    return samplers.draw_epoch(
        Sampling(sampling) if isinstance(sampling, str) else sampling,
        COUNTS["train"],
        batch_size=batch_size,
        seed=3,
        epoch=epoch,
        **arguments,
    )


def rows_of(epoch_plan):
    """Canonical index of each slot."""
    counts = np.array(COUNTS["train"])
    return (np.cumsum(counts) - counts)[epoch_plan.labels] + epoch_plan.ordinals


def host(number, hosts, replicas):
    return tf.distribute.InputContext(
        num_input_pipelines=hosts, input_pipeline_id=number, num_replicas_in_sync=replicas
    )


def read(dataset):
    """Elements as a list of tuples of arrays."""
    return [tuple(part.numpy() for part in element) for element in dataset]


def equal(left, right):
    return len(left) == len(right) and all(
        np.array_equal(a, b)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def upright(batches, epoch_plan):
    """Image bytes of all slots, mirrored back where the plan mirrors."""
    images = np.concatenate([images for images, _ in batches])
    flips = epoch_plan.flips[: len(images), None, None, None]
    return [image.tobytes() for image in np.where(flips, images[:, :, ::-1], images)]


# Streaming depends on the plan's repeats alone: a plan without any, and one with many.
@pytest.mark.parametrize(
    ("sampler", "cache"),
    [*((name, "memory") for name in SAMPLERS), ("undersample", "none"), ("weighted", "none")],
)
def test_training_delivers_the_plans_records_mirrored_as_it_says(sampler, cache, sources, stored):
    drawn = plan(sampler)
    assert 0 < drawn.flips.sum() < len(drawn.flips)
    batches = read(sources["train", cache].training(drawn, batch_size=8))
    assert len(batches) == drawn.steps
    assert np.array_equal(np.concatenate([labels for _, labels in batches]), drawn.labels)
    wanted = [stored["train"][row] for row in rows_of(drawn)]
    delivered = upright(batches, drawn)
    if cache == "memory":
        assert delivered == wanted
    assert collections.Counter(delivered) == collections.Counter(wanted)


@pytest.mark.parametrize("cache", CACHES)
def test_training_batches_have_static_shapes(cache, sources):
    dataset = sources["train", cache].training(plan(), batch_size=8, context=host(0, 1, 2))
    images, labels = dataset.element_spec
    assert (images.shape, images.dtype) == ((4, 32, 32, 1), tf.uint8)
    assert (labels.shape, labels.dtype) == ((4,), tf.int32)


@pytest.mark.parametrize("cache", CACHES)
def test_no_iterator_waits_for_an_autotuner_when_it_closes(cache, sources):
    training = sources["train", cache].training(plan("oversample"), batch_size=8)
    evaluation = sources["test", cache].evaluation(batch_size=8)
    assert training.options().autotune.enabled is False
    assert evaluation.options().autotune.enabled is False


def test_neither_does_reading_a_split_once(data):
    parsed = shard_reading.parsed_records(data, "train").batch(4).prefetch(2)
    assert parsed.options().autotune.enabled is False


@pytest.mark.parametrize(("start_step", "cache"), [(5, "memory"), (3, "none")])
def test_training_resumes_with_exactly_the_rest(start_step, cache, sources):
    drawn = plan("weighted", augmentation=CHANGES)
    source = sources["train", cache]
    whole = read(source.training(drawn, batch_size=8))
    rest = read(source.training(drawn, batch_size=8, start_step=start_step))
    assert len(rest) == drawn.steps - start_step
    assert equal(whole[start_step:], rest)


@pytest.mark.parametrize("cache", CACHES)
def test_training_order_repeats_for_an_epoch_and_differs_between_epochs(cache, sources):
    source = sources["train", cache]
    first, again, other = (
        read(source.training(plan(epoch=epoch, flip=False), batch_size=8)) for epoch in (0, 0, 1)
    )
    assert equal(first, again)
    assert not equal(first, other)


# Two replicas on each of two hosts: the numbering of both counts.
@pytest.mark.parametrize(
    ("hosts", "replicas", "cache"),
    [
        *((2, 4, "memory"), (2, 4, "none")),
        pytest.param(1, 4, "memory", marks=pytest.mark.slow),
        pytest.param(2, 2, "memory", marks=pytest.mark.slow),
    ],
)
def test_replicas_together_train_on_the_same_global_batches(hosts, replicas, cache, sources):
    drawn = plan("oversample", augmentation=CHANGES)
    source = sources["train", cache]
    single = read(source.training(drawn, batch_size=8))
    local = replicas // hosts
    parts = [
        read(source.training(drawn, batch_size=8, context=host(number, hosts, replicas)))
        for number in range(hosts)
    ]
    for step, (images, labels) in enumerate(single):
        batch = [part[step * local + r] for part in parts for r in range(local)]
        assert np.array_equal(np.concatenate([images for images, _ in batch]), images)
        assert np.array_equal(np.concatenate([labels for _, labels in batch]), labels)
    assert {len(part) for part in parts} == {drawn.steps * local}


@pytest.mark.parametrize(
    ("batch_size", "hosts", "replicas", "cache"),
    [(7, 1, 1, "memory"), (16, 2, 4, "memory"), (64, 1, 2, "memory"), (16, 2, 4, "none")],
)
def test_evaluation_covers_each_example_exactly_once(
    batch_size, hosts, replicas, cache, sources, stored
):
    labels_of = np.repeat(np.arange(4), COUNTS["test"])
    seen: list[int] = []
    lengths = set()
    for number in range(hosts):
        context = host(number, hosts, replicas)
        dataset = sources["test", cache].evaluation(batch_size=batch_size, context=context)
        specs = [(spec.shape.as_list(), spec.dtype) for spec in dataset.element_spec]
        part = batch_size // replicas
        assert specs == [
            ([part, 32, 32, 1], tf.uint8),
            ([part], tf.int32),
            ([part], tf.int32),
        ]
        elements = read(dataset)
        lengths.add(len(elements))
        for images, labels, index in elements:
            assert not images[index < 0].any()
            assert not labels[index < 0].any()
            for image, label, row in zip(images, labels, index, strict=True):
                if row >= 0:
                    assert image.tobytes() == stored["test"][row]
                    assert label == labels_of[row]
                    seen.append(int(row))
    # Every host must make the same number of steps, or the others would wait for it forever.
    assert len(lengths) == 1
    assert sorted(seen) == list(range(len(labels_of)))
    if hosts == replicas == 1:
        assert seen == sorted(seen)


@pytest.mark.parametrize("cache", CACHES)
def test_ids_and_groups_are_in_the_order_of_the_index(cache, data, sources):
    expected = [
        records.parse_record(serialized.numpy())
        for shard in data.split_shards("test")
        for serialized in tf.data.TFRecordDataset(shard.path)
    ]
    assert sources["test", cache].ids() == [record.filename for record in expected]
    assert sources["test", cache].groups() == [record.group for record in expected]
    assert len(expected) == sum(COUNTS["test"])


@pytest.mark.parametrize("cache", CACHES)
def test_ids_of_a_step_are_those_of_the_images_that_it_delivers(cache, sources, stored):
    drawn = plan("oversample", flip=False)
    source = sources["train", cache]
    id_of = dict(zip(stored["train"], source.ids(), strict=True))
    batches = read(source.training(drawn, batch_size=8))
    assert len(batches) > 3
    for step in (0, 2, len(batches) - 1):
        delivered = [id_of[image.tobytes()] for image in batches[step][0]]
        assert source.training_ids(drawn, step) == delivered


@pytest.mark.parametrize(("encoding", "channels"), [("png", 3), ("raw", 1)])
def test_streamed_and_cached_images_agree_in_every_format(encoding, channels, tmp_path):
    data = write_dataset(tmp_path / "set", encoding=encoding, channels=channels)
    drawn = plan(batch_size=44)
    sources = {cache: SplitSource(data, "train", cache=cache) for cache in CACHES}
    assert equal(*(read(source.evaluation(batch_size=10)) for source in sources.values()))
    batches = {c: read(source.training(drawn, batch_size=44)) for c, source in sources.items()}
    assert batches["none"][0][0].shape == (44, 32, 32, channels)
    memory, streamed = (collections.Counter(upright(batches[c], drawn)) for c in CACHES)
    assert memory == streamed


@pytest.mark.slow
def test_streaming_with_a_small_buffer_and_many_passes_stays_exact(monkeypatch, data, stored):
    monkeypatch.setattr(shard_reading, "SHUFFLE_RECORDS", 2)
    drawn = plan(Sampling("weighted", target=(0, 0, 0, 1)), batch_size=1)
    assert len(drawn.labels) == 44  # of the 4 records of class 3, each 11 times
    batches = read(SplitSource(data, "train", cache="none").training(drawn, batch_size=1))
    held = collections.Counter(upright(batches, drawn))
    assert held == dict.fromkeys(stored["train"][40:], 11)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({"cache": "auto", "cache_mb": 1}, True),
        ({"cache": "auto", "cache_mb": 0}, False),
        ({"cache": "memory", "cache_mb": 0}, True),
        ({"cache": "none"}, False),
    ],
)
def test_cache_is_kept_when_it_fits_and_its_description_says_so(arguments, kept, data):
    source = SplitSource(data, "train", **arguments)
    line = source.description
    assert line.startswith("train: 44 images")
    assert ("kept in memory (0.0 MiB" in line) == kept
    assert ("decoded anew in every epoch" in line) == (not kept)
    # What is kept needs no file any more.
    moved = dataclasses.replace(data, shards=())
    source._data = moved
    if kept:
        assert len(read(source.training(plan(), batch_size=8))) == 5


def test_cached_images_are_not_copied_into_the_graph(sources):
    traced: list[tf.Tensor] = []
    source = sources["train", "memory"]

    def note(rows, labels):
        traced.append(rows)
        return type(source)._gather(source, rows, labels)

    tf.data.Dataset.from_tensors((tf.constant([0]), tf.constant([0]))).map(note)
    graph = traced[0].graph.as_graph_def()
    assert graph.ByteSize() < source._images.numpy().nbytes / 4


def damage(path, how):
    size = os.path.getsize(path)
    if how == "truncated":
        os.truncate(path, size - 9)
    elif how == "bit":
        with open(path, "r+b") as file:
            file.seek(size // 2)
            byte = file.read(1)
            file.seek(size // 2)
            file.write(bytes([byte[0] ^ 4]))
    elif how == "short":
        kept = [r.numpy() for r in tf.data.TFRecordDataset(path)][1:]
        tfrecord.write_records(path, kept)
    elif how == "label":
        changed = [
            dataclasses.replace(records.parse_record(r.numpy()), label=0)
            for r in tf.data.TFRecordDataset(path)
        ]
        tfrecord.write_records(path, [records.serialize_example(record) for record in changed])
    else:
        os.remove(path)


@pytest.mark.parametrize(
    ("how", "cache"),
    [
        ("bit", "memory"),
        ("short", "memory"),
        ("truncated", "none"),
        ("short", "none"),
        ("gone", "none"),
    ],
)
def test_damaged_shard_is_named_with_what_to_do(how, cache, tmp_path):
    data = write_dataset(tmp_path / "set")
    shard = data.split_shards("train", 2)[1].path
    damage(shard, how)
    with (
        pytest.raises(UserError, match=r"cxr_tfrecords\.verify") as caught,
        split_batches.explained_reads(data),
    ):
        read(SplitSource(data, "train", cache=cache).training(plan(), batch_size=8))
    assert shard in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_that_differ_from_the_metadata_are_found_while_caching(tmp_path):
    data = write_dataset(tmp_path / "set")
    shard = data.split_shards("train", 1)[0].path
    damage(shard, "label")
    with pytest.raises(UserError, match="labelled 0") as caught:
        SplitSource(data, "train", cache="memory")
    assert shard in str(caught.value)


def test_errors_that_are_not_about_shards_pass_unchanged(data):
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="mine"),
        split_batches.explained_reads(data),
    ):
        raise tf.errors.InvalidArgumentError(None, None, "mine")


def test_batch_that_does_not_divide_is_refused_with_its_flag(sources):
    with pytest.raises(UserError, match="--batch_size=8 must be a multiple of the 3 replicas"):
        sources["train", "memory"].training(plan(), batch_size=8, context=host(0, 1, 3))


@pytest.mark.slow
def test_rejection_has_the_distribution_of_tf_data():
    counts, target, draws = (24, 38, 65, 8), (0.4, 0.1, 0.2, 0.3), 4000
    natural = np.repeat(np.arange(4, dtype=np.int64), counts)
    stream = tf.data.Dataset.from_tensor_slices(natural).shuffle(len(natural), seed=1).repeat()
    resampled = stream.rejection_resample(
        lambda label: label, target, initial_dist=np.array(counts) / sum(counts), seed=2
    )
    theirs = np.array([label for label, _ in resampled.take(draws).as_numpy_iterator()])
    ours: list[int] = []
    for epoch in range(draws):
        drawn = samplers.draw_epoch(
            Sampling("rejection", target=target), counts, batch_size=1, seed=0, epoch=epoch
        )
        ours += drawn.labels.tolist()
        if len(ours) >= draws:
            break
    table = [np.bincount(theirs), np.bincount(ours[:draws])]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3
