"""Folders train, val and test above the class folders, as in Kaggle's chest_xray."""

import csv
import dataclasses
import re
import shutil

import pytest

from beam_pipelines import append, job
from beam_pipelines.inputs import sources
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir, splits, verify
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines import commands
from tests.beam_pipelines.radiographs import write_radiographs

CONFIG = BuildConfig(image_size=24, near_distance=-1)
OWN = dataclasses.replace(CONFIG, splits="own")
CLASSES = {"A": 12, "B": 10}
OPTIONS = beam_flags.parse([], [])
FOLDERS = {"train": splits.TRAIN, "val": splits.VALIDATION, "test": splits.TEST}


@pytest.fixture
def flat(tmp_path):
    return write_radiographs(tmp_path / "flat", CLASSES, nested=False)


@pytest.fixture
def root(flat, tmp_path):
    """Every third image in each of train, val and test."""
    for path in flat.glob("*/*.png"):
        split = list(FOLDERS)[int(re.findall(r"\d+", path.name)[0]) % 3]
        folder = tmp_path / "in" / split / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    return tmp_path / "in"


def find(root, config=CONFIG, **options):
    choice = {"splits_choice": config.splits, "split_names": config.split_names}
    return sources.find_sources(str(root), **choice, **options)


def run(root, out, config=CONFIG):
    how = {"overwrite": False, "resume": True, "max_bad_fraction": 0.0, "page": False}
    return job.build(find(root, config), str(out), config, OPTIONS, threads=1, **how).manifest


def rows(out):
    with open(out / dataset_dir.SOURCES, newline="") as file:
        return {row["filename"]: row for row in csv.DictReader(file)}


def test_the_folders_splits_are_kept(root, tmp_path):
    listed = find(root)
    assert listed.class_names == ("A", "B")
    assert listed.notes == (
        "the splits of the folders test, train, val are kept; --splits=own ignores them",
    )
    manifest = run(root, tmp_path / "out")
    assert manifest["given_splits"]["images"] == 22
    for name, row in rows(tmp_path / "out").items():
        folder, class_name, _ = name.split("/")
        assert (row["split"], row["class"]) == (FOLDERS[folder], class_name)
    assert verify.verify(str(tmp_path / "out")).faults == []


def test_own_splits_are_those_of_the_same_images_without_split_folders(flat, root, tmp_path):
    run(flat, tmp_path / "expected")
    manifest = run(root, tmp_path / "out", OWN)
    assert manifest["given_splits"]["images"] == 0
    assert "are taken together and split anew" in find(root, OWN).notes[0]
    names = {name.split("/", 1)[1]: row["split"] for name, row in rows(tmp_path / "out").items()}
    assert names == {name: row["split"] for name, row in rows(tmp_path / "expected").items()}
    with pytest.raises(UserError, match="--splits says of them, are not those it was made of"):
        run(root, tmp_path / "out", dataclasses.replace(OWN, splits="given"))


def test_copies_in_two_split_folders_are_refused_leave_train_or_join(root, tmp_path):
    shutil.copy(root / "train" / "A" / "A-0.png", root / "test" / "A" / "copy.png")
    with pytest.raises(UserError, match=r"leak: 1 groups.*A-0.png.*ignore them with --splits=own"):
        run(root, tmp_path / "out")
    drop = dataclasses.replace(CONFIG, given_leaks="drop_from_train")
    assert run(root, tmp_path / "dropped", drop)["given_splits"]["dropped"] == 1
    assert rows(tmp_path / "dropped")["train/A/A-0.png"]["split"] == ""
    run(root, tmp_path / "own", OWN)
    joined = rows(tmp_path / "own")
    assert joined["train/A/A-0.png"]["split"] == joined["test/A/copy.png"]["split"] != ""
    for name in ("dropped", "own"):
        assert verify.verify(str(tmp_path / name)).faults == []


