"""Names for TFDS: every class gets one, and two classes never the same."""

import pytest

from cxr_tfrecords import tfds_metadata
from cxr_tfrecords.errors import UserError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["COVID", "Viral Pneumonia"], ("covid", "viral_pneumonia")),
        (["新冠", "正常"], ("class_0", "class_1")),
        (["Норма", "Normal"], ("class_0", "normal")),
        (["COVID+", "COVID-"], ("covid", "class_1")),
        (["class 1", "肺炎", "class_4"], ("class_1", "class_4", "class_2")),
    ],
)
def test_slugs_of_names_in_any_script_are_unique(names, expected):
    assert tfds_metadata.slugs(names) == expected


@pytest.mark.parametrize(
    "names",
    [["Viral Pneumonia", "viral_pneumonia"], ["covid", "COVID"], ["НОРМА", "норма"]],
)
def test_two_names_of_one_class_are_refused(names):
    with pytest.raises(UserError, match=f"classes '{names[0]}' and '{names[1]}' differ only in"):
        tfds_metadata.slugs(names)
