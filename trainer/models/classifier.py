"""The classifier: preprocessing, backbone, pooling and a fully connected head, in one model."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from trainer.models import backbones

_POOL = "pool"
_ROWS = "rows"
LOGITS = "logits"


def create_model(
    backbone: str,
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    network_size: int = 0,
    weights: str = "none",
    trainable: str = "all",
    head_units: Sequence[int] = (),
    rnn_units: int = 0,
    dropout: float = 0.0,
    mixed_precision: str = "float32",
    seed: int = 0,
    cosine_scale: float | None = None,
) -> keras.Model:
    """Builds the classifier; equal arguments give bit-identical weights.

    Args:
      backbone, weights: see `backbones.create_backbone`.
      image_size: side of the images in pixels; channels: 1 or 3.
      network_size: side to which the model shrinks them before the backbone; 0: none.
      trainable: `all`, `head` or `from:<layer of the backbone>`.
      rnn_units: 0: the features are the mean of the last feature map over its positions. Else they
        are the means of its rows, which an LSTM of this width reads from top to bottom.
      head_units: widths of dense ReLU layers before the logits, each followed by `dropout`.
      mixed_precision: `bfloat16` computes in bfloat16 and keeps weights and logits in float32.
      cosine_scale: None: a plain dense output layer. A number: the logits are this number times
        the cosines between features and weights, without bias (for LDAM).
      seed: of initial weights and dropout. Sets the global seeds of Python, NumPy and Keras.

    Returns:
      A model of uint8 [batch, image_size, image_size, channels] to float32 logits
      [batch, num_classes]. It has only layers of Keras, so it loads without this package.

    Raises:
      UserError: weights or layer name do not fit the backbone.
    """
    keras.utils.set_random_seed(seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(
        "mixed_bfloat16" if mixed_precision == "bfloat16" else mixed_precision
    )
    try:
        size = network_size or image_size
        network = backbones.create_backbone(backbone, size, weights)
        backbones.freeze(network, trainable)
        images = keras.Input((image_size, image_size, channels), dtype="uint8", name="image")
        x = network(backbones.preprocess(backbone, backbones.shrink(images, size)))
        x = (
            _read_rows(x, rnn_units)
            if rnn_units
            else keras.layers.GlobalAveragePooling2D(name=_POOL)(x)
        )
        x = keras.layers.Dropout(dropout, name="dropout")(x)
        for number, units in enumerate(head_units, start=1):
            x = keras.layers.Dense(units, activation="relu", name=f"head{number}")(x)
            x = keras.layers.Dropout(dropout, name=f"head{number}_dropout")(x)
        logits = _create_logits(x, num_classes, cosine_scale)
        return keras.Model(images, logits, name=f"{backbone}_classifier")
    finally:
        keras.config.set_dtype_policy(policy)


def _read_rows(x: keras.KerasTensor, units: int) -> keras.KerasTensor:
    """The last state of an LSTM that reads the rows of a feature map [batch, h, w, c], each the
    mean of its positions, from top to bottom: [batch, units].

    It is unrolled, because TPUs compile a loop into small, slow steps. The layer `pool` gives the
    rows as one vector, [batch, h * c], so that they can be kept as features.
    """
    _, height, width, channels = x.shape
    x = keras.layers.AveragePooling2D((1, width), name=_ROWS)(x)
    x = keras.layers.Flatten(name=_POOL)(x)
    x = keras.layers.Reshape((height, channels), name="sequence")(x)
    return keras.layers.LSTM(units, unroll=True, name="rnn")(x)


def _create_logits(
    x: keras.KerasTensor, num_classes: int, cosine_scale: float | None
) -> keras.KerasTensor:
    """The output layer, made of Keras' own layers so that the model loads without this package.

    For cosines, the weights are projected to length 1 after every update. (Cao et al. 2019
    normalise them in the forward pass: the same cosines, but updates of another length.)
    """
    if cosine_scale is None:
        return keras.layers.Dense(num_classes, dtype="float32", name=LOGITS)(x)
    x = keras.layers.UnitNormalization(dtype="float32", name="unit_features")(x)
    unit = keras.constraints.UnitNorm(axis=0)
    dense = keras.layers.Dense(
        num_classes, use_bias=False, kernel_constraint=unit, dtype="float32", name="cosines"
    )
    cosines = dense(x)
    # Keras applies a constraint only after updates, not to the initial weights.
    dense.kernel.assign(unit(dense.kernel))
    return keras.layers.Rescaling(cosine_scale, dtype="float32", name=LOGITS)(cosines)


def features_model(model: keras.Model) -> keras.Model:
    """The part of a classifier up to the features of its head, [batch, features]; it shares the
    layers."""
    return keras.Model(model.inputs, model.get_layer(_POOL).output)


def feature_map(model: keras.Model) -> keras.KerasTensor:
    """The last feature map of a classifier, [batch, h, w, c].

    Raises:
      ValueError: the model has no layer `pool`.
    """
    return model.get_layer(_ROWS if _has_rows(model) else _POOL).input


def _has_rows(model: keras.Model) -> bool:
    return any(layer.name == _ROWS for layer in model.layers)


def features_and_logits_model(model: keras.Model) -> keras.Model:
    """A classifier that gives, beside its logits, the mean of its last feature map over all
    positions, [batch, c]; it shares the layers."""
    features = model.get_layer(_POOL).output
    if _has_rows(model):
        features = keras.layers.GlobalAveragePooling2D()(feature_map(model))
    return keras.Model(model.inputs, [features, *model.outputs])


def head_model(model: keras.Model) -> keras.Model:
    """The part of a classifier from these features on; it shares the layers."""
    return keras.Model(model.get_layer(_POOL).output, model.output)


def seed_states(model: keras.Model) -> list:
    """The `tf.Variable`s that hold the states of the model's random generators (dropout)."""
    return [v.value for v in model.variables if "seed_generator" in v.path]
