"""The preview as a user runs it, and its figures against the paper's tables."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.shared import shared_path
from tests.trainer import processes
from trainer.balancing.sampler_table import SAMPLERS
from trainer.epochs import before_split
from trainer.epochs.audit import SamplerAudit
from trainer.epochs.preview import describe_sampler, make_configs, read_counts
from trainer.runs import report_pictures

TABLE_IV = "COVID=2379,Lung_Opacity=3825,Normal=6509,Viral Pneumonia=832"


def preview(*arguments):
    """Runs the command, which then checks what it imported."""
    code = (
        "import sys; from trainer import sampler_preview\n"
        "from cxr_tfrecords.errors import run_main\n"
        "try: run_main(sampler_preview.main)\n"
        "finally: assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    return result


def show(names, items=None, **settings):
    """The tables of some samplers, made in this process."""
    usual = {"sampling_strategy": "auto", "target_distribution": (), "balance_power": None}
    class_names, counts = read_counts("", items or TABLE_IV.split(","))
    texts = []
    for config in make_configs(names, usual | settings, epochs=1):
        audit = SamplerAudit(config, class_names, counts)
        audit.catch_up(1)
        texts.append(describe_sampler(audit, config.batch_size))
    return "\n\n".join(texts)


def column(text, sampler, title):
    """Class -> first number of a column in a sampler's first table."""
    block = re.split(r"\n(?=\w+: )", text)
    (table,) = [part for part in block if part.startswith(f"{sampler}: ")]
    lines = table.splitlines()
    end = lines[1].index(title) + len(title)
    rows = {}
    for line in lines[2:]:
        if line.startswith(("one image", "epoch")):
            break
        name = re.split(r"  +", line)[0]
        rows[name] = int(line[end - 18 : end].split()[0].replace(",", ""))
    return rows


def test_counts_of_table_iv_give_table_v_without_tensorflow_and_a_picture(tmp_path):
    picture = tmp_path / "new" / "samplers.png"
    result = preview(
        f"--counts={TABLE_IV}",
        *("--sampler=oversample,undersample", f"--out={picture}", "--before_split=0.2"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    oversampled = [*column(result.stdout, "oversample", "planned").values()]
    assert oversampled == [7137, 7650, 6509, 6656, 27952]
    assert [*column(result.stdout, "undersample", "planned").values()] == [*[832] * 4, 3328]
    assert "oversample: 27,936 images and 873 steps of 32 an epoch" in result.stdout
    assert "one image at most 8 times in an epoch" in result.stdout
    assert (
        "Oversampled before the split, 70.2% of the test images would have a copy" in result.stdout
    )
    pixels = cv2.imread(str(picture))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_copies_on_both_sides_of_a_split_are_those_counted_by_hand():
    # Two images of two copies, half of them tested: of the three other copies, one is the other
    # copy of the same image, and one of the three is in the test split.
    assert before_split.Copies(2, 2, 2).expected_share == pytest.approx(2 / 3)
    assert before_split.Copies(5, 1, 2).expected_share == 0
    assert before_split.Copies(1, 3, 3).expected_share == 0  # nothing is left for training
    copies, rng = before_split.Copies(10, 3, 9), np.random.default_rng(0)
    simulated = np.mean([copies.simulate(rng) for _ in range(4000)]) / 9
    assert simulated == pytest.approx(copies.expected_share, abs=0.005)
    assert copies.expected_share == pytest.approx(1 - 8 / 29 * 7 / 28)


def test_test_splits_of_balanced_images_have_the_shares_of_the_balancing():
    text = before_split.describe(("A", "B"), (100, 20), 0.25)
    assert re.search(r"^A .* 100  83.3% +5  50.0% +25  50.0% +1 +0.0% +0.0%$", text, re.MULTILINE)
    assert re.search(r"^B .* 20  16.7% +5  50.0% +25  50.0% +5 +99.\d% ", text, re.MULTILINE)


@pytest.mark.parametrize("sampler", ["oversample", "undersample"])
def test_tables_of_the_paper_are_printed(sampler):
    tables = json.loads(shared_path("paper/tables.json").read_text(encoding="utf-8"))
    natural = tables["table_IV_train_before_sampling"][sampler]
    after = tables["table_V_train_after_sampling"][sampler]
    text = show([sampler], [f"{name}={natural[name]}" for name in tables["class_order"]])
    assert column(text, sampler, "natural") == natural | {"all": sum(natural.values())}
    assert column(text, sampler, "planned") == after | {"all": sum(after.values())}


def test_data_set_is_previewed_with_all_samplers(tmp_path):
    data = helpers.write_dataset(tmp_path)
    _, counts = read_counts(data.path, [], all_splits=True)
    assert counts == np.sum(list(helpers.COUNTS.values()), axis=0).tolist()
    result = preview(f"--data_dir={data.path}", "--batch_size=4", "--epochs=2")
    assert (result.returncode, result.stderr) == (0, "")
    text = result.stdout
    for sampler in SAMPLERS:
        natural = dict(zip(data.class_names, helpers.COUNTS["train"], strict=True))
        assert column(text, sampler, "natural") == natural | {"all": 44}
    assert column(text, "oversample_exact", "planned")["Viral Pneumonia"] == 20
    # Only progressive's plan moves, so it alone has a table for each epoch.
    assert len(re.findall(r"^epochs 1-2 ", text, re.MULTILINE)) == 6
    assert len(re.findall(r"^epoch [12] ", text, re.MULTILINE)) == 2


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["smote"], {}, "--sampler=smote"),
        (["undersample"], {"sampling_strategy": (("A", 2),)}, "A=2: the data set has no"),
        (["weighted"], {"sampling_strategy": "all"}, "no meaning"),
        (["weighted", "none"], {"sampling_strategy": "all"}, "no sampler of"),
        (["none", "oversample"], {"balance_power": 0.5}, "no sampler of"),
    ],
)
def test_settings_that_no_sampler_knows_name_their_flag(names, settings, message):
    with pytest.raises(UserError, match=message):
        show(names, **settings)


