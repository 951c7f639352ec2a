"""A training step of MobileNetV2 in PyTorch, for `benchmarks.training`, in any interpreter with it.

  PYTHON benchmarks/training/torch_step.py \
      '{"batch_size": 32, "image_size": 96, "classes": 4, "channels": 1, "parameters": 2228996}' \
      <<< '{"steps": 20, "memory_format": "channels_last"}'

Nothing of this project is imported; it answers as `process.py` says. The network is that
of Sandler et al. 2018, as Keras and torchvision have it, and its number of parameters is checked
against the Keras model's.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn

# Sandler et al., MobileNetV2, 2018, table 2: expansion, channels, blocks, stride.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=1e-3),  # Keras counts momentum the other way
    ]


class _Block(nn.Module):
    """The inverted residual."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers = []
        if expansion != 1:
            layers += [*_convolution(inputs, inner, 1, 1, 1), nn.ReLU6(inplace=True)]
        layers += [*_convolution(inner, inner, 3, stride, inner), nn.ReLU6(inplace=True)]
        layers += _convolution(inner, outputs, 1, 1, 1)
        self._layers = nn.Sequential(*layers)
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self._layers(x) if self._residual else self._layers(x)


class MobileNetV2(nn.Module):
    """Of float32 [b, 3, S, S] to logits [b, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(3, 32, 3, 2, 1), nn.ReLU6(inplace=True)]
        width = 32
        for expansion, outputs, blocks, stride in _STAGES:
            for number in range(blocks):
                layers.append(_Block(width, outputs, stride if number == 0 else 1, expansion))
                width = outputs
        layers += [*_convolution(width, 1280, 1, 1, 1), nn.ReLU6(inplace=True)]
        self._features = nn.Sequential(*layers)
        self._head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._head(self._features(x).mean((2, 3)))


class _Training:
    """A network in one memory format, with its optimizer and one batch."""

    def __init__(self, settings: dict, memory_format: str) -> None:
        self._format = _FORMATS[memory_format]
        torch.manual_seed(0)
        self.network = MobileNetV2(settings["classes"]).to(memory_format=self._format).train()
        side, size = settings["image_size"], settings["batch_size"]
        shape = (size, settings["channels"], side, side)
        self._images = torch.randint(256, shape, dtype=torch.uint8)
        self._labels = torch.randint(settings["classes"], (size,))
        self._optimizer = torch.optim.Adamax(self.network.parameters(), lr=1e-3, eps=1e-7)
        self._loss = nn.CrossEntropyLoss()

    def measure(self, steps: int) -> dict:
        started = time.monotonic()
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self.network(self._preprocessed()), self._labels)
            loss.backward()
            self._optimizer.step()
        loss.item()
        seconds = time.monotonic() - started
        ms = round(1000 * seconds / steps, 2)
        return {"images": steps * len(self._labels), "seconds": seconds, "ms_per_step": ms}

    def _preprocessed(self) -> torch.Tensor:
        """In every step, as in our model: gray to three channels, within [-1, 1]."""
        x = (self._images / 127.5 - 1.0).expand(-1, 3, -1, -1)
        return x.contiguous(memory_format=self._format)


def main() -> None:
    settings = json.loads(sys.argv[1])
    trainings = {name: _Training(settings, name) for name in _FORMATS}
    count = sum(p.numel() for p in trainings["contiguous"].network.parameters())
    if count != settings["parameters"]:
        sys.exit(f"{count} parameters, but Keras' model has {settings['parameters']} to train")
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "parameters": count}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        training = trainings[arguments.pop("memory_format")]
        print(json.dumps(training.measure(**arguments)), flush=True)


if __name__ == "__main__":
    main()
