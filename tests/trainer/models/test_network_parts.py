"""The parts of a network have all of its layers and parameters once."""

import pytest

from trainer.models.classifier import create_model
from trainer.models.network_parts import network_parts


def _sums(parts, key):
    return sum(part[key] for part in parts)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_parts_are_those_of_the_model(trainable):
    settings = {"image_size": 32, "channels": 1, "num_classes": 3, "trainable": trainable}
    model = create_model("tiny", head_units=(8,), **settings)
    parts = network_parts(model)
    nothing = {"parameters": 0, "trained": 0}
    assert parts[0] == {"name": "image", "layers": 1, "shape": [32, 32, 1], **nothing}
    assert parts[-1]["name"] == "logits (Dense)"
    assert (parts[-1]["shape"], parts[-1]["parameters"]) == ([3], 8 * 3 + 3)
    assert _sums(parts, "parameters") == model.count_params()
    assert _sums(parts, "trained") == sum(v.shape.num_elements() for v in _trained(model))


def _trained(model):
    return [variable.value for variable in model.trainable_variables]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "efficientnet_b0"])
def test_stages_are_the_sizes_of_the_maps(backbone):
    """Neither padding nor squeeze-and-excitation makes a stage of its own."""
    model = create_model(backbone, image_size=96, channels=1, num_classes=4)
    stages = [part for part in network_parts(model) if part["name"].startswith(f"{backbone}, ")]
    sizes = [part["shape"][0] for part in stages]
    assert sizes == [48, 24, 12, 6, 3]
    assert [part["name"] for part in stages] == [f"{backbone}, {size} px" for size in sizes]
    assert _sums(network_parts(model), "parameters") == model.count_params()
