"""Which classes are named and shown where there are hundreds."""

import pytest

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.pages.class_lists import check_known, few, left_out, shown_classes


def test_long_lists_are_cut_and_say_how_many_are_left_out():
    assert few(["a", "b"], 2) == "a, b"
    assert few(map(str, range(500))).endswith("18, 19 and 480 more")


def test_the_largest_and_the_smallest_classes_are_shown_in_label_order():
    counts = [5, 1, 9, 2, 7, 3]
    assert shown_classes(counts) == [0, 1, 2, 3, 4, 5]
    assert shown_classes(counts, 4) == [1, 2, 3, 4]
    assert shown_classes([1] * 6, 4) == [0, 1, 4, 5]
    assert left_out(40, "stats.json") == ""
    assert left_out(41, "stats.json").startswith("Of 41 classes, the 20 with most images")


def test_an_unknown_class_is_refused_without_hundreds_of_names():
    check_known(["a"], ["a", "b"], "classes")
    with pytest.raises(UserError, match=r"--classes: the data set has no class x; .*and 480 more"):
        check_known(["x", "1"], [str(c) for c in range(500)], "classes")
