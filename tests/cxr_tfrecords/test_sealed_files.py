"""A file with a digest is read as it was written, or refused in one line."""

import json

import numpy as np
import pytest

from cxr_tfrecords import files
from cxr_tfrecords.checks import seal
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.sealed_files import read_sealed
from tests.damage import edit_json

CONTENT = {
    "runs": [{"metrics": {"mcc": 0.5, "by seed": (1, 2.5)}, "names": ["a|b", "ü", "\udcff"]}],
    "share": {10: 0.1, 9: None},
    "verdict": {"text": ["One sentence.", "Another."], "likely": True},
}


def _read(path):
    return read_sealed(str(path), "is this its folder?", "trainer.evaluate")


def test_each_of_400_edits_is_harmless_or_one_line(tmp_path):
    path, rng, refused = tmp_path / "evaluation.json", np.random.default_rng(0), 0
    files.write_json(str(path), seal.sealed(CONTENT))
    plain = json.loads(json.dumps(CONTENT))
    before = _read(path)
    assert {**before, **plain} == before
    text = json.dumps(before)
    for _ in range(400):
        words, data = edit_json(text, rng)
        path.write_bytes(data)
        try:
            content, message = _read(path), str(path)
        except UserError as error:
            content, message = before, str(error)
            refused += 1
        assert content == before, words
        assert message.startswith(str(path)), words
        assert "\n" not in message, words
    assert refused > 350


def test_a_missing_or_older_file_is_told(tmp_path):
    path = tmp_path / "evaluation.json"
    with pytest.raises(UserError, match=r"No such file or directory; is this its folder\?"):
        _read(path)
    for content in ('{"runs": []}', "[]", "3"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"no digest\): run trainer\.evaluate again"):
            _read(path)
