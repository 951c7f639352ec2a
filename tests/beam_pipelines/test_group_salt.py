"""The secret that ids of patients are hashed with: where it is, and what happens without it."""

import stat

import pytest

from beam_pipelines.inputs import group_salt, sources
from cxr_tfrecords.errors import UserError


@pytest.fixture
def default_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "cxr-balance" / "group_salt"


def test_the_first_build_that_may_need_a_salt_makes_it_for_all_later_ones(default_file):
    salt = group_salt.find_salt("", "out", "")
    assert group_salt.keep_salt("", salt, may_hold_ids=False) is None
    assert not default_file.exists()
    assert group_salt.keep_salt("", salt) == salt
    assert len(salt) == 32
    assert stat.S_IMODE(default_file.stat().st_mode) == 0o600
    assert group_salt.find_salt("", "out", "") == salt
    assert group_salt.find_salt("", "out", group_salt.salt_id(salt)) == salt


def test_only_tables_and_files_that_may_be_dicom_make_a_salt_necessary():
    def may_hold_ids(*names, tie=""):
        rows = (sources.SourceFile(name, 0, tie=tie) for name in names)
        return sources.FileList(rows).may_hold_ids

    assert not may_hold_ids("a.png", "b.JPG")
    assert may_hold_ids("a.png", "b")
    assert may_hold_ids("a.png", tie="ab" * 16)


def test_a_salt_that_is_lost_wrong_or_given_away_is_refused(default_file, tmp_path):
    wrong, short = tmp_path / "wrong", tmp_path / "short"
    wrong.write_text("another secret, long enough")
    short.write_text("secret")
    lost = [("", "cannot be read"), (str(wrong), "another secret")]
    for path, message in lost:
        with pytest.raises(UserError, match=message):
            group_salt.find_salt(path, "out", group_salt.salt_id("the secret of the data set"))
    with pytest.raises(UserError, match="6 characters, which can be guessed"):
        group_salt.find_salt(str(short), "out", "")
    assert group_salt.find_salt(str(short), "out", group_salt.salt_id("secret")) == "secret"
    with pytest.raises(UserError, match="given away"):
        group_salt.find_salt(str(tmp_path / "out" / "salt"), str(tmp_path / "out"), "")


def test_ids_without_protection_are_refused_or_warned_of(default_file):
    assert (
        group_salt.find_salt("", "out", group_salt.salt_id("")) == ""
    )  # of a version without salts
    assert "warning: ids of patients" in group_salt.check_protection(True, "")[0]
    assert group_salt.check_protection(False, None) == group_salt.check_protection(True, "s") == ()
    default_file.parent.parent.write_text("a file where the folder should be")
    assert group_salt.keep_salt("", "s" * 32) is None
    with pytest.raises(UserError, match="--group_salt_file"):
        group_salt.check_protection(True, None)
    with pytest.raises(UserError, match="--anonymize_names needs a secret"):
        group_salt.keep_salt("", "s" * 32, may_hold_ids=False, for_names=True)