def test_appended_images_take_the_splits_of_their_folders(flat, root, tmp_path):
    more = write_radiographs(tmp_path / "more" / "test", {"A": 15}, nested=False)
    for path in flat.glob("A/*.png"):  # the first images are those of the data set
        (more / "A" / path.name).unlink()
    run(root, tmp_path / "out")
    listed = find(tmp_path / "more", known_classes=("A", "B"))
    append.append(listed, str(tmp_path / "out"), CONFIG, OPTIONS, max_bad_fraction=0.0)
    after = rows(tmp_path / "out")
    assert len(after) == 22 + 3
    assert [after[f"test/A/A-{n}.png"]["split"] for n in (12, 13, 14)] == [splits.TEST] * 3
    assert verify.verify(str(tmp_path / "out")).faults == []


def test_an_append_keeps_the_choice_of_its_data_set(root, tmp_path):
    run(root, tmp_path / "out", OWN)
    done = commands.build(f"--input_dir={root}", f"--output_dir={tmp_path / 'out'}", "--append")
    assert "are taken together and split anew (--splits=own)" in done.stdout, done.stderr


def test_words_for_splits_and_what_lies_beside_them(root):
    (root / "val").rename(root / "Validate")
    (root / "train").rename(root / "TRAINING")
    plain = find(root)
    assert {file.split for file in plain.listed} == {0, 1, 2}
    shutil.copytree(root, root.parent / "again")
    shutil.move(root.parent / "again", root / "chest_xray")  # as in Kaggle's archive
    (root / "__MACOSX" / "chest_xray").mkdir(parents=True)
    (root / "test" / ".ipynb_checkpoints").mkdir()
    (root / "README.txt").write_text("x")
    listed = find(root)
    assert listed.listed.digest == plain.listed.digest
    assert listed.ignored == (
        "__MACOSX",
        "chest_xray (holds folders of splits again)",
        "test/.ipynb_checkpoints",
    )


def test_images_and_masks_below_folders_of_splits(root):
    for folder in list(root.glob("*/*")):
        folder.rename(folder.parent / "moved")
        folder.mkdir()
        (folder.parent / "moved").rename(folder / "images")
        (folder / "masks").mkdir()
    first = next(iter(find(root, with_masks=True).listed))
    assert first.filename == "test/A/images/A-11.png"
    assert first.mask == "test/A/masks/A-11.png"
    assert "test/A/masks" in find(root).ignored


FOLDS = dataclasses.replace(CONFIG, folds=3)


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        ("in/extra", CONFIG, "the splits test, train, val and beside them extra: move these out"),
        ("in/val2", OWN, "beside them val2"),
        ("in/dev", CONFIG, r"its folder dev, called as a split, holds no class folder"),
        ("", FOLDS, r"--folds makes fold0, fold1, fold2: --splits=own ignores"),
    ],
)
def test_folders_that_contradict_the_layout_are_refused(root, change, config, message):
    (root.parent / change).mkdir(exist_ok=True)
    with pytest.raises(UserError, match=message):
        find(root, config)


def test_folds_of_all_images_need_own_splits(root, tmp_path):
    config = dataclasses.replace(FOLDS, splits="own")
    assert run(root, tmp_path / "out", config)["counts"].keys() == {"fold0", "fold1", "fold2"}


def test_the_folder_above_is_named(root, tmp_path, flat):
    shutil.move(root, tmp_path / "outer" / "chest_xray")
    with pytest.raises(UserError, match=r"holds chest_xray alone.*--input_dir=.*/chest_xray$"):
        find(tmp_path / "outer")
    with pytest.raises(UserError, match=r"\(A, B\) are not called train, val, test"):
        find(flat, dataclasses.replace(CONFIG, splits="given"))
    shutil.move(tmp_path / "outer" / "chest_xray" / "test", tmp_path / "only" / "test")
    with pytest.raises(UserError, match=r"no image in the train split.*ignore them with --splits"):
        run(tmp_path / "only", tmp_path / "out")