@pytest.mark.parametrize(
    ("data_dir", "items", "message"),
    [
        ("", [], "one of --data_dir and --counts"),
        ("d", ["A=1"], "one of --data_dir and --counts"),
        ("", ["A=x"], "--counts: 'A=x'"),
        ("", ["A=-1", "B=2"], "--counts=A=-1,B=2: counts must be 0 or more"),
    ],
)
def test_counts_that_do_not_read_name_their_flag(data_dir, items, message):
    with pytest.raises(UserError, match=message):
        read_counts(data_dir, items)


def test_setting_goes_to_the_samplers_that_know_it():
    settings = {"sampling_strategy": "not minority", "balance_power": 0.5}
    text = show(SAMPLERS, **settings)
    roots = np.sqrt([2379, 3825, 6509, 832])
    planned = list(column(text, "weighted", "planned").values())[:4]
    assert np.abs(planned - roots / roots.sum() * 13545).max() < 1
    assert column(text, "oversample", "planned")["Viral Pneumonia"] == 832


def test_picture_shows_every_count():
    figure = report_pictures._draw_sampling(
        ["A", "B"], [10, 2000], {"over": [2010, 2000], "no": [10, 2000]}
    )
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert texts.count("2,010") == 1
    assert texts.count("2,000") == 4
    assert figure.axes[0].get_title() == "over\nn = 2,010 → 4,010"


@pytest.mark.slow
def test_augmented_images_are_drawn(tmp_path):
    data = helpers.write_dataset(tmp_path / "data")
    picture = tmp_path / "new" / "changes.png"
    flags = (
        f"--data_dir={data.path}",
        "--sampler=none",
        "--batch_size=8",
        f"--augment_out={picture}",
    )
    done = processes.run("trainer.sampler_preview", *flags, "--augment_shift=0.1")
    assert done.returncode == 0, done.stderr
    assert f"picture of augmented images: {picture}" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = processes.run("trainer.sampler_preview", *flags)
    assert refused.returncode == 2
    assert "add a flag such as --augment_rotation=10" in refused.stderr
