"""The same work as a TensorFlow Datasets builder, as its documentation shows one.

In a module of its own, because TFDS names a builder after the class and its module, and Beam
sends the module's functions to its workers by name.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from benchmarks.build.image_files import Source, class_names, list_sources, png_of


class Radiographs(tfds.core.GeneratorBasedBuilder):
    """Radiographs of one size, as PNG, with label and name."""

    VERSION = tfds.core.Version("1.0.0")
    # Looked for by TFDS 4.9.10 with a package that it does not install on Python 3.9 and later.
    code_path = pathlib.Path(__file__)

    def __init__(self, *, input_dir: str, image_size: int, use_beam: bool, **kwargs: Any) -> None:
        self._input_dir, self._size, self._use_beam = input_dir, image_size, use_beam
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self._size, self._size, 1)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape, encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=class_names(self._input_dir)),
                    "name": tfds.features.Text(),
                }
            )
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Any:
        sources = list_sources(self._input_dir)
        return self._on_beam(sources) if self._use_beam else self._plain(sources)

    def _plain(self, sources: list[Source]) -> Iterator[tuple[str, dict[str, Any]]]:
        for source in sources:
            yield example(source, self._size)

    def _on_beam(self, sources: list[Source]) -> Any:
        beam = tfds.core.lazy_imports.apache_beam
        return beam.Create(sources) | beam.Map(example, size=self._size)


def example(source: Source, size: int) -> tuple[str, dict[str, Any]]:
    """Bytes are stored as they are: the PNG is OpenCV's, as with the other systems."""
    return source.name, {
        "image": png_of(source.path, size),
        "label": source.label,
        "name": source.name,
    }
