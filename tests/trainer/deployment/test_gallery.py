"""The page of predictions: what needs a look first, bounded, and safe whatever files are called."""

import base64
import csv
import html
import os
import re

import numpy as np
import pytest
from absl.testing import flagsaver

from cxr_tfrecords import csv_rows, images
from cxr_tfrecords.errors import UserError
from tests.trainer.serving.conftest import SIZE, png, run_dir  # noqa: F401
from trainer import predict
from trainer.deployment import gallery
from trainer.deployment.predictor import Classifier

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
LATIN = os.fsdecode(b"gone-\xe9.png")  # bytes that are not UTF-8; removed after it was predicted
HOSTILE = "<img src=x onerror=alert(1)>.png"


def row(name, label, probability, in_set, outside=False):
    rest = (1 - probability) / 3
    return {
        "id": name,
        "class": CLASSES[label],
        **{f"calibrated_{c}": probability if k == label else rest for k, c in enumerate(CLASSES)},
        **{f"in_set_{c}": int(k in in_set) for k, c in enumerate(CLASSES)},
        "out_of_distribution": int(outside),
    }


# In the order of the page.
ROWS = [
    row("outside.png", 3, 0.99, [3], outside=True),
    row("unsure.png", 1, 0.4, [1, 2]),
    row("none.png", 0, 0.9, []),
    row(HOSTILE, 0, 0.7, [0]),
    row(LATIN, 2, 0.8, [2]),
    row("sure.png", 2, 0.95, [2]),
]


@pytest.fixture(scope="module")
def page(run_dir, tmp_path_factory):  # noqa: F811
    """Makes the page of the rows, written to the file in reverse; returns its HTML."""
    folder = tmp_path_factory.mktemp("gallery")
    for number, one in enumerate(ROWS):
        if one["id"] != LATIN:
            (folder / one["id"]).write_bytes(png(number % 4, seed=number))
    with csv_rows.open_csv(str(folder / "rows.csv"), "w") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS[::-1])
    classifiers = [Classifier.load(run_dir, ood_method="none")]

    def make(most):
        output = folder / f"{most}.html"
        done = gallery.write_gallery(
            str(folder / "rows.csv"), str(folder), str(output), classifiers, most
        )
        return done, output.read_text(encoding="utf-8"), classifiers[0]

    return make


def ids(text):
    return [html.unescape(name) for name in re.findall(r"<br>([^<]+)</figcaption>", text)]


def test_what_needs_a_look_comes_first_with_image_and_heat_map(page):
    done, text, classifier = page(200)
    assert done.endswith("200.html shows 6 images")
    names = [one["id"].replace("\udce9", "\N{REPLACEMENT CHARACTER}") for one in ROWS]
    assert ids(text) == names
    pictures = [base64.b64decode(one) for one in re.findall(r"jpeg;base64,([^\"]+)", text)]
    assert len(pictures) == 2 * 5
    assert text.count("no image") == 1, "a file was removed after it was predicted"
    first = images.decode(pictures[0]).pixels
    known = classifier.read(png(0, seed=0))
    assert first.shape == (SIZE, SIZE)
    assert np.abs(first.astype(int) - known[..., 0].astype(int)).mean() < 5, "JPEG changes little"
    assert images.decode(pictures[1]).pixels.shape == (SIZE, SIZE, 3)
    assert "cannot be excluded: Lung_Opacity, Normal" in text
    assert "cannot be excluded: none of the classes fits" in text
    assert text.count("unlike the training images: the probabilities") == 1


def test_the_page_is_bounded_and_says_so(page):
    done, text, _ = page(2)
    assert done.endswith("shows 2 of 6 images")
    assert ids(text) == ["outside.png", "unsure.png"]


def test_buttons_choose_a_class_and_names_cannot_be_html(page):
    _, text, _ = page(200)
    labels = re.findall(r'id="(s\d)"[^>]*><label for="(s\d)">([^<]+)</label>', text)
    assert all(a == b for a, b, _ in labels)
    assert [name for *_, name in labels] == [
        *("all (6)", "COVID (2)", "Lung_Opacity (1)", "Normal (2)", "Viral Pneumonia (1)"),
        "unlike the training images (1)",
    ]
    assert text.count('<div class="c2">') == 2
    assert "#s3:checked ~ .row > :not(.c2) { display: none; }" in text
    assert "<script" not in text
    assert "<img src=x" not in text
    assert text.count(html.escape(HOSTILE)) == 3


def test_a_page_that_exists_is_refused(tmp_path):
    (tmp_path / "page.html").touch()
    with flagsaver.flagsaver(
        model=[str(tmp_path)], input=str(tmp_path), html=f"{tmp_path}/page.html"
    ):
        predict.FLAGS.mark_as_parsed()
        with pytest.raises(UserError, match=r"page\.html exists: name another"):
            predict.main([])
        predict.FLAGS.html = f"{tmp_path}/nowhere/page.html"
        with pytest.raises(UserError, match=r"there is no folder .*nowhere: make it first"):
            predict.main([])


def test_a_class_that_is_not_the_most_probable_one_is_explained():
    """After balancing, the raw probabilities may have another order than those of use."""
    balanced = row("a.png", 0, 0.9, [0]) | {"class": "Normal"}
    assert "at the class shares of use COVID is the most probable" in gallery._captions(
        balanced, CLASSES
    )
    assert not any("most probable" in line for line in gallery._captions(ROWS[1], CLASSES))
