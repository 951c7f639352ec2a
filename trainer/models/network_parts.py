"""The parts of a classifier with their shapes and parameters, as a report shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras


def network_parts(model: keras.Model) -> list[dict[str, Any]]:
    """Describes a model of `classifier.create_model`, from the image to the logits.

    The layers of the backbone are joined by the size of their feature maps, because a list of them
    all would be of hundreds.

    Returns:
      A dict for each part: `name`; `layers`, how many it has; `shape` of its output without the
      batch, such as [3, 3, 1280]; `parameters`; `trained`, how many of these are trained. Empty for
      a model without a backbone.
    """
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if not inner:
        return []
    place = model.layers.index(inner[0])
    parts = [
        _part("image", model.layers[:1]),
        _part("preprocessing", model.layers[1:place]),
        *_stages(inner[0], model.name.removesuffix("_classifier")),
    ]
    for layer in model.layers[place + 1 :]:
        parts.append(_part(f"{layer.name} ({type(layer).__name__})", [layer]))
    return parts


def _stages(backbone: keras.Model, name: str) -> list[dict[str, Any]]:
    smallest = backbone.output_shape[1]
    stages: dict[int, list[keras.Layer]] = {}
    size = 0
    for layer in backbone.layers:
        # Padding makes a map larger only for the next layer. Smaller maps than the last one are
        # those of squeeze-and-excitation, which weighs the channels of a larger one.
        if isinstance(layer, keras.layers.InputLayer | keras.layers.ZeroPadding2D):
            continue
        shape = layer.output.shape
        if len(shape) == 4 and shape[1] >= smallest:
            size = shape[1]
        stages.setdefault(size, []).append(layer)
    return [
        _part(f"{name}, {size} px", layers) for size, layers in sorted(stages.items(), reverse=True)
    ]


def _part(name: str, layers: Sequence[keras.Layer]) -> dict[str, Any]:
    trained = (v for layer in layers for v in layer.trainable_weights)
    return {
        "name": name,
        "layers": len(layers),
        "shape": [int(side) for side in layers[-1].output.shape[1:]],
        "parameters": sum(layer.count_params() for layer in layers),
        "trained": sum(math.prod(v.shape) for v in trained),
    }
