"""What was done to pixels is told, suspicious images are named, and rules are not mixed."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from beam_pipelines import summary
from beam_pipelines.inputs import input_tables
from beam_pipelines.settings.config import BuildConfig
from cxr_tfrecords import dataset_dir
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines.radiographs import write_radiographs
from tests.beam_pipelines.test_append import OPTIONS, add, find, job, read_sources
from tests.dicom_files import dicom_file

CONFIG = BuildConfig(image_size=64, shard_size=30)


def build(found, output):
    return job.build(
        found, str(output), CONFIG, OPTIONS, overwrite=False, resume=True, max_bad_fraction=0
    )


def picture(seed=0):
    """A smooth picture: of noise, turning would not be seen in a perceptual hash."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5), np.uint8)
    return Image.fromarray(small).resize((100, 120), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path):
    root = write_radiographs(tmp_path / "in", nested=False)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = picture().transpose(Image.Transpose.ROTATE_90)
    lying.save(root / "Normal" / "phone.jpg", exif=exif, quality=95)
    picture().save(root / "Normal" / "upright.png")
    for value in (0, 77):
        Image.new("L", (30, 30), value).save(root / "Normal" / f"constant{value}.png")
    Image.new("RGBA", (30, 30), (200, 10, 9, 0)).save(root / "COVID" / "clear.png")
    ramp = np.arange(900, dtype=np.uint16).reshape(30, 30)
    (root / "COVID" / "scan.dcm").write_bytes(dicom_file(ramp, bits=16, kind="MONOCHROME1"))
    return root


def as_list(root):
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["path", "label"])
    writer.writerows((f.relative_to(root), f.parent.name) for f in sorted(root.rglob("*.*")))
    (root / "list.csv").write_text(table.getvalue())
    return input_tables.read_input_csv(str(root / "list.csv"), "", "")


@pytest.mark.parametrize("read", [find, as_list])
def test_steps_and_warnings_are_told(root, tmp_path, read):
    result = build(read(root), tmp_path / "out")
    rows = read_sources(tmp_path / "out")
    steps = {name: row["pixel_steps"] for name, row in rows.items() if row["pixel_steps"]}
    assert steps == {
        "Normal/phone.jpg": "turned (EXIF orientation 6)",
        "COVID/clear.png": "fully transparent",
        "COVID/scan.dcm": "scaled from 10 of 16 bits; inverted (MONOCHROME1)",
    }
    assert rows["Normal/phone.jpg"]["group"] == rows["Normal/upright.png"]["group"]
    flat = ["Normal/constant0.png", "Normal/constant77.png"]
    assert result.manifest["warnings"] == {
        "all pixels have one value": {"files": 2, "first": flat},
        "fully transparent": {"files": 1, "first": ["COVID/clear.png"]},
    }
    warned = {name: row["warning"] for name, row in rows.items() if row["warning"]}
    assert sorted(warned) == ["COVID/clear.png", *flat]
    told = summary.describe_build(result, str(tmp_path / "out"), 1.0)
    assert f"warning: all pixels have one value: 2 files ({', '.join(flat)})" in told
    page = (tmp_path / "out" / "stats.html").read_text()
    assert "Fully transparent: COVID/clear.png." in page
    assert f"All pixels have one value: {'; '.join(flat)}." in page


def test_append_keeps_and_adds_steps_and_warnings(root, tmp_path):
    build(find(root), tmp_path / "out")
    before = read_sources(tmp_path / "out")
    Image.new("L", (30, 30), 9).save(root / "Normal" / "constant9.png")
    manifest = add(find(root), tmp_path / "out", CONFIG).manifest
    after = read_sources(tmp_path / "out")
    for name, row in before.items():
        for column in ("pixel_steps", "warning"):
            assert after[name][column] == row[column]
    assert manifest["warnings"]["all pixels have one value"]["files"] == 3


def test_images_of_zeros_and_ones_are_named(root, tmp_path):
    ones = np.random.default_rng(0).integers(0, 2, (2, 30, 30), np.uint8)
    Image.fromarray(ones[0]).save(root / "COVID" / "scaled.png")
    Image.fromarray(ones[1].astype(np.uint16)).save(root / "COVID" / "scaled16.png")
    result = build(find(root), tmp_path / "out")
    scaled = "no pixel is above 1 of 255, as of values scaled to 0..1"
    assert result.manifest["warnings"][scaled]["first"] == [
        "COVID/scaled.png",
        "COVID/scaled16.png",
    ]
    told = summary.describe_build(result, str(tmp_path / "out"), 1.0)
    assert f"warning: {scaled}: 2 files (COVID/scaled.png, COVID/scaled16.png)" in told


@pytest.mark.parametrize(("version", "rule"), [(None, "version 2: EXIF orientation"), (99, "99")])
def test_a_data_set_of_other_pixel_rules_is_refused(root, tmp_path, version, rule):
    output = tmp_path / "out"
    build(find(root), output)
    path = output / dataset_dir.MANIFEST
    manifest = json.loads(path.read_text())
    assert manifest.pop("pixel_rules") == 2
    del manifest["digest"]  # as in a data set of that time
    path.write_text(json.dumps({**manifest, **({"pixel_rules": version} if version else {})}))
    before = path.read_bytes()
    Image.new("L", (30, 30), 9).save(root / "Normal" / "constant9.png")
    with pytest.raises(UserError, match=rf"--append(.|\n)*{rule}(.|\n)*build a new --output_dir"):
        add(find(root), output, CONFIG)
    (root / "Normal" / "constant9.png").unlink()
    with pytest.raises(UserError, match=rf"holds another build(.|\n)*{rule}(.|\n)*--overwrite"):
        build(find(root), output)
    assert path.read_bytes() == before
