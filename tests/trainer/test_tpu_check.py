"""The command: what it refuses, finds and keeps. Compiling itself is in the slow tests."""

import concurrent.futures
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_tfrecords.errors import UserError
from trainer.settings.table import BACKBONES
from trainer.tpu import compile_step, host_ops
from trainer.tpu.chips import CHIPS, Chip, Roofline, parse_topology, roofline
from trainer.tpu.report import SliceCheck, StepCheck, describe, summarize, to_json
from trainer.tpu.slices import compile_program, search_batch

DOCS = Path(__file__).parents[2] / "docs" / "tpu.md"
SMALL = ("--backbone=tiny", "--image_size=32", "--batch_norm=frozen", "--topology=v5e:2x2")


def _check(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "trainer.tpu_check", *SMALL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.parametrize(
    ("name", "chips"), [("v4:2x2x1", 4), ("v5e:1x1", 1), ("v5p:2x2x4", 16), ("v6e:16x16", 256)]
)
def test_a_topology_names_generation_and_chips(name, chips):
    topology = parse_topology(name)
    assert topology.num_chips == chips
    assert topology.chip is CHIPS[name.split(":")[0]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v9:2x2", "'v9' is not one of v4, v5e, v5p, v6e"),
        ("v5e:2x2x1", "needs 2 sizes after the colon, as in v5e:2x2"),
        ("v5p", "needs 3 sizes after the colon, as in v5p:2x2x1"),
        ("v5e:0x2", "needs 2 sizes"),
    ],
)
def test_a_topology_that_is_none_is_refused(name, words):
    with pytest.raises(UserError, match=f"--topology={name}") as refused:
        parse_topology(name)
    assert words in str(refused.value)


def test_roofline_is_the_longer_of_computing_and_moving():
    chip = Chip(peak=100.0, hbm=1.0, bandwidth=10.0, dimensions=2, accelerator_type="")
    assert roofline(chip, 500.0, 10.0) == Roofline(5.0, "compute")
    assert roofline(chip, 100.0, 100.0) == Roofline(10.0, "memory")


