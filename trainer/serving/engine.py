"""The models in one thread, which answers in one batch what waits."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from trainer.deployment.answers import Answers
from trainer.deployment.predictor import Classifier
from trainer.deployment.several_models import Combined, combine, why_no_heat_maps
from trainer.models.grad_cam import overlay


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the models say of one image.

    Attributes:
      combined: of n = 1 image.
      outside: whether most models call it out of distribution; None if one of
        them does not check images.
      heat_map: uint8 [size, size, 3], the image under its Grad-CAM (the mean of the models'); None
        if it was not asked for, or a model has none.
    """

    combined: Combined
    outside: bool | None
    heat_map: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class _Job:
    pixels: np.ndarray
    heat_map: bool
    future: Future[Answer]


class Engine:
    """Takes images from any thread; several that wait are computed together.

    Batches have the sizes 1, 2, 4, … up to the run's: padding each to the run's size, as
    trainer.predict does, would make a single image cost as much as a whole batch. Probabilities
    differ from those of trainer.predict by rounding, less than 1e-5.
    """

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self.classifiers = list(classifiers)
        self.largest_batch = classifiers[0].batch_size
        self.has_heat_maps = not why_no_heat_maps(classifiers)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def ask(self, pixels: np.ndarray, *, heat_map: bool = False) -> Future[Answer]:
        """The answer to an image, uint8 [size, size, channels]. A cancelled one is not computed."""
        future: Future[Answer] = Future()
        self._queue.put(_Job(pixels, heat_map, future))
        return future

    def warm_up(self) -> None:
        """Answers a black image in batches of each size: TensorFlow plans each when it is new."""
        reading = self.classifiers[0].reading
        black = np.zeros((reading.image_size, reading.image_size, reading.channels), np.uint8)
        size = 1
        while size < 2 * self.largest_batch:
            self._predict(np.stack([black] * min(size, self.largest_batch)))
            size *= 2
        self.ask(black, heat_map=True).result()

    @property
    def ready(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread after what it has begun."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            jobs, goes_on = self._waiting()
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if jobs:
                try:
                    answers = self._answer(jobs)
                except Exception as error:
                    for job in jobs:
                        job.future.set_exception(error)
                else:
                    for job, answer in zip(jobs, answers, strict=True):
                        job.future.set_result(answer)
            if not goes_on:
                return

    def _waiting(self) -> tuple[list[_Job], bool]:
        """Waits for a job and takes all others that are there, up to a batch; and whether more may
        come."""
        jobs: list[_Job] = []
        try:
            while len(jobs) < self.largest_batch:
                job = self._queue.get(block=not jobs)
                if job is None:
                    return jobs, False
                jobs.append(job)
        except queue.Empty:
            pass
        return jobs, True

    def _answer(self, jobs: Sequence[_Job]) -> list[Answer]:
        pixels = np.stack([job.pixels for job in jobs])
        given = self._predict(pixels)
        answers = []
        for row, job in enumerate(jobs):
            combined = combine([_row(one, row) for one in given])
            flags = combined.out_of_distribution
            outside = None if flags is None else bool(flags[0])
            heat = None
            if job.heat_map and self.has_heat_maps:
                heat = self._heat_map(job.pixels, int(combined.classes[0]))
            answers.append(Answer(combined, outside, heat))
        return answers

    def _predict(self, pixels: np.ndarray) -> list[Answers]:
        size = min(1 << (len(pixels) - 1).bit_length(), self.largest_batch)
        return [one.predict_pixels(pixels, size) for one in self.classifiers]

    def _heat_map(self, pixels: np.ndarray, predicted: int) -> np.ndarray:
        maps = [one.heat_maps(pixels[np.newaxis], [predicted])[0] for one in self.classifiers]
        return overlay(pixels, np.mean(maps, axis=0))


def _row(answers: Answers, row: int) -> Answers:
    """The answers to one of the images."""

    def part(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: part(one) for name, one in value.items()}
        return value[row : row + 1] if isinstance(value, np.ndarray) else value

    values = {field.name: getattr(answers, field.name) for field in dataclasses.fields(answers)}
    return dataclasses.replace(answers, **{name: part(one) for name, one in values.items()})
