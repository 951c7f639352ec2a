"""--input_csv: lists of images as people and published data sets have them."""

import os

import pytest

from beam_pipelines import job
from beam_pipelines.folders.split_words import split_number
from beam_pipelines.inputs import input_tables, listed_paths
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import splits
from cxr_tfrecords.errors import UserError

FILES = ("A/1.png", "A/2.png", "B/1.png", "B/3.png")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "in"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    return folder


def read(root, text, folder=None, **how):
    path = root.parent / "list.csv"
    path.write_text(text)
    return input_tables.read_input_csv(
        str(path), str(root if folder is None else folder), "", **how
    )


def table(rows, header="path,label"):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)])


def plain(root):
    return [(name, name[0]) for name in FILES]


def names(found):
    return [file.filename for file in found.listed]


def test_absolute_paths_are_stored_relative_to_the_input_folder_or_their_common_one(root):
    rows = [(root / name, label) for name, label in plain(root)]
    found = read(root, table(rows))
    assert (found.root, tuple(names(found))) == (str(root), FILES)
    assert all(file.num_bytes == 5 for file in found.listed)
    elsewhere = read(root, table(rows), root.parent / "other")
    assert (elsewhere.root, tuple(names(elsewhere))) == (str(root), FILES)
    assert f"relative to {root}, the common folder" in elsewhere.notes[-1]


def test_absolute_and_relative_paths_meet_in_their_common_folder(root):
    other = root.parent / "more" / "4.png"
    other.parent.mkdir()
    other.write_bytes(b"1")
    found = read(root, table([*plain(root), (other, "B")]))
    assert found.root == str(root.parent)
    assert names(found) == [*(f"in/{name}" for name in FILES), "more/4.png"]


def test_dots_are_resolved_in_the_text_and_may_lead_out_of_the_folder(root):
    rows = [("./A/1.png", "A"), ("A/x/../2.png", "A"), ("B//1.png", "B")]
    assert names(read(root, table(rows))) == list(FILES[:3])
    found = read(root, table([("1.png", "A"), ("../B/1.png", "B")]), root / "A")
    assert (found.root, names(found)) == (str(root), ["A/1.png", "B/1.png"])
    with pytest.raises(UserError, match=r"line 3: A/1\.png is in line 2 already, with the label"):
        read(root, table([("A/1.png", "A"), ("B/../A/1.png", "B")]))


def test_links_are_followed_and_keep_their_names(root):
    (root / "C").symlink_to(root / "B")
    (root / "A" / "link.png").symlink_to(root / "B" / "3.png")
    found = read(root, table([("A/link.png", "A"), ("C/1.png", "B")]))
    assert names(found) == ["A/link.png", "C/1.png"]
    assert all(file.num_bytes == 5 for file in found.listed)


def test_home_folders_and_backslashes_are_understood(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root))
    found = read(root, table([("~/A/1.png", "A"), ("B\\1.png", "B"), (".\\B\\3.png", "B")]))
    assert names(found) == ["A/1.png", "B/1.png", "B/3.png"]
    with pytest.raises(UserError, match=r"line 2: C:\\A\\1\.png is a path on a Windows drive"):
        read(root, table([("C:\\A\\1.png", "A"), ("B/1.png", "B")]))
    with pytest.raises(UserError, match=r"line 3: .* holds a NUL character"):
        read(root, table([("A/1.png", "A"), ("B/1\0.png", "B")]))


def test_addresses_of_a_store_have_a_common_root_too():
    paths = ["s3://bucket/in/a/1.png", "s3://bucket/in/b/2.png"]
    assert listed_paths.common_root("s3://bucket/in", paths, "") == (
        "s3://bucket/in",
        ["a/1.png", "b/2.png"],
    )
    assert listed_paths.common_root("/data", paths, "")[0] == "s3://bucket/in"
    assert listed_paths.common_root("s3://bucket/in/a", ["1.png", "../b/2.png"], "") == (
        "s3://bucket/in",
        ["a/1.png", "b/2.png"],
    )
    for other in ("/data/1.png", "s3://other/1.png"):
        with pytest.raises(UserError, match="one list for each"):
            listed_paths.common_root("/data", [*paths, other], "--input_csv=list.csv")


def test_names_alone_are_looked_for_below_the_folder(root):
    found = read(root, table([("2", "A"), ("3.png", "B"), ("gone.png", "B")], "Image Index,class"))
    assert names(found) == ["A/2.png", "B/3.png", "gone.png"]
    assert "2 files were found by their names" in found.notes[-1]
    with pytest.raises(UserError, match=r"line 2: 1\.png is the name of A/1\.png and B/1\.png in"):
        read(root, table([("1.png", "A"), ("3.png", "B")]))