@pytest.mark.parametrize("limit", [1, 7, 100, 1000, 12345])
@pytest.mark.parametrize("start", [1, 64, 5000])
def test_the_search_closes_in_on_the_largest_batch(limit, start):
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= limit

    low, high = search_batch(fits, start)
    assert low <= limit < high
    assert high - low <= max(1, low // 8)
    assert len(asked) == len(set(asked)) <= 20


def test_a_table_says_what_was_refused_and_why():
    half_the_memory = 8 * 2**30
    fits = compile_step.Compiled("v5e:2x2", "", 197e12, 819e8, half_the_memory, 10, 10, 0, 3)
    full = compile_step.Compiled("v5e:2x2", "RESOURCE_EXHAUSTED: 95G exceeds 15.75G")
    clean, dirty = host_ops.Audit(9, (), (), ()), host_ops.Audit(9, ("DecodeJpeg",), (), ())
    steps = (
        StepCheck("train", clean, fits),
        StepCheck("evaluate", clean, full),
        StepCheck("moments", dirty, None),
    )
    topology = parse_topology("v5e:2x2")
    check = SliceCheck("tiny", 32, "bfloat16", 64, topology, steps, (48, 52))
    text = describe(check)
    train = next(line for line in text.splitlines() if line.startswith("| train"))
    # 197 TFLOP take a v5e one second: 16 images on each of four chips in that second.
    cells = [cell.strip() for cell in train.strip("| ").split("|")]
    assert cells[-5:] == ["50.0%", "3", "compute", "16", "64"]
    assert "evaluate refused: RESOURCE_EXHAUSTED: 95G exceeds 15.75G" in text
    assert "moments: ops that TPUs lack: DecodeJpeg" in text
    assert "ops that TPUs lack: 0" not in text
    assert "largest batch that fits: 48 (52 is refused)" in text
    assert "| 1 of 3 |" in summarize([check])
    assert not check.passed
    content = json.loads(json.dumps(to_json([check], "jax 1")))["checks"][0]
    assert content["steps"]["train"]["estimated"]["images_per_second"] == pytest.approx(64)
    assert "estimated" not in content["steps"]["evaluate"]


def test_the_documented_table_has_every_backbone_on_every_chip():
    """Or is named there as missing. One row each, all steps compiled, and figures that the chip
    could have, as rounded there."""
    page = DOCS.read_text()
    rows = re.findall(r"^\| (\w+) \| 224 \| (\S+) \|(.*)\|$", page, re.MULTILINE)
    missing = re.findall(r"`(\w+)`", re.search(r"^Not compiled yet: (.*)$", page, re.MULTILINE)[1])
    rows = [(name, parse_topology(slice_), rest) for name, slice_, rest in rows]
    assert sorted((name, topology.generation) for name, topology, _ in rows) == sorted(
        (name, chip) for name in set(BACKBONES) - set(missing) for chip in CHIPS
    )
    for _, topology, rest in rows:
        batch, steps, gflop, mib, share, _, images, of_slice = (
            cell.strip().replace(",", "") for cell in rest.split("|")
        )
        assert re.fullmatch(r"(\d) of \1", steps)
        chip = topology.chip
        assert float(share[:-1]) == pytest.approx(float(mib) * 2**20 / chip.hbm * 100, abs=0.06)
        assert float(of_slice) == pytest.approx(float(images) * topology.num_chips, abs=3)
        least = roofline(chip, float(gflop) * 1e9, num_bytes=0).seconds
        assert 0 < float(images) < int(batch) / topology.num_chips / least * 1.01


def test_a_compiler_that_dies_has_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    topology = parse_topology("v5e:2x2")
    compiled = compile_program(b"", topology, str(tmp_path))
    assert compiled.reason == "the compiler's process ended with 1: no message"


def test_without_the_compiler_nothing_passes():
    code = (
        "import sys; from trainer.tpu import compile_step; compile_step.PACKAGES = ('no-libtpu',)\n"
        "import runpy; sys.argv = ['tpu_check']\n"
        "runpy.run_module('trainer.tpu_check', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: no-libtpu is not installed: pip install -c constraints.txt -e '.[cpu,tpu-check]', "
        "or `make tpu-check`"
    ]


@pytest.mark.slow
def test_a_step_compiles_once_and_is_remembered(tmp_path):
    arguments = (f"--cache_dir={tmp_path / 'cache'}", f"--json={tmp_path / 'found.json'}")
    for words in ("compiled", "cached"):
        result = _check(*arguments)
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stderr == ""
        train = next(line for line in result.stdout.splitlines() if line.startswith("| train"))
        assert words in train
        assert "ops that TPUs lack: 0; host callbacks: 0; shapes not static: 0" in result.stdout
    check = json.loads((tmp_path / "found.json").read_text())["checks"][0]
    train = check["steps"]["train"]["compiled"]
    # One replica's gradients and loss in one all-reduce: XLA merges them.
    assert train["all_reduces"] == 1
    assert check["steps"]["evaluate"]["compiled"]["all_reduces"] == 0
    assert train["flops"] > check["steps"]["evaluate"]["compiled"]["flops"] > 0
    assert 0 < train["hbm"] < check["chip"]["hbm"]


@pytest.mark.slow
def test_checks_compile_side_by_side(tmp_path):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        both = list(pool.map(_check, [f"--cache_dir={tmp_path / name}" for name in "ab"]))
    for result in both:
        assert result.returncode == 0, result.stdout
        assert "compiled" in result.stdout


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_refused_with_the_memory_it_needs(tmp_path):
    result = _check(f"--cache_dir={tmp_path}", "--batch_size=64000000")
    assert result.returncode == 1
    assert "train refused: RESOURCE_EXHAUSTED" in result.stdout
    assert "exceeds available HBM (15.75G)" in result.stdout


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_one_line(tmp_path):
    result = _check(f"--cache_dir={tmp_path}", "--batch_size=30")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: --batch_size=30 counts the images on all 4 chips of v5e:2x2 and must be "
        "divisible by 4: use --batch_size=32"
    ]
