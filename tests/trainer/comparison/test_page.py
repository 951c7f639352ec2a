"""The comparison's page shows what comparison.json says, by itself, in any browser."""

import datetime
import html
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cxr_tfrecords.pages.figures import REFERENCE_COLOR, line_styles
from cxr_tfrecords.pages.html import figure
from tests import helpers
from tests.trainer import fake_run, fake_study
from trainer.comparison import confusion_matrices
from trainer.comparison.markdown_text import markdown
from trainer.comparison.page import charts
from trainer.comparison.page.curves import counts_by_threshold, precision_recall, roc
from trainer.comparison.page.gallery import mistakes, worst
from trainer.comparison.page.page import render, write_page
from trainer.comparison.page.probabilities import probabilities
from trainer.comparison.page.results import results, sampling, verdict
from trainer.comparison.text import design_line
from trainer.comparison.verdict_text import headline, verdict_lines, warnings
from trainer.evaluation.predictions import Predictions

EVIL = "<script>alert(1)</script>"
SECTIONS = (
    "differences",
    "verdict",
    "results",
    "confusion",
    "recall",
    "training",
    "sampling",
    "probabilities",
    "curves",
    "thresholds",
    "benefit",
    "mistakes",
    "limits",
    "checklists",
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study's directory, its content and its entries."""
    path = tmp_path_factory.mktemp("study")
    content, entries = fake_study.compare(fake_study.write_study(path))
    return str(path), content, entries


@pytest.fixture(scope="module")
def page(study):
    with open(write_page(*study), encoding="utf-8") as file:
        return file.read()


def _anchors(page):
    return re.findall(r'<section id="(\w+)">', page)


def test_sections_stand_in_order_and_the_contents_lead_to_them(page):
    assert _anchors(page) == list(SECTIONS)
    assert re.findall(r'<a href="#(\w+)">', page) == list(SECTIONS)
    assert page.count("<svg") == page.count("</svg>") == 9


def test_verdict_is_that_of_the_text(study, page):
    content = study[1]
    lines = [headline(content), *warnings(content), *verdict_lines(content)]
    shown = re.findall(r'<div class="box \w+"><p>(.*?)</p></div>', page)
    assert [html.unescape(one) for one in shown[: len(lines)]] == lines


def test_colour_of_a_verdict_follows_its_word(study):
    content = json.loads(json.dumps(study[1]))

    def judge(name, word):
        content["differences"][name]["verdict"]["balanced_accuracy"]["word"] = word

    judge("undersample", "worse")
    judge("oversample", "better")
    text = "".join(verdict(content))
    assert re.search(r'<div class="box red"><p>undersample: ', text)
    assert re.search(r'<div class="box green"><p>oversample: ', text)
    for word in ("equivalent", "inconclusive", None):
        judge("oversample", word)
        text = "".join(verdict(content))
        assert re.search(r'<div class="box gray"><p>oversample: ', text)


def test_only_judged_metrics_are_bold(study):
    content = json.loads(json.dumps(study[1]))
    for name, entry in content["entries"].items():
        for metric in ("balanced_accuracy", "mcc"):
            entry["metrics"][metric]["estimate"] = 0.9 if name == "oversample" else 0.5
    for word, bold in (("inconclusive", False), ("better", True)):
        content["differences"]["oversample"]["verdict"]["balanced_accuracy"]["word"] = word
        text = "".join(results(content))
        assert ("<b>90.0%</b>" in text) == bold
        assert "<b>0.9000</b>" not in text


@pytest.mark.slow
def test_same_bytes_on_a_second_call(study, page):
    with open(write_page(*study), encoding="utf-8") as file:
        assert file.read() == page


def test_page_needs_nothing_from_outside(page):
    for attribute in re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page):
        assert attribute.startswith(("data:", "#")), attribute
    assert not re.findall(r"<(?:script|link|iframe|object|embed|base)\b", page)
    assert not re.findall(r"url\((?!#)", page)
    assert "@import" not in page


def test_pictures_scale_down_to_the_width_of_a_telephone(page):
    assert page.count('<svg class="picture"') == 9
    assert not re.findall(r"min-width:\s*\d{3,}px", page)


def test_ids_of_the_page_differ_and_pictures_refer_to_their_own(page):
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        own = set(re.findall(r'\bid="([^"]*)"', picture))
        used = re.findall(r'href="#([^"]*)"', picture) + re.findall(r"url\(#([^)]*)\)", picture)
        assert set(used) <= own