def test_the_sheets_of_published_data_sets_are_read(root):
    nih = "Image Index,Finding Labels,Follow-up #,Patient ID,OriginalImage[Width,Height],\n"
    found = read(root, nih + "2.png,No Finding,0,1,9,9,\n3.png,Hernia,0,1,9,9,\n")
    assert found.class_names == ("Hernia", "No Finding")
    assert len({file.tie for file in found.listed}) == 1
    assert "group from 'patient id'" in found.notes[0]
    rsna = "patientId,x,y,width,height,Target\n2,,,,,0\n3,5,5,5,5,1\n3,9,9,9,9,1\n"
    found = read(root, rsna, label_column="Target")
    assert (names(found), found.class_names) == (["A/2.png", "B/3.png"], ("0", "1"))
    assert not any(file.tie for file in found.listed)
    assert "1 repeated rows were taken once" in found.notes[-1]
    mimic = "subject_id,study_id,dicom_id,label\n7,1,2,a\n8,1,3,b\n"
    assert len({file.tie for file in read(root, mimic).listed} - {""}) == 2
    chexpert = "Path,Sex,Pneumonia\nin/A/1.png,F,1.0\nin/B/1.png,M,0.0\n"
    found = read(root, chexpert, root.parent, label_column="Pneumonia")
    assert found.class_names == ("0.0", "1.0")
    covidx = "3 2.png positive cohen\n4 3.png negative rsna\n"
    found = read(root, covidx, path_column="2", label_column="3", group_column="1")
    assert found.class_names == ("negative", "positive")
    assert len({file.tie for file in found.listed} - {""}) == 2
    with pytest.raises(
        UserError, match=r"--path_column, --label_column\); it has no header.*4 \(co"
    ):
        read(root, covidx)


def test_a_group_column_may_have_any_name_and_is_pointed_at(root):
    rows = [(name, label, number // 2) for number, (name, label) in enumerate(plain(root))]
    text = table(rows, "path,label,patient")
    found = read(root, text)
    assert not any(file.tie for file in found.listed)
    assert "--group_column='patient'" in found.notes[-1]
    ties = [file.tie for file in read(root, text, group_column="patient").listed]
    assert ties[0] == ties[1] != ties[2] == ties[3]
    unknown = read(root, text.replace(",0\n", ",unknown\n"), group_column="patient")
    assert [bool(file.tie) for file in unknown.listed] == [False, False, True, True]
    assert "group of 2 images names nobody" in unknown.notes[-1]


def test_several_labels_are_warned_of_or_left_out(root):
    rows = [
        ("A/1.png", "Edema|Mass"),
        ("A/2.png", "Edema"),
        ("B/1.png", "Mass"),
        ("B/3.png", "|Mass|"),
    ]
    found = read(root, table(rows))
    assert "warning: 2 rows have several labels, such as 'Edema|Mass'" in found.notes[-1]
    found = read(root, table(rows), label_separator="|")
    assert found.class_names == ("Edema", "Mass")
    assert names(found) == ["A/2.png", "B/1.png", "B/3.png"]
    assert found.left_out == {"several labels (--label_separator)": 1}
    assert "1 of 4 rows have several labels and were left out" in found.notes[-1]
    for label in ("Edema and Mass", "Edema, old"):
        rows[0] = ("A/1.png", f'"{label}"')
        assert read(root, table(rows[:3])).notes == ()
    rows[0] = ("A/1.png", '"Edema, Mass"')
    assert "--label_separator=','" in read(root, table(rows[:3])).notes[-1]
    with pytest.raises(UserError, match="names 1 class"):
        read(root, table(rows[2:]), label_separator="|")


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("train", ("train", "Training", " TRAIN ")),
        ("validation", ("val", "valid", "validate", "dev", "Validation")),
        ("test", ("test", "testing")),
    ],
)
def test_the_words_for_splits_are_understood(split, words):
    assert {split_number(word, splits.SPLITS, "") for word in words} == {splits.SPLITS.index(split)}
    with pytest.raises(UserError, match="'holdout' is not one of train, validation, test; words"):
        split_number("holdout", splits.SPLITS, "line 2: split")


def test_a_path_list_is_relative_to_its_own_folder(root):
    found = read(root, table([("in/A/1.png", "A"), ("in/B/1.png", "B")]), "")
    assert found.root == os.path.dirname(root)
    assert names(found) == ["in/A/1.png", "in/B/1.png"]


def test_a_list_whose_files_all_are_missing_is_pointed_at_the_folder(root):
    found = read(root, table([(f"elsewhere/{name}", label) for name, label in plain(root)]))
    options = beam_flags.parse(["--runner=DirectRunner"], [])
    with pytest.raises(UserError, match=r"paths in a list of images start at --input_dir"):
        job.build(
            *(found, str(root.parent / "out"), BuildConfig(image_size=24), options),
            **{"overwrite": False, "resume": True, "max_bad_fraction": 0.5},
        )


def test_the_splits_of_a_list_are_ignored_or_demanded(root):
    rows = [(*row, "test") for row in plain(root)]
    ignored = read(root, table(rows, "path,label,split"), splits_choice="own")
    assert {file.split for file in ignored.listed} == {-1}
    assert "the column split is ignored (--splits=own)" in ignored.notes[0]
    for choice in ("", "given"):
        kept = read(root, table(rows, "path,label,split"), splits_choice=choice)
        assert {file.split for file in kept.listed} == {splits.SPLITS.index("test")}
    with pytest.raises(UserError, match=r"--splits=given: .* has no column split; it has path"):
        read(root, table(plain(root)), splits_choice="given")
