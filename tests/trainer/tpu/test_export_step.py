"""What is exported is the step that trains, and holds nothing that a TPU lacks."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer import processes, toy
from trainer.distribution import strategies
from trainer.settings.config import TrainConfig
from trainer.settings.learning_rate import SCHEDULES
from trainer.settings.table import BATCH_NORMS, HEADS, LOSSES, OPTIMIZERS
from trainer.tpu import export_step, host_ops
from trainer.training import losses, steps
from trainer.training.learner import create_learner

# Every option that changes a step, several in one config where they do not meet.
CONFIGS = [
    {"loss": "cross_entropy", "mixed_precision": "bfloat16", "mixup_alpha": 0.2},
    {"loss": "class_weighted", "batch_norm": "adapt_natural", "optimizer": "adam"},
    {
        "loss": "effective_number",
        "batch_norm": "frozen",
        "mixed_precision": "bfloat16",
        "image_size": 12,
        "head": "rnn",
    },
    {"loss": "focal", "batch_norm": "train", "optimizer": "sgd", "lr_schedule": "cosine"},
    {"loss": "class_balanced_focal", "batch_norm": "adapt_natural", "first_layer_lr_factor": 0.1},
    {
        "loss": "balanced_softmax",
        "head_units": (16, 8),
        "mixup_alpha": 0.2,
        "lr_schedule": "triangular",
    },
    {"loss": "logit_adjusted", "trainable": "head", "head_units": (16,), "warmup_steps": 9},
    {"loss": "ldam_drw", "mixed_precision": "bfloat16", "mixup_alpha": 0.2},
]


def _exporter(num_replicas: int = 4, **settings) -> export_step.Exporter:
    data = export_step.describe_data(32, 1, toy.NUM_CLASSES)
    return export_step.Exporter(TrainConfig("", **settings), data, num_replicas)


@pytest.mark.slow
def test_variables_of_functions_within_the_step_have_shapes():
    # Keras hands grouped convolutions, as ConvNeXt's, to a function of their own.
    exporter = _exporter(backbone="convnext_tiny", weights="none")
    assert exporter.audit("evaluate", per_replica=4).problems() == []


# A step takes a second or two to trace: those of three unlike configs are looked at every time.
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(one, id=one["loss"], marks=[] if number in (0, 2, 4) else pytest.mark.slow)
        for number, one in enumerate(CONFIGS)
    ],
)
def test_no_step_holds_what_a_tpu_lacks(settings):
    exporter = _exporter(**settings)
    for step in exporter.steps:
        found = exporter.audit(step, per_replica=4)
        assert found.problems() == []
        assert found.num_ops > 10


@pytest.mark.slow
def test_max_pooling_is_exported_with_its_gradient():
    # In a process of its own: this one has to be deterministic, which XLA's max pooling is not.
    code = (
        "from trainer.tpu import export_step; from trainer.settings.config import TrainConfig;"
        "data = export_step.describe_data(64, 1, 4);"
        "config = TrainConfig('', backbone='alexnet', weights='none');"
        "print(export_step.Exporter(config, data, 4).export('train', 2).stablehlo is not None)"
    )
    done = processes.run("-c", code)
    assert done.stdout.strip() == "True", done.stderr[-2000:]


def test_those_are_all_options():
    for name, choices in (
        *(("loss", LOSSES), ("optimizer", OPTIMIZERS), ("batch_norm", BATCH_NORMS)),
        *(("lr_schedule", SCHEDULES), ("head", HEADS)),
    ):
        default = getattr(TrainConfig(""), name)
        assert {settings.get(name, default) for settings in CONFIGS} == set(choices)


def test_steps_are_those_that_the_config_runs():
    assert _exporter().steps == ("train", "evaluate", "moments")
    assert _exporter(batch_norm="frozen").steps == ("train", "evaluate")
    assert _exporter(trainable="head").steps == ("train", "evaluate")


def test_a_loss_that_asks_the_host_is_found(monkeypatch):
    def through_host(labels, logits):
        plain = tf.nn.sparse_softmax_cross_entropy_with_logits
        result = tf.py_function(plain, [labels, logits], tf.float32)
        result.set_shape(labels.shape)
        return result

    monkeypatch.setattr(losses, "cross_entropy", through_host)
    exported = _exporter().export("train", per_replica=4)
    assert exported.stablehlo is None
    assert "EagerPyFunc" in exported.audit.host
    assert "EagerPyFunc" in exported.audit.unsupported


@pytest.mark.parametrize(
    ("function", "spec", "problem"),
    [
        (tf.image.decode_jpeg, tf.TensorSpec((), tf.string), "ops that TPUs lack: DecodeJpeg"),
        (lambda x: tf.boolean_mask(x, x > 0), tf.TensorSpec((4,)), "shapes not static: "),
        (
            lambda x: tf.while_loop(
                lambda i, y: i < 3,
                lambda i, y: (i + 1, tf.image.resize(y, (4, 4), method="area")),
                (0, x),
            ),
            tf.TensorSpec((1, 4, 4, 1)),
            "ops that TPUs lack: ResizeArea",
        ),
        (
            lambda x: tf.numpy_function(np.sin, [x], tf.float32),
            tf.TensorSpec((4,)),
            "host callbacks: ",
        ),
    ],
    ids=["op", "shape", "op_in_a_loop", "callback"],
)
def test_audit_finds(function, spec, problem):
    found = host_ops.audit(tf.function(function).get_concrete_function(spec))
    assert not found.clean
    assert any(line.startswith(problem) for line in found.problems())


def test_the_exported_step_trains_as_the_training_loop_does():
    # No dropout: XLA draws other random numbers from the same seed. Plain SGD: Adamax makes full
    # steps of gradients that are nothing but rounding.
    config = TrainConfig("", batch_size=toy.BATCH, dropout=0.0, optimizer="sgd", learning_rate=0.1)
    data = export_step.describe_data(32, 1, toy.NUM_CLASSES)
    images, labels = toy.images_and_labels(toy.BATCH)

    exporter = export_step.Exporter(config, data, num_replicas=1)
    step, _ = exporter.trace("train", toy.BATCH)
    for _ in range(2):
        step(tf.constant(images), tf.constant(labels))

    strategy = strategies.create_strategy("cpu")
    looped = create_learner(config, data, strategy, num_replicas=1)
    train_steps = steps.make_train_steps(
        strategy, looped.model, looped.optimizer, looped.meters, toy.BATCH, looped.loss
    )
    twice = (np.concatenate([images] * 2), np.concatenate([labels] * 2))
    train_steps(iter(toy.distributed(strategy, *twice)), tf.constant(2))

    assert exporter.learner.meters.read().examples == looped.meters.read().examples == 2 * toy.BATCH
    for own, expected in zip(exporter.learner.model.weights, looped.model.weights, strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-4, err_msg=own.path)


def test_every_gradient_and_the_loss_are_summed_over_the_slice():
    exporter = _exporter(batch_norm="frozen", head_units=(8,))
    function, specs = exporter.trace("train", per_replica=4)
    graph = function.get_concrete_function(*specs).graph
    sums = [op for op in graph.get_operations() if op.type == "XlaAllReduce"]
    assert len(sums) == len(exporter.learner.model.trainable_variables) + 1
    groups = {tuple(tf.get_static_value(op.inputs[1]).ravel()) for op in sums}
    assert groups == {(0, 1, 2, 3)}


def test_batch_normalization_is_summed_once_forwards_and_once_backwards():
    def count(**settings):
        function, specs = _exporter(**settings).trace("train", per_replica=4)
        operations = function.get_concrete_function(*specs).graph.get_operations()
        return sum(op.type == "XlaAllReduce" for op in operations)

    # Four layers, each with two weights to sum gradients of.
    assert count() == count(batch_norm="frozen") + 4 * (2 + 1 + 1)


def test_sums_over_the_slice_have_the_gradient_of_sums():
    @tf.function
    def gradients():
        with export_step.SliceContext(4):
            context = tf.distribute.get_replica_context()
            x = tf.constant([1.0, 2.0])
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = context.all_reduce("SUM", {"a": x, "b": [2 * x]})
                loss = tf.reduce_sum(total["a"] + total["b"][0])
            return tape.gradient(loss, x)

    graph = gradients.get_concrete_function().graph
    assert sum(op.type == "XlaAllReduce" for op in graph.get_operations()) == 4


def test_data_are_described_without_a_data_set():
    data = export_step.describe_data(64, 3, 6)
    assert (data.image_size, data.channels, data.num_classes) == (64, 3, 6)
    assert len(data.counts["train"]) == 6
    assert dataclasses.replace(data).shards == ()
