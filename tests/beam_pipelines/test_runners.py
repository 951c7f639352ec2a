"""One build, many runners: the same bytes from each, by processes that really did the work."""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import sys

import pytest
from apache_beam import coders
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners import pipeline_context

from beam_pipelines import job
from beam_pipelines.inputs import sources
from beam_pipelines.running import beam_runner
from beam_pipelines.settings import beam_flags
from beam_pipelines.settings.config import BuildConfig
from beam_pipelines.shards import inspection, passes, write_shards
from cxr_tfrecords.errors import UserError
from tests.beam_pipelines import commands
from tests.beam_pipelines.conftest import DASK_RUNNER
from tests.beam_pipelines.radiographs import CLASSES, write_radiographs
from tests.beam_pipelines.test_build import digests

CONFIG = BuildConfig(near_distance=-1, image_size=24, num_shards=2)
FLAGS = ("--near_distance=-1", "--image_size=24", "--num_shards=2")


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """More images than the first pass takes in one piece."""
    folder = tmp_path_factory.mktemp("radiographs") / "in"
    return write_radiographs(folder, {name: 2 * count for name, count in CLASSES.items()})


@pytest.fixture(scope="module")
def expected(radiographs, tmp_path_factory):
    """Digests of the files that the library call leaves, in this process."""
    out = tmp_path_factory.mktemp("expected") / "out"
    build_here(radiographs, out)
    return digests(out)


def build_here(root, output, options=()):
    return job.build(
        sources.find_sources(str(root)),
        str(output),
        CONFIG,
        beam_flags.parse(options, []),
        overwrite=False,
        resume=True,
        max_bad_fraction=0.0,
        salt=None,  # as the command builds images that name nobody
    )


class StoppedError(Exception):
    pass


def stop_before_writing(root, output, monkeypatch):
    """A build that has inspected everything and written no shard."""

    def stopped(*_):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(passes, "write_shards", stopped)
        with pytest.raises(StoppedError):
            build_here(root, output)


# Bytes and processes

DEAD_PROXY = "http://127.0.0.1:9"