def test_names_and_paths_are_escaped(tmp_path):
    names = [EVIL, "$x_1$", "_hidden", "A & B | `C`\u202e"]
    ids = {
        split: [f"{EVIL}{i}.png" for i in range(sum(counts))]
        for split, counts in fake_study.COUNTS.items()
    }
    paths = fake_study.write_study(
        tmp_path, seeds=(0,), class_names=names, ids=ids, dataset={"path": f"/{EVIL}"}
    )
    content, entries = fake_study.compare(paths)
    page = render(content, entries)
    assert "<script" not in page
    for name in names:
        assert html.escape(name.replace("\u202e", "\ufffd")) in page
    assert "\u202e" not in page
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "$x_1$" in pictures
    assert "_hidden" in pictures
    assert "A &amp; B" in pictures
    text = markdown(content)
    assert not re.search("<script|\u202e|`C`", text)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table


def test_missing_data_and_models_give_notes(study, page):
    assert "No images: /data/radiographs does not exist" in page
    assert "model.keras does not exist any more." in page
    assert "no image" in page


@pytest.mark.slow
def test_page_without_a_gallery_imports_no_tensorflow(study):
    code = (
        "import sys\nfrom tests.trainer import fake_study\n"
        "from trainer.comparison.page.page import render\n"
        "content, entries = fake_study.compare(sys.argv[1:], resamples=2)\n"
        "render(content, entries, gallery=False)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    paths = [entry.runs[0].path for entry in study[2]]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, timeout=180)


def test_operating_points_are_chosen_on_validation_and_measured_on_test(study, page):
    content, entries = study[1], study[2]
    point = content["entries"]["oversample"]["operating_points"]["COVID"][0]
    run = entries[2].runs[0]
    assert run.config.sampler == "oversample"
    for split, key in (("validation", None), ("test", "sensitivity")):
        own = run.predictions(split)
        called = own.probabilities[own.labels == 0, 0] >= point["thresholds"][0] - 1e-12
        if key is None:
            assert 0.95 <= called.mean() < 0.95 + 1 / len(called)
        else:
            assert called.mean() == pytest.approx(point[key]["estimate"])
    shown = f"{point['sensitivity']['estimate']:.1%}"
    assert shown in page
    assert shown in markdown(content)


@pytest.mark.usefixtures("undrawn")
def test_a_class_that_validation_lacks_has_no_threshold(tmp_path):
    counts = {**fake_study.COUNTS, "validation": [20, 30, 40, 0]}
    content, entries = fake_study.compare(
        fake_study.write_study(tmp_path, seeds=(0,), counts=counts)
    )
    assert content["entries"]["none"]["operating_points"]["Viral Pneumonia"] == []
    assert _anchors(render(content, entries, gallery=False))


def test_a_sampler_audit_is_shown_and_a_strange_one_is_left_out(study):
    _, content, entries = study
    path = os.path.join(entries[1].runs[0].path, "sampler_audit.json")
    rows = [
        {
            "realised_counts": [80, 80, 80, 77],
            "unique_so_far": [80 * n, 80 * n, 80 * n, 80],
            "largest_repeat": 1,
            "read_amplification": 4.25,
        }
        for n in (1, 2)
    ]
    audit = {"natural_counts": fake_study.COUNTS["train"], "epochs": rows}
    try:
        for written, expected in ((audit, True), ({"epochs": []}, False), ([1], False)):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(written, file)
            page = "".join(sampling(content, entries))
            assert ("560 of 1,350" in page) == expected
            assert ("No run left a sampler audit" in page) != expected
    finally:
        os.remove(path)


def test_the_line_under_the_title_says_what_was_compared(study, page):
    content = study[1]
    line = design_line(content)
    assert page.index("</h1>") < page.index(html.escape(line)) < page.index("<nav>")
    assert line in markdown(content)
    for part in ("radiographs", "4 classes", "tiny", "96 px", "8 epochs", "seeds 0, 1"):
        assert part in line
    assert "80 to 688 updates a run" in line
    written = os.path.getmtime(os.path.join(content["entries"]["none"]["runs"][0], "metrics.json"))
    day = datetime.datetime.fromtimestamp(written, datetime.UTC).date()
    assert f"newest run {day}" in line


def test_what_limits_the_verdict_stands_beside_it(study):
    content = json.loads(json.dumps(study[1]))

    def shown(part):
        return [line for line in warnings(content) if line.startswith(part)]

    assert "80 to 688 updates" in shown("Unequal budgets")[0]
    assert shown("Two seeds")
    assert not shown("Still improving")
    for entry in content["entries"].values():
        entry |= {"updates": [100] * 3, "seeds": [0, 1, 2], "epochs": [8] * 3}
        entry["best_epochs"] = [3, 4, 7]
    assert not shown("Unequal budgets") + shown("Two seeds") + shown("Still improving")
    content["entries"]["none"]["best_epochs"] = [8, 7, 8]
    (line,) = shown("Still improving")
    assert "2 of 9 runs" in line
    assert "none (2)" in line
    assert html.escape(line) in "".join(verdict(content))


def test_checklists_begin_with_class_imbalance_and_mark_what_authors_fill_in(page):
    checklists = page[page.index('<section id="checklists">') :]
    first = re.search(r'<tbody><tr><td class="text">(.*?)</td>', checklists)
    assert first[1] == "13 Class imbalance"
    assert checklists.count("to be filled in by the authors") >= 6


@pytest.mark.usefixtures("undrawn")
def test_a_papers_tables_stand_beside_only_when_given(study, tmp_path, page):
    names = fake_run.CLASSES
    matrix = [[9, 1, 0, 0], [1, 9, 0, 0], [0, 0, 9, 1], [0, 0, 1, 9]]
    recall = {"table_XIII_recall_percent": {"A": {names[0]: 87}}}
    samplers = {"table_V_train_after_sampling": {"none": dict.fromkeys(names, 10)}}
    file = tmp_path / "tables.json"
    file.write_text(
        json.dumps(
            {
                "citation": "Nobody 2020",
                "class_order": names,
                "confusion_matrices_rows_actual": {"A": matrix},
                "table_I_class_counts": dict.fromkeys(names, 16),
                **recall,
                **samplers,
            }
        )
    )
    paper = confusion_matrices.read_matrices(str(file))
    shown = render(study[1], study[2], paper=paper, gallery=False)
    assert "paper: A (none)" in shown
    leak = "at least 16 of its 40 test images (40%) were trained on"
    assert 0 < shown.index(leak) < shown.index("paper: A (none)")
    assert "<td>87%</td>" in shown
    assert "90.0% (from its matrix)" in shown
    assert "here: undersample" in shown
    assert shown[shown.index('<section id="paper">') :].count("* Viral Pneumonia</td>") == 3
    assert 'id="paper"' not in page


def test_roc_points_give_the_area_of_scikit_learn():
    import sklearn.metrics

    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.2
    scores = np.round(rng.normal(positive, 1), 1)  # many ties
    hits, misses = counts_by_threshold(positive, scores)
    area = np.trapezoid(np.r_[0, hits / hits[-1]], np.r_[0, misses / misses[-1]])
    assert area == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores))


