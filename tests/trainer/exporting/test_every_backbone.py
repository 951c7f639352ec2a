"""Backbones in all formats. As a command, `python -m tests.trainer.exporting.test_every_backbone`
makes the rows of the table in docs/export.md, of all backbones or of those that are named."""

import contextlib
import sys
import tempfile
import time

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError, first_line
from cxr_tfrecords.reading import Reading
from trainer.models.backbone_table import TABLE

SMALL = ["tiny", "alexnet", "resnet18"]
SMALL_HEADS = [*((name, 0) for name in SMALL), ("tiny", 8)]
PARITY = ["saved_model", "onnx", "litert"]
IMAGES = 64  # as many as an export checks
# Of networks with more parameters only a few: to save minutes.
LARGE, FEW = 20_000_000, 16
SHARES = np.array([0.1, 0.2, 0.3, 0.4])


def try_formats(backbone, rnn_units=0, formats_wanted=(*PARITY, "litert_int8")):
    """Format -> "ok" or why not; format -> its `Parity`, or of 8 bits its share of images with the
    same class; and the number of images. How long each step took is said on standard error."""
    import keras

    from trainer.deployment.corrected_probabilities import Deployment
    from trainer.exporting import checked_files, exported_model, formats, parity, sample_images

    size = max(64, TABLE[backbone].min_px)
    reading = Reading(size, 1)
    with _timed("model"):
        model = exported_model.create_deployed(
            _calibrated(backbone, reading, rnn_units), Deployment(SHARES, SHARES, SHARES[::-1], 1.3)
        )
    count = FEW if model.count_params() > LARGE else IMAGES
    with pytest.MonkeyPatch.context() as patch, _timed("exact answers"):
        patch.setattr(parity, "IMAGES", count)
        checked = checked_files.CheckedFiles(model, reading, "none", None)
    found, measured = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in formats_wanted:
            try:
                with _timed(name):
                    if name in PARITY:
                        checked.add(name, folder)
                        found[name] = "ok"
                        continue
                    only_logits = keras.Model(model.input, {"logits": model.output["logits"]})
                    images = sample_images.drawn(reading, 8).images
                    formats.write(name, only_logits, folder, calibration=images)
                    answer = formats.open_written(name, folder)
                    answers = parity.answers_of(answer, checked.sample.images)["logits"]
                    assert answers.shape == (count, 4), answers.shape
                    assert np.isfinite(answers).all()
                    same = answers.argmax(axis=1) == checked._exact["logits"].argmax(axis=1)
                    measured[name] = float(same.mean())
                found[name] = "ok"
            except Exception as error:
                found[name] = f"{type(error).__name__}: {first_line(error, 300)}"
    return found, {**measured, **checked.parity}, count


@contextlib.contextmanager
def _timed(what):
    """Says the processor seconds of a step on standard error."""
    started = time.process_time()
    try:
        yield
    finally:
        seconds = time.process_time() - started
        print(f"  {what}: {seconds:.0f} s", file=sys.stderr, flush=True)


def _calibrated(backbone, reading, rnn_units):
    """Random weights whose logits differ by image, as those of a trained model do.

    Batch normalization takes its statistics from 64 images. Those of 8 are so far from those of
    other images that a deep network multiplies rounding: efficientnet_v2_b3 in float32 then gave
    other answers than in float64.
    """
    from trainer.exporting import sample_images
    from trainer.models import batch_norm, classifier

    model = classifier.create_model(
        backbone, image_size=reading.image_size, channels=1, num_classes=4, rnn_units=rnn_units
    )
    images = sample_images.drawn(reading, IMAGES).images
    for layer in batch_norm.find_layers(model):
        layer.momentum = 0.0
    model(images, training=True)
    logits = model(images, training=False).numpy()
    dense = model.get_layer(classifier.LOGITS)
    spread = logits.std(axis=0).max()
    dense.kernel.assign(dense.kernel * (2 / spread))
    dense.bias.assign(-logits.mean(axis=0) * (2 / spread))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "rnn_units"), SMALL_HEADS)
def test_a_backbone_answers_the_same_in_every_format(backbone, rnn_units):
    pytest.importorskip("tf2onnx", reason="of the extra onnx")
    found, _, _ = try_formats(backbone, rnn_units)
    assert set(found.values()) == {"ok"}, found


def _row(backbone, found, measured, count):
    """A row of the table: the largest difference of a probability from the exact one, of the model
    itself and of each file; what was refused in brackets."""

    def largest(values):
        return max(value for output, value in values.items() if output != "logits")

    cells = [f"`{backbone}`", str(max(64, TABLE[backbone].min_px)), str(count)]
    cells.append(f"{largest(next(measured[n] for n in PARITY if n in measured).of_model):.1e}")
    for name, answer in found.items():
        if name in PARITY and name in measured:
            cell = f"{largest(measured[name].of_file):.1e}"
        else:
            cell = f"{measured[name]:.0%}" if name in measured else "–"
        cells.append(cell if answer == "ok" else f"({cell})")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    for one in sys.argv[1:] or TABLE:
        started = time.process_time()
        try:
            found, measured, count = try_formats(one)
            print(_row(one, found, measured, count), flush=True)
        except UserError as error:
            found = {"all": str(error)}
        for name, answer in found.items():
            if answer != "ok":
                print(f"  {one}, {name}: {answer}", flush=True)
        print(f"  {time.process_time() - started:.0f} s", file=sys.stderr, flush=True)
