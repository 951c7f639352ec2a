"""What is given in the place of a run is named for what it is."""

import pytest

from cxr_tfrecords.errors import UserError
from trainer.runs.finished_run import read_kept_run, read_run


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("cascade.json", r"is a cascade .* name that of a stage"),
        ("deployment.json", r"is an exported model .* name the one that it was exported from"),
        ("manifest.json", r"is a data set: name a run that was trained on it"),
        ("runs/none-seed0/config.json", r"is a study: name one of its runs, as .*/runs/none-seed0"),
        ("image.png", r"is .*/given a finished run\?"),
    ],
)
def test_other_folders_are_named_for_what_they_are(file, told, tmp_path):
    path = tmp_path / "given" / file
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(UserError, match=told):
        read_run(str(tmp_path / "given"))
    with pytest.raises(UserError, match=told.replace("is .*/given a", "is not a").rstrip("\\?")):
        read_kept_run(str(tmp_path / "given"), "model")


def test_a_path_without_a_folder_and_a_run_that_has_not_ended_are_told(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist: name a finished run directory"):
        read_run(str(tmp_path / "nowhere"))
    model = tmp_path / "run" / "model.keras"
    model.parent.mkdir()
    model.touch()
    with pytest.raises(UserError, match=r"model.keras is a file: name its run directory, .*/run$"):
        read_run(str(model))
    (model.parent / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"run is a run that has not ended: run its training again"):
        read_run(str(model.parent))
