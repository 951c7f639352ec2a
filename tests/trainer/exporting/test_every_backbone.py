"""Backbones in all formats. As a command, `python -m tests.trainer.exporting.test_every_backbone`
shows the same for all backbones, or for those that are named."""

import sys
import tempfile
import time

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError, first_line
from cxr_tfrecords.reading import Reading
from trainer.models.backbone_table import TABLE

SMALL = ["tiny", "alexnet", "resnet18"]  # 45 seconds of processor time
SMALL_HEADS = [*((name, 0) for name in SMALL), ("tiny", 8)]
PARITY = ["saved_model", "onnx", "litert"]
SHARES = np.array([0.1, 0.2, 0.3, 0.4])


def try_formats(backbone, rnn_units=0, formats_wanted=(*PARITY, "litert_int8")):
    """Format -> "ok", or why not; and the largest differences of probabilities."""
    import keras

    from trainer.deployment.corrected_probabilities import Deployment
    from trainer.exporting import checked_files, exported_model, formats, parity, sample_images

    size = max(64, TABLE[backbone].min_px)
    reading = Reading(size, 1)
    model = exported_model.create_deployed(
        _calibrated(backbone, reading, rnn_units), Deployment(SHARES, SHARES, SHARES[::-1], 1.3)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "IMAGES", 4)
        checked = checked_files.CheckedFiles(model, reading, "none", None)
    found, differences = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in formats_wanted:
            try:
                if name in PARITY:
                    checked.add(name, folder)
                    differences[name] = checked.parity[name].of_file["probabilities"]
                else:
                    only_logits = keras.Model(model.input, {"logits": model.output["logits"]})
                    images = sample_images.drawn(reading, 8).images
                    formats.write(name, only_logits, folder, calibration=images)
                    answers = formats.open_written(name, folder)(images)["logits"]
                    assert answers.shape == (8, 4), answers.shape
                    assert np.isfinite(answers).all()
                    differences[name] = float(np.ptp(answers))
                found[name] = "ok"
            except Exception as error:
                found[name] = f"{type(error).__name__}: {first_line(error, 300)}"
        differences["model"] = checked.parity[next(iter(checked.parity))].of_model["probabilities"]
    return found, differences


def _calibrated(backbone, reading, rnn_units):
    """Random weights whose logits differ by image, as those of a trained model do."""
    from trainer.exporting import sample_images
    from trainer.models import batch_norm, classifier

    model = classifier.create_model(
        backbone, image_size=reading.image_size, channels=1, num_classes=4, rnn_units=rnn_units
    )
    images = sample_images.drawn(reading, 8).images
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
    found, _ = try_formats(backbone, rnn_units)
    assert set(found.values()) == {"ok"}, found


if __name__ == "__main__":
    from cxr_tfrecords.quiet import quiet_tensorflow

    quiet_tensorflow()
    for one in sys.argv[1:] or TABLE:
        started = time.process_time()
        try:
            found, differences = try_formats(one)
        except UserError as error:
            found, differences = {"all": str(error)}, {}
        shown = " ".join(f"{name} {value:.1e}" for name, value in differences.items())
        print(f"{one}: {found} {shown} {time.process_time() - started:.0f} s", flush=True)