# The others start processes, which takes their time: `make test-slow` runs them.
@pytest.mark.parametrize(
    "runner",
    [
        *("in_memory", "multi_threading"),
        pytest.param("multi_processing", marks=pytest.mark.slow),
        pytest.param("external", marks=pytest.mark.slow),
        pytest.param("dask", marks=pytest.mark.slow),
    ],
)
def test_every_runner_leaves_the_same_bytes(
    runner, radiographs, expected, renames, beam_flags_of, tmp_path
):
    out = tmp_path / "out"
    arguments = [f"--input_dir={radiographs}", f"--output_dir={out}", *FLAGS]
    command = [*arguments, *beam_flags_of(runner)]
    alone = runner in ("in_memory", "multi_threading")
    environment = renames.environment
    if runner == "multi_processing":  # its processes are on this machine: no proxy leads to them
        environment = environment | dict.fromkeys(("http_proxy", "https_proxy"), DEAD_PROXY)
    with (
        commands.forked_build(*command, env=environment)
        if alone
        else commands.process(*commands.BUILD, *command, env=environment)
    ) as started:
        done = commands.finish(started)
    assert done.returncode == 0, done.stderr
    assert "wrote 18 shards" in done.stdout
    assert digests(out) == expected
    inspectors = renames.processes(out / ".build" / "inspected", ".parquet")
    writers = renames.processes(out, ".tfrecord-")
    assert inspectors
    assert writers
    if alone:
        assert inspectors | writers == {started.pid}
    else:
        assert started.pid not in inspectors | writers
    if runner == "multi_processing":  # others spread the work as they like
        assert len(writers) == 2
    if beam_flags.runs_locally(PipelineOptions(command)):
        assert commands.said(done.stderr) == []


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["multi_threading", "multi_processing", "external", "dask"])
def test_a_failure_in_a_worker_is_one_line(
    runner, radiographs, beam_flags_of, renames, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    stop_before_writing(radiographs, out, monkeypatch)
    part = sorted((out / ".build" / "inspected").glob("*.records"))[0]
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    part.write_bytes(damaged)
    arguments = [f"--input_dir={radiographs}", f"--output_dir={out}", *FLAGS]
    command = [*commands.BUILD, *arguments, *beam_flags_of(runner)]
    with commands.process(*command, env=renames.environment) as started:
        done = commands.finish(started)
    assert done.returncode == 2
    lines = commands.said(done.stderr)
    message = f"error: {part} is damaged: remove it and its .parquet, then run the same command"
    assert lines[-1] == f"{message} again"
    assert sum(line.startswith("error: ") for line in lines) == 1
    if runner.startswith("multi_"):  # a remote runner shows its workers' log before
        assert len(lines) == 1
    assert not (out / "manifest.json").exists()


def test_workers_start_where_the_path_of_python_has_a_space(radiographs, tmp_path, monkeypatch):
    python = tmp_path / "my programs" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    options = beam_flags.parse(["--direct_running_mode=multi_processing"], [])
    graph = beam_runner.make_pipeline(
        "Write", ["x"], write_shards.WriteShard("parts.json"), options
    )
    assert not os.path.exists(graph.local_tempdir), "a killed process would leave it"
    environment = graph.runner._default_environment
    assert environment.command_string == f"exec '{python}' -m beam_pipelines.running.local_worker"
    # The options of the caller are those of the next pass too.
    assert options.view_as(DirectOptions).direct_running_mode == "multi_processing"


# What a runner refuses


def test_an_unknown_runner_is_one_line(radiographs, tmp_path):
    for name, reason in (("NoRunner", "Unexpected pipeline runner"), ("no.Runner", "'no'")):
        with pytest.raises(UserError, match=f"^--runner={name}: .*{reason}"):
            build_here(radiographs, tmp_path / "out", [f"--runner={name}"])


DATAFLOW = [
    "--runner=DataflowRunner",
    "--dry_run=true",  # where the extra `gcp` is installed, look for no bucket and submit nothing
    "--no_auth",
    "--project=proj-1",
    "--region=europe-west4",
    "--temp_location=gs://bucket/tmp",
    "--staging_location=gs://bucket/staging",
]


def test_options_that_dataflow_refuses_are_one_line(radiographs, tmp_path):
    wrong = [flag.replace("proj-1", "p") for flag in DATAFLOW]
    with pytest.raises(UserError, match=r"^--runner=DataflowRunner: .*Invalid Project ID \(p\)"):
        build_here(radiographs, tmp_path / "out", wrong)


@pytest.mark.skipif(
    importlib.util.find_spec("apitools") is not None, reason="the extra `gcp` is installed"
)
def test_dataflow_without_its_packages_names_the_extra(radiographs, tmp_path):
    with pytest.raises(UserError, match=r"--runner=DataflowRunner needs .*cxr-balance\[gcp\]"):
        build_here(radiographs, tmp_path / "out", DATAFLOW)


def test_dask_without_its_packages_names_the_extra(radiographs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(UserError, match=r"DaskRunner needs .*cxr-balance\[dask\]"):
        build_here(radiographs, tmp_path / "out", [f"--runner={DASK_RUNNER}"])


# The job graph, as it would be submitted


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Makes the graphs of both passes over some radiographs: title -> (graph, its items)."""
    folder, real = tmp_path_factory.mktemp("graphs"), beam_runner.run_pass

    @functools.cache
    def build(count: int) -> list[tuple]:
        """Builds them once; what its passes were asked for."""
        root = write_radiographs(folder / f"in{count}", {"COVID": count, "Normal": count})
        asked = []

        def noted(title, items, dofn, options, **how):
            asked.append((title, items, dofn))
            real(title, items, dofn, options, **how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(passes, "run_pass", noted)
            build_here(root, folder / f"out{count}")
        return asked

    def make(count: int, options: list[str]) -> dict[str, tuple]:
        found = {}
        for title, items, dofn in build(count):
            graph = beam_runner.make_pipeline(title, items, dofn, PipelineOptions(options))
            found[title] = graph.to_runner_api(), items
        return found

    return make


def top_stages(proto):
    transforms = proto.components.transforms
    (root,) = proto.root_transform_ids
    names = [transforms[key].unique_name for key in transforms[root].subtransforms]
    return names or [transforms[root].unique_name]


def do_fns(proto):
    """The DoFns of the graph, as a worker would unpickle them."""
    for transform in proto.components.transforms.values():
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            yield transform.unique_name, pickler.loads(payload.do_fn.payload)[0]


@pytest.mark.parametrize("options", [[], DATAFLOW], ids=["portable", "dataflow"])
def test_the_job_graph_is_three_stages_of_importable_code(graphs, options):
    found = graphs(10, options)
    kinds = {"Inspect": inspection.InspectChunk, "Write": write_shards.WriteShard}
    assert found.keys() == kinds.keys()
    for title, (proto, _) in found.items():
        assert top_stages(proto) == [f"{title}Work", f"{title}Spread", title]
        own = {name: fn for name, fn in do_fns(proto) if name.split("/")[0] == title}
        assert [type(fn) for fn in own.values()] == [kinds[title]]
        payloads = [t.spec.payload for t in proto.components.transforms.values()]
        # By name of its module, not by value: a worker runs the code that is installed there.
        (fn,) = own.values()
        assert type(fn).__module__.startswith("beam_pipelines.shards.")
        assert sum(map(len, payloads)) < 20_000


def test_what_is_shuffled_has_a_deterministic_key(graphs):
    for proto, _ in graphs(10, []).values():
        context = pipeline_context.PipelineContext(proto.components)
        keys = []
        for transform in proto.components.transforms.values():
            if transform.spec.urn == common_urns.primitives.GROUP_BY_KEY.urn:
                (source,) = transform.inputs.values()
                coder = context.coders[proto.components.pcollections[source].coder_id]
                keys.append(coder.key_coder())
        assert keys
        assert all(key.is_deterministic() for key in keys)
        for item in ("chunk", "part"), write_shards.ShardTask("a", "b", "c", {"split": "train"}):
            coder = coders.registry.get_coder(object)
            assert coder.decode(coder.encode(item)) == item


FOLDERS = ("chunks", "inspected", "plans", "written", "out20", "out30")


def test_elements_are_file_names_however_many_images_they_stand_for(graphs):
    sizes = {}
    for count in (20, 30):  # both fit one chunk, and one shard of each split and class
        for title, (proto, items) in graphs(count, []).items():
            assert len(items) == {"Inspect": 1, "Write": 12}[title]
            # Beam compresses what it sends: a table of names would hardly show in the graph.
            (fn,) = (fn for name, fn in do_fns(proto) if name.split("/")[0] == title)
            sizes.setdefault(title, []).append(len(pickle.dumps(fn)))
            names = items[0] if title == "Inspect" else vars(items[0]).values()
            texts = [name for name in names if isinstance(name, str)]
            assert all(os.path.basename(os.path.dirname(t)) in FOLDERS for t in texts)
    for small, large in sizes.values():
        assert small == large < 2000


def test_the_graph_is_a_valid_dataflow_job(graphs):
    """With the extra `gcp` the job is made as it would be submitted, without a network."""
    pytest.importorskip("apitools", reason="needs the extra `gcp`")
    from apache_beam.runners.dataflow.internal import apiclient

    for title, (proto, _) in graphs(10, DATAFLOW).items():
        options = PipelineOptions([*DATAFLOW, f"--job_name=build-{title.lower()}"])
        made = apiclient.Job(options, proto)
        assert made.proto.name == f"build-{title.lower()}"
        assert len(str(made)) < 100_000  # the service takes 10 MB
