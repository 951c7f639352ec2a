"""python -m beam_pipelines.predict writes the file of trainer.predict, byte for byte."""

import dataclasses
import sys

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.predict import job, model_handler
from beam_pipelines.settings import beam_flags
from cxr_tfrecords import records, tfrecord
from cxr_tfrecords.errors import UserError
from tests import helpers
from tests.beam_pipelines import commands
from tests.trainer import fake_run
from trainer.deployment import prediction_rows
from trainer.deployment.predicted_files import predict_files
from trainer.deployment.several_models import load_models
from trainer.models.classifier import create_model
from trainer.runs import run_directory

# More than one chunk of 64 files.
COUNTS = {"train": (6, 6, 6, 6), "validation": (10, 10, 10, 10), "test": (18, 18, 18, 18)}
SETTINGS = {
    "deploy_prior": [],
    "sensitivity": 0.9,
    "coverage": 0.8,
    "ood_method": "mahalanobis",
    "false_alarms": 0.1,
}


@dataclasses.dataclass(frozen=True)
class Made:
    """Finished runs, a folder of images, and what trainer.predict says of it."""

    runs: list[str]
    folder: str

    def expected(self, runs, output):
        """Bytes of the predictions, and of the files that cannot be used."""
        classifiers = load_models(runs, **SETTINGS)
        counts, rejected = predict_files(classifiers, self.folder, str(output), threads=1)
        prediction_rows.show_result(str(output), counts, None, rejected)
        return read(output)


def read(output):
    return output.read_bytes(), output.with_stem(f"{output.stem}_rejected").read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    data = helpers.write_dataset(root / "data", COUNTS)
    runs = []
    for seed, batch_size in enumerate((8, 5)):
        run_dir = fake_run.write_run(
            root / f"run{seed}",
            class_names=helpers.CLASS_NAMES,
            counts={split: list(counts) for split, counts in COUNTS.items()},
            dataset=fake_run.of(data),
            batch_size=batch_size,
            backbone="tiny",
        )
        model = create_model("tiny", image_size=32, channels=1, num_classes=4, seed=seed)
        run_directory.save_model(run_dir, model)
        runs.append(str(run_dir))
    for shard in data.split_shards("test"):
        for serialized in tfrecord.read_records(shard.path):
            record = records.parse_record(serialized)
            path = root / "in" / record.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(record.encoded)
    (root / "in" / "COVID" / "notes.txt").write_text("hello")
    return Made(runs, str(root / "in"))


def predict_here(runs, folder, output):
    options = beam_flags.parse(["--direct_running_mode=in_memory"], [])
    job.predict(runs, str(folder), str(output), SETTINGS, options, threads=2)


def test_a_failed_worker_is_one_line_and_the_next_start_goes_on_to_the_same_file(
    made, tmp_path, monkeypatch, capsys
):
    expected = made.expected(made.runs[:1], tmp_path / "expected.csv")
    output = tmp_path / "out.csv"
    predicted = []

    def predict_rows(classifiers, folder, ids, rejected, **how):
        predicted.append(len(ids))
        if predicted == [64, 9]:
            raise ValueError("out of memory\nand more")
        return real(classifiers, folder, ids, rejected, **how)

    real = prediction_rows.predict_rows
    monkeypatch.setattr(prediction_rows, "predict_rows", predict_rows)
    with pytest.raises(UserError) as caught:
        predict_here(made.runs[:1], made.folder, output)
    message = str(caught.value)
    assert message.startswith("worker ")
    assert " cannot predict: ValueError: out of memory: install the same versions" in message
    assert "\n" not in message
    assert not output.exists()
    predict_here(made.runs[:1], made.folder, output)
    assert predicted == [64, 9, 9], "the first chunk is not predicted again"
    assert read(output) == expected
    assert not (tmp_path / "out.csv.parts").exists()
    printed = capsys.readouterr().out
    assert "72 images: " in printed
    assert "1 file could not be used, " in printed


@pytest.mark.slow
def test_rows_of_other_models_are_not_taken_over(made, tmp_path, monkeypatch):
    output = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(job, "_join", lambda *_: pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception):
            predict_here(made.runs[:1], made.folder, output)
    assert len(list((tmp_path / "out.csv.parts" / "rows").iterdir())) == 2
    predict_here(made.runs[1:], made.folder, output)
    assert read(output) == made.expected(made.runs[1:], tmp_path / "expected.csv")


@pytest.mark.slow
def test_a_folder_in_an_object_store_gives_the_same_rows(made, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{made.folder}/COVID", "/images/COVID", recursive=True)
    memory.pipe("/images/.DS_Store", b"x")
    memory.put(made.runs[0], "/runs/a", recursive=True)
    predict_here(["memory://runs/a"], "memory://images", "memory://out/p.csv")
    rows = memory.cat("/out/p.csv").decode().splitlines()
    predict_here(made.runs[:1], made.folder, tmp_path / "all.csv")
    header, *expected = (tmp_path / "all.csv").read_text().splitlines()
    assert rows == [header, *(row for row in expected if row.startswith("COVID/"))]
    assert memory.cat("/out/p_rejected.csv").decode().startswith("id,reason\nCOVID/notes.txt,not")
    assert memory.ls("/out", detail=False) == ["/out/p.csv", "/out/p_rejected.csv"]


def test_the_graph_holds_the_names_of_files_and_importable_code(made):
    from apache_beam.internal import pickler

    settings = {**SETTINGS, "deploy_prior": ()}
    models = model_handler.Models(("gs://b/models/0",), "id", **settings)
    handler = model_handler.ClassifierHandler(models, "gs://b/in", 1)
    sent = pickler.dumps(handler)
    assert len(sent) < 2000
    assert vars(pickler.loads(sent)) == vars(handler)


# These load the models in processes of their own, which takes seconds.
@pytest.mark.slow
@pytest.mark.parametrize("runner", ["multi_threading", "multi_processing", "dask"])
def test_every_runner_writes_the_same_bytes(runner, made, beam_flags_of, renames, tmp_path):
    expected = made.expected(made.runs, tmp_path / "expected.csv")
    output = tmp_path / "out.csv"
    arguments = [f"--model={','.join(made.runs)}", f"--input={made.folder}", f"--output={output}"]
    arguments += [f"--{k}={v}" for k, v in SETTINGS.items() if k != "deploy_prior"]
    command = [*arguments, *beam_flags_of(runner)]
    module = (sys.executable, "-m", "beam_pipelines.predict")
    with commands.process(*module, *command, env=renames.environment) as started:
        done = commands.finish(started, seconds=300)
    assert done.returncode == 0, done.stderr
    assert read(output) == expected
    writers = renames.processes(tmp_path / "out.csv.parts" / "rows", ".json")
    assert (writers == {started.pid}) == (runner == "multi_threading")
    if beam_flags.runs_locally(PipelineOptions(command)):
        said = commands.said(done.stderr)  # a slow bar counts seconds an image: "2.83s/ images"
        assert [line for line in said if not line.startswith("Predict: ")] == []
