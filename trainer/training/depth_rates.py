"""Learning rates that rise with depth: small for the first layers, which hold what an earlier
training has learned of edges and textures, and full for the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def factors(model: keras.Model, first: float) -> list[float]:
    """What the learning rate of each trainable variable of a classifier is multiplied by.

    The layers of the backbone that learn are numbered from its input, 0 to n - 1; layer i gets
    `first` to the power (n - i) / n, and what follows the backbone 1. (Howard and Ruder, Universal
    Language Model Fine-tuning for Text Classification, 2018, section 3.2, lower the rate by one
    factor from each layer to the one before.)
    """
    by_variable: dict[int, float] = {}
    for backbone in model.layers:
        if isinstance(backbone, keras.Model):
            learning = [layer for layer in backbone.layers if layer.trainable_variables]
            for number, layer in enumerate(learning):
                factor = first ** ((len(learning) - number) / len(learning))
                by_variable |= {id(variable): factor for variable in layer.trainable_variables}
    return [by_variable.get(id(variable), 1.0) for variable in model.trainable_variables]


def with_factors(
    kind: type[keras.Optimizer], of_variables: Sequence[float]
) -> type[keras.Optimizer]:
    """An optimizer whose updates of each variable are multiplied by its factor.

    The learning rate is multiplied and not the gradient, which Adam and Adamax would divide by its
    own size again.
    """

    class WithFactors(kind):  # type: ignore[misc, valid-type]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            factor = of_variables[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    return WithFactors
