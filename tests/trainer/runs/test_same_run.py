"""Which run directories a command goes on with."""

import dataclasses
import json

import pytest

from cxr_tfrecords.errors import UserError
from tests.helpers import write_dataset
from tests.trainer.fake_run import LOSSES, write_run
from trainer.runs import run_files, same_run
from trainer.settings.config import TrainConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), image_size=8)


def finished_run(folder, data, **settings):
    """The settings of a finished run of 8 epochs, made up, and its checkpoint."""
    settings = {"epochs": len(LOSSES), "sampler": "none", "backbone": "tiny", **settings}
    counts = {split: [3, 3, 3, 3] for split in ("train", "validation", "test")}
    dataset = {"fingerprint": data.fingerprint}
    path = write_run(folder, counts=counts, planned=[3] * 4, dataset=dataset, **settings)
    (folder / run_files.MODEL).touch()
    (folder / "checkpoints" / "resume" / "epoch-8").mkdir(parents=True)
    return TrainConfig.from_json(json.loads((folder / "config.json").read_text())["config"]), path


def test_more_epochs_go_on_with_a_run_and_fewer_are_another_run(data, tmp_path):
    config, _ = finished_run(tmp_path, data)
    assert same_run.added_epochs(config) == 0
    more = dataclasses.replace(config, epochs=11)
    same_run.check_same_run(more, data)
    assert same_run.added_epochs(more) == 3
    with pytest.raises(UserError, match="--epochs: 8 there, 5 here"):
        same_run.check_same_run(dataclasses.replace(config, epochs=5), data)
    with pytest.raises(UserError, match=r"flags \(--seed: 0 there, 1 here\)"):
        same_run.check_same_run(dataclasses.replace(more, seed=1), data)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sampler": "progressive"}, "progressive spreads its class shares over all epochs"),
        ({"loss": "ldam_drw"}, "ldam_drw weighs classes after 80% of the epochs"),
        ({"loss": "ldam_drw", "drw_epoch": 7}, ""),
        ({"lr_schedule": "cosine"}, "cosine lowers the learning rate up to the last epoch"),
        ({"lr_schedule": "triangular"}, ""),
    ],
)
def test_more_epochs_are_refused_where_earlier_ones_depend_on_the_number(
    data, tmp_path, settings, reason
):
    config, _ = finished_run(tmp_path, data, **settings)
    more = dataclasses.replace(config, epochs=9)
    if not reason:
        same_run.check_same_run(more, data)
        return
    with pytest.raises(UserError, match=f"--epochs: 8 there, 9 here, and --.*{reason}"):
        same_run.check_same_run(more, data)


def test_a_run_that_stopped_early_stays_as_it_is(data, tmp_path):
    config, path = finished_run(tmp_path, data, epochs=20)
    assert same_run.stopped_early(path)
    more = dataclasses.replace(config, epochs=30)
    same_run.check_same_run(more, data)
    assert same_run.added_epochs(more) == 0


def test_a_finished_run_without_checkpoints_cannot_go_on(data, tmp_path):
    config, _ = finished_run(tmp_path, data)
    (tmp_path / "checkpoints" / "resume" / "epoch-8").rmdir()
    same_run.check_same_run(config, data)
    with pytest.raises(UserError, match="--epochs=9, because its checkpoints were deleted"):
        same_run.check_same_run(dataclasses.replace(config, epochs=9), data)