def test_a_figure_of_one_thumbnail_or_of_none_is_as_before():
    assert figure(None, ["a/b"]) == (
        '<figure><div class="none">no image</div><figcaption>a/<wbr>b</figcaption></figure>'
    )


def test_methods_differ_in_colour_and_the_reference_is_black():
    names = [f"m{i}" for i in range(9)]
    styles = line_styles(names, "m3")
    assert styles["m3"]["color"] == REFERENCE_COLOR
    assert len({style["color"] for style in styles.values()}) == 9
    many = line_styles([f"m{i}" for i in range(30)], "m3")
    assert len({(style["color"], style["ls"]) for style in many.values()}) == 30


def test_a_method_has_one_colour_in_all_pictures(study):
    content, entries = study[1:]
    colors = {name: style["color"] for name, style in charts.method_styles(content).items()}
    others = {colors[name] for name in content["differences"]}
    drawn = {line.get_color() for line in charts.forest(content).axes[0].lines}
    assert drawn - {"black"} == others
    for picture in (charts.recall(content), charts.training(content, entries)):
        used = {line.get_color() for axes in picture.axes for line in axes.lines}
        assert set(colors.values()) <= used <= {*colors.values(), "#BBBBBB"}


def test_a_class_of_few_test_groups_is_marked_wherever_it_is_named(study, page):
    rare = "* Viral Pneumonia"
    assert list(study[1]["test"]["rare_classes"]) == ["Viral Pneumonia"]
    sections = "confusion recall sampling probabilities curves thresholds mistakes"
    for section in sections.split():
        part = page[page.index(f'<section id="{section}">') :]
        part = part[: part.index("</section>")]
        assert rare in part, section
        assert "Viral Pneumonia" not in part.replace(rare, ""), section
    assert f"{rare}:" in markdown(study[1])


def test_values_at_their_bound_are_shown_as_such(study):
    content = json.loads(json.dumps(study[1]))
    entry = content["entries"]["none"]
    entry["temperatures"] = [0.1, 1.5]
    slope = entry["probabilities"]["raw"]["calibration_slope/COVID"]
    slope |= {"estimate": 10.0, "low": -10.0, "high": 12.0}
    intercept = entry["probabilities"]["raw"]["calibration_intercept/COVID"]
    intercept |= {"estimate": -1.25, "low": -2.5, "high": 0.0}
    text = "".join(probabilities(content))
    assert "0.10 (bound), 1.50" in text
    assert "none seed 0: the temperature is at its bound of 0.1: validation is" in text
    line = r"{0}</td><td>{1}<br><small>\[{2}, {3}\]"
    assert re.search(line.format("intercept", "-1.25", "-2.50", "0.00"), text)
    assert re.search(line.format("slope", "≥ 10", "≤ −10", "≥ 10"), text)
    assert "none seed 0: the temperature" in markdown(content)


