"""Writes the files of an export, each checked before the next one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from cxr_tfrecords.console.quiet import quiet_stderr
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.reading import Reading
from trainer.exporting import encoded_images, formats, parity, sample_images
from trainer.exporting.format_table import FORMATS, INT8
from trainer.exporting.parity import Parity

_CALIBRATION_IMAGES = 100
_COST_IMAGES = 500


class CheckedFiles:
    """The files of one export.

    Attributes:
      outputs: format -> names of its outputs.
      parity: format -> its differences to exact answers, see `parity`; without `litert_int8`.
      int8: what 8 bits cost, see `parity.int8_cost`; None without `litert_int8`.
    """

    def __init__(
        self, model: keras.Model, reading: Reading, mask: str, data: DatasetDir | None
    ) -> None:
        """Computes the exact answers.

        Args:
          model: with the outputs of `contract.OUTPUTS`.
          mask: of the run.
          data: the run's data set; None: the check takes synthetic radiographs, and there is no
            `litert_int8`.
        """
        self.outputs: dict[str, list[str]] = {}
        self.parity: dict[str, Parity] = {}
        self.int8: dict[str, Any] | None = None
        self._model, self._reading, self._data = model, reading, data
        self._with_files = not encoded_images.why_not(reading, mask)
        count = parity.IMAGES
        self.sample = (
            sample_images.drawn(reading, count)
            if data is None
            else sample_images.evenly_spaced(data, "test", count)
        )
        with quiet_stderr():
            self._exact = self._answers(formats.in_precision(model, "float64"))
        self._bases: dict[bool, tuple[keras.Model, dict[str, np.ndarray]]] = {}

    def add(self, name: str, folder: str) -> None:
        """Writes one format below `folder`, opens it again and compares its answers.

        Raises:
          UserError: it does not answer as the trained model does.
        """
        if name == INT8:
            self._add_int8(folder)
            return
        model, answers = self._base(FORMATS[name].float32)
        formats.write(name, model, folder, reading=self._reading if self._with_files else None)
        found = parity.answers_of(formats.open_written(name, folder), self.sample.images)
        self.parity[name] = parity.compare(found, answers, self._exact)
        self.outputs[name] = list(answers)
        parity.check(name, self.parity[name])

    def _add_int8(self, folder: str) -> None:
        assert self._data is not None
        model, _ = self._base(True)
        # In 8 bits a probability would be a multiple of 1/256, and the rare class often 0.
        only_logits = keras.Model(model.input, {"logits": model.output["logits"]})
        calibration = sample_images.class_balanced(self._data, "validation", _CALIBRATION_IMAGES)
        formats.write(INT8, only_logits, folder, calibration=calibration.images)
        sample = sample_images.evenly_spaced(self._data, "test", _COST_IMAGES)
        found = parity.answers_of(formats.open_written(INT8, folder), sample.images)
        answers = parity.answers_of(formats.of_model(only_logits), sample.images)
        self.outputs[INT8] = ["logits"]
        self.int8 = parity.int8_cost(found, answers, sample) | {
            "calibration_images": len(calibration.images),
            "calibration_split": calibration.source,
        }

    def _base(self, float32: bool) -> tuple[keras.Model, dict[str, np.ndarray]]:
        """The model that a file is made from, and its answers to the sample."""
        if float32 not in self._bases:
            policies = {layer.dtype_policy.name for layer in self._model.layers}
            model = self._model
            if float32 and "mixed_bfloat16" in policies:
                model = formats.in_precision(model, "float32")
            self._bases[float32] = model, self._answers(model)
        return self._bases[float32]

    def _answers(self, model: keras.Model) -> dict[str, np.ndarray]:
        return parity.answers_of(formats.of_model(model), self.sample.images)
