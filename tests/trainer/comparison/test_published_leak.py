import numpy as np
import pytest

from tests.shared import shared_path
from trainer.comparison import confusion_matrices, published_leak, published_tables
from trainer.comparison.confusion_matrices import Matrices

NAMES = ["sick", "well"]


def _paper(trained=(80, 150), before=(60, 100), images=(100, 200), validation=70):
    """Model A of a made-up paper: 30 and 40 test images, of which 25 and 38 are right."""
    counts = {
        "table_I_class_counts": images,
        "table_IV_train_before_sampling": before,
        "table_V_train_after_sampling": trained,
    }
    content = {key: dict(zip(NAMES, values, strict=True)) for key, values in counts.items()}
    for key in ("table_IV_train_before_sampling", "table_V_train_after_sampling"):
        content[key] = {"none": content[key]}
    content["table_II_split_counts"] = {"train": 160, "validation": validation, "test": 70}
    models = {"A": np.array([[25, 5], [2, 38]]), "B": np.array([[15, 15], [0, 40]])}
    return Matrices(NAMES, models, content)


def test_leak_is_what_training_and_test_have_beyond_the_class():
    # sick: 80 + 30 - 100 = 10; well: 150 + 40 - 200 = -10, which is no image.
    (leak,) = published_leak.find_leaks(_paper())
    assert leak.shared.tolist() == [10, 0]
    assert leak.others.tolist() == [20, 40]
    assert leak.correct_others.tolist() == [15, 38]
    assert leak.accuracy_on_others.estimate == pytest.approx(53 / 60)


def test_leak_of_all_test_images_leaves_no_negative_count():
    # sick: 100 + 30 - 100 = 30, all of them; well: 199 + 40 - 200 = 39, one more than is right.
    paper = _paper(trained=(100, 199))
    (leak,) = published_leak.find_leaks(paper)
    assert leak.shared.tolist() == [30, 39]
    assert leak.correct_others.tolist() == [0, 0]
    assert "– |" in published_leak.describe_leaks(paper)


def test_no_leak_without_overlap_or_counts_or_where_images_are_repeated():
    clean = _paper(trained=(70, 160))
    assert published_leak.find_leaks(clean) == []
    assert published_leak.describe_leaks(clean) == ""
    assert published_leak.find_leaks(_paper(trained=(101, 199))) == []
    bare = Matrices(NAMES, clean.models, {})
    assert published_leak.find_leaks(bare) == []


def test_leak_stands_before_any_figure_and_warns_of_comparisons():
    leak = published_leak.describe_leaks(_paper())
    page = confusion_matrices.describe(_paper(), leak)
    assert page.index("at least 10 of its 70 test images (14%)") < page.index("## Metrics")
    assert "A was right on 53 of the other 60: 88.3%" in page
    assert "Do not rank a model that may have been trained on its test images" in page
    plain = confusion_matrices.describe(_paper())
    assert "## Metrics" not in plain
    assert "Do not rank" not in plain


def test_table_before_sampling_fits_a_clean_split_only_to_the_image():
    # 100 - 60 - 30 = 10 and 200 - 100 - 40 = 60 are left: 70, the validation split.
    rest = published_leak.left_for_validation(_paper(), "A")
    assert rest is not None
    assert rest.tolist() == [10, 60]
    assert "Table IV contradicts Table V" in published_leak.describe_leaks(_paper())
    for other in (_paper(validation=71), _paper(before=(75, 85)), _paper(before=(60, 99))):
        assert published_leak.left_for_validation(other, "A") is None
        assert "contradicts" not in published_leak.describe_leaks(other)


def test_the_papers_leak_and_bounds():
    matrices = confusion_matrices.read_matrices(str(shared_path("paper/tables.json")))
    (leak,) = published_leak.find_leaks(matrices)
    assert (leak.model, leak.shared.tolist()) == ("A", [356, 607, 1025, 128])
    assert (leak.shared / leak.tested).round(2).tolist() == [0.51, 0.5, 0.5, 0.47]
    assert (leak.correct_others.sum(), leak.others.sum()) == (1930, 2117)
    assert leak.accuracy_on_others.estimate == pytest.approx(0.912, abs=5e-4)
    for model in "ABC":
        rest = published_leak.left_for_validation(matrices, model)
        assert rest is not None
        assert rest.sum() == 3387
    (bounds,) = confusion_matrices.paired_bounds(matrices.models)
    assert (bounds.first, bounds.second) == ("B", "C")
    assert (bounds.only_second, bounds.only_first) == (271, 208)
    assert bounds.p_high == pytest.approx(0.0040, abs=5e-5)
    assert bounds.exact_high == pytest.approx(0.0046, abs=5e-5)


def test_the_papers_text_is_checked():
    matrices = confusion_matrices.read_matrices(str(shared_path("paper/tables.json")))
    page = published_tables.describe_published(matrices)
    assert "The text gives B a loss of 67% (section III.B" in page
    assert "Table VII prints 64" in page
    assert "B and C differ whichever images each got wrong" in page
    text = shared_path("paper/wuisan2022.txt").read_text(encoding="utf-8")
    assert "dari 67% menjadi 48%" in text
    for claim in published_tables.claims(matrices, "no_difference_by_text"):
        assert claim["words"] in text