def test_pictures_of_many_classes_show_the_largest_and_the_smallest(study, monkeypatch):
    _, content, _ = study
    monkeypatch.setattr(charts, "DRAWN", 2)
    counts = content["test"]["counts"]
    shown = [content["class_names"][counts.index(pick(counts))] for pick in (max, min)]
    for figure_of in (charts.class_counts, charts.recall):
        ticks = [text.get_text() for text in figure_of(content).axes[0].get_yticklabels()]
        assert [name for name in content["class_names"] if name in " ".join(ticks)] == sorted(
            shown, key=content["class_names"].index
        )


def test_the_most_confident_mistakes_come_first():
    logits = np.array([[3, 0, 0], [0, 5, 0], [0, 1, 0], [0, 0, 9]], np.float32)
    predictions = Predictions(list("abcd"), np.array([0, 0, 0, 1], np.int32), logits)
    assert [one.filename for one in worst(predictions)] == ["d", "b", "c"]
    assert [one.filename for one in worst(predictions, 1)] == ["d"]


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """A study whose images and models are there: (content, entries)."""
    from trainer.models import classifier

    path = tmp_path_factory.mktemp("pictured")
    counts = {"train": (8, 12, 20, 4), "validation": (9, 9, 9, 9), "test": (20, 20, 20, 20)}
    data = helpers.write_dataset(path / "data", counts)
    ids = {
        split: [
            f"{name}/{split}-{i}.png"
            for name, count in zip(data.class_names, own, strict=True)
            for i in range(count)
        ]
        for split, own in counts.items()
    }
    paths = fake_study.write_study(
        path,
        seeds=(0,),
        counts={split: list(own) for split, own in counts.items()},
        ids=ids,
        dataset={"path": data.path, "fingerprint": data.fingerprint},
    )
    network = classifier.create_model("tiny", image_size=32, channels=1, num_classes=4)
    for one in paths:
        network.save(os.path.join(one, "model.keras"))
    return fake_study.compare(paths)


def test_mistakes_are_shown_with_their_images_and_heat_maps(pictured):
    content, entries = pictured
    gallery = "".join(mistakes(content, entries))
    own = entries[0].runs[0].predictions("test")
    expected = worst(own)
    assert expected
    assert "No images" not in gallery
    assert "No Grad-CAM" not in gallery
    figures = re.findall(r'<figure class="several">.*?</figure>', gallery)
    assert all(figure.count('src="data:image/jpeg;base64,') == 2 for figure in figures)
    for one in expected:
        assert one.filename.replace("/", "/<wbr>") in gallery
        assert f"({one.probability:.1%})" in gallery


def test_other_data_at_the_same_place_are_not_shown(pictured, monkeypatch):
    content, entries = pictured
    for entry in entries:
        monkeypatch.setitem(entry.runs[0].dataset, "fingerprint", "other")
    lines = "".join(mistakes(content, entries))
    assert "holds another data set now" in lines
    assert "data:image" not in lines


def test_a_damaged_model_gives_a_note_and_the_images(pictured, tmp_path):
    content, entries = pictured
    path = os.path.join(entries[0].runs[0].path, "model.keras")
    shutil.copy(path, tmp_path / "kept")
    try:
        with open(path, "wb") as file:
            file.write(b"no model")
        gallery = "".join(mistakes(content, entries))
    finally:
        shutil.copy(tmp_path / "kept", path)
    assert "No Grad-CAM:" in gallery
    assert "cannot be used" in gallery
    assert "data:image/jpeg" in gallery


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_loads_the_page_without_complaint(pictured, tmp_path):
    path = write_page(str(tmp_path), *pictured)
    result = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--v=0",
            "--dump-dom",
            f"file://{path}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "CONSOLE" not in result.stderr
    assert _anchors(result.stdout) == list(SECTIONS)
    assert result.stdout.count("<svg") == 9


@pytest.mark.parametrize("draw", [roc, precision_recall])
def test_titles_stay_on_the_picture_whatever_the_legend(draw):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4, dtype=np.int32), 10)
    answers = Predictions([""] * 40, labels, rng.normal(size=(40, 4)))
    names = ["none", *(f"a_method_of_a_long_name_{i}" for i in range(7))]
    content = {"class_names": list("abcd"), "reference": "none", "test": {"rare_classes": {}}}
    content["entries"] = dict.fromkeys(names)
    drawn = draw(content, dict.fromkeys(names, answers))
    drawn.draw_without_rendering()
    top = drawn.bbox.height
    titles = [axes.title.get_window_extent().y1 for axes in drawn.axes]
    assert len(titles) == 4
    assert max(titles) <= top
