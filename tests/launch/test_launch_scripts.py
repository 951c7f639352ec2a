"""The launch scripts, run by bash with stand-ins for the programs that they start."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from packaging.specifiers import SpecifierSet

from tests.launch.shell import LAUNCH, Shell, assert_refused
from tests.shared import ROOT

IMAGE = "registry.example/cxr-balance:1"
DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"
PATHS = ["--input_dir=gs://bucket/in", "--output_dir=gs://bucket/out"]
DATAFLOW = [*PATHS, "--project=proj-1", "--region=europe-west4", "--temp_location=gs://tmp/t"]
FLINK = [*PATHS, "--flink_master=http://flink:8081", "--parallelism=8"]
FLINK += [f"--environment_config={IMAGE}"]
SPARK = [*PATHS, "--spark_master_url=local[4]", f"--environment_config={IMAGE}"]
SCRIPTS = {
    "build_dataflow.sh": DATAFLOW,
    "build_flink.sh": FLINK,
    "build_spark.sh": SPARK,
    "build_dask.sh": PATHS,
}
every_script = pytest.mark.parametrize("script", SCRIPTS)


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def open_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def dry_run(shell: Shell, script: str, *arguments: str) -> list[str]:
    """The build's arguments in the command that a dry run prints."""
    done = shell.script(script, "--dry_run", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = (line for line in done.stdout.splitlines() if "beam_pipelines.build" in line)
    words = shlex.split(line)
    return words[words.index("beam_pipelines.build") + 1 :]


# What reaches the build


def test_dataflow_gets_the_job_and_installs_the_project_on_workers(shell):
    done = shell.script("build_dataflow.sh", *DATAFLOW, "--max_num_workers", "20")
    assert done.returncode == 0, done.stderr
    assert shell.build_arguments() == [
        "--runner=DataflowRunner",
        *DATAFLOW,
        "--max_num_workers=20",
        f"--setup_file={ROOT}/setup.py",
        f"--requirements_file={LAUNCH}/dataflow_requirements.txt",
    ]


def test_dataflow_with_an_image_installs_nothing_on_workers(shell):
    options = ["--num_workers=2", "--machine_type=n2-standard-4"]
    image = f"--sdk_container_image={IMAGE}"
    assert shell.script("build_dataflow.sh", *DATAFLOW, *options, image).returncode == 0
    expected = ["--runner=DataflowRunner", *DATAFLOW, *options, image, "--sdk_location=container"]
    assert shell.build_arguments() == expected


def test_flink_gets_one_jar_with_everything(shell):
    assert shell.script("build_flink.sh", *FLINK).returncode == 0
    assert shell.build_arguments() == [
        "--runner=FlinkRunner",
        *FLINK[:4],
        "--environment_type=DOCKER",
        f"--environment_config={IMAGE}",
        "--flink_submit_uber_jar",
    ]


def test_flink_workers_may_be_pools_that_share_a_disk(shell):
    arguments = ["--input_dir=/mnt/in", "--output_dir=/mnt/out", "--flink_master=flink:8081/"]
    pool = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]
    done = shell.script("build_flink.sh", *arguments, "--parallelism=2", *pool)
    assert done.returncode == 0, done.stderr
    arguments[2] = "--flink_master=flink:8081"  # Beam appends /v1 to it
    assert shell.build_arguments()[1:6] == [*arguments, "--parallelism=2", pool[0]]
    assert next(c for c in shell.calls() if c[0] == "curl")[-1] == "flink:8081/v1/config"


def test_spark_starts_the_job_server_by_java(shell):
    assert shell.script("build_spark.sh", *SPARK).returncode == 0
    assert shell.build_arguments() == [
        "--runner=SparkRunner",
        *SPARK[:3],
        "--spark_version=3",
        "--environment_type=DOCKER",
        SPARK[3],
        "--experiments=disable_logging_submission_environment",
    ]


def test_spark_uses_a_job_server_that_runs(shell, open_port):
    endpoint = f"--job_endpoint=127.0.0.1:{open_port}"
    assert shell.script("build_spark.sh", *PATHS, SPARK[3], endpoint).returncode == 0
    assert shell.build_arguments()[:4] == ["--runner=PortableRunner", *PATHS, endpoint]


def test_spark_job_server_in_docker_is_stopped_even_after_a_failure(shell):
    done = shell.script(
        "build_spark.sh", *SPARK, "--spark_job_server=docker", fails="beam_pipelines.build"
    )
    assert done.returncode == 7  # the build's own
    assert "--job_endpoint=localhost:8099" in shell.build_arguments()
    names = [call[:2] for call in shell.calls() if call[0] == "docker" or "-m" in call]
    assert names == [["docker", "info"], ["docker", "run"], ["python3", "-m"], ["docker", "stop"]]
    started = next(call for call in shell.calls() if call[:2] == ["docker", "run"])
    assert started[-2] == f"apache/beam_spark3_job_server:{pinned('apache-beam')}"
    assert started[-1] == "--spark-master-url=local[4]"


def test_dask_reaches_a_scheduler(shell, open_port):
    address = f"--dask_client_address=tcp://127.0.0.1:{open_port}"
    done = shell.script("build_dask.sh", *PATHS, address, "--dask_npartitions=64")
    assert done.returncode == 0, done.stderr
    expected = [f"--runner={DASK_RUNNER}", *PATHS, address, "--dask_npartitions=64"]
    assert shell.build_arguments() == expected


def test_dask_without_a_scheduler_takes_local_folders(shell):
    assert shell.script("build_dask.sh", "--input_dir=in", "--output_dir=out").returncode == 0
    assert shell.build_arguments()[1:] == ["--input_dir=in", "--output_dir=out"]


@every_script
def test_what_stands_after_two_dashes_is_handed_on_unchanged(shell, script):
    rest = ["--group_csv=a file.csv", "--help", "--image_size", "96", "--", "*", "--experiments=a"]
    assert shell.script(script, *SCRIPTS[script], "--", *rest).returncode == 0
    assert shell.build_arguments()[-len(rest) :] == rest


@every_script
def test_the_project_is_found_from_any_folder(shell, script):
    line = shell.script(script, "--dry_run", *SCRIPTS[script]).stdout
    assert shlex.split(line)[:2] == ["env", f"PYTHONPATH={ROOT}"]


# Dry runs


@every_script
def test_dry_run_starts_nothing(shell, script):
    dry_run(shell, script, *SCRIPTS[script])
    assert shell.calls() == []


@every_script
def test_dry_run_prints_a_command_that_a_shell_takes_back(shell, script):
    odd = ["--input_dir=gs://bucket/it's in é", "--output_dir", 'gs://bucket/$HOME "out" *;&']
    arguments = [*SCRIPTS[script], *odd, "--", "--group_csv=my table.csv", ""]
    printed = shell.script(script, "--dry_run", *arguments).stdout
    assert shell.script(script, *arguments).returncode == 0
    reached = shell.build_arguments()
    assert odd[0] in reached
    assert f"{odd[1]}={odd[2]}" in reached
    assert shell.run("-c", printed).returncode == 0
    assert shell.build_arguments() == reached


def test_dry_run_prints_the_job_servers_start_and_stop(shell):
    done = shell.script("build_spark.sh", "--dry_run", *SPARK, "--spark_job_server=docker")
    assert shell.calls() == []
    assert shell.run("-c", done.stdout).returncode == 0
    printed = shell.calls()
    assert shell.script("build_spark.sh", *SPARK, "--spark_job_server=docker").returncode == 0
    real = [c for c in shell.calls() if c[1:] != ["info"] and c[1] != "-c"]
    assert printed == real


# Help and mistakes


@every_script
def test_help_tells_the_command_the_price_and_every_option(shell, script):
    done = shell.script(script, "--help")
    assert done.returncode == 0
    assert shell.calls() == []
    assert f"launch/{script} --input_dir" in done.stdout
    assert "USD" in done.stdout
    assert "set -e" not in done.stdout
    text = (LAUNCH / script).read_text().replace("\\\n", " ")
    for name in re.search(r'read_options "(.+?)"', text).group(1).split():
        assert f"--{name}" in done.stdout


@pytest.mark.parametrize(
    ("script", "name"),
    [
        *((script, name) for script in SCRIPTS for name in ("input_dir", "output_dir")),
        *(("build_dataflow.sh", name) for name in ("project", "region", "temp_location")),
        *(("build_flink.sh", n) for n in ("flink_master", "parallelism", "environment_config")),
        *(("build_spark.sh", name) for name in ("spark_master_url", "environment_config")),
    ],
)
def test_a_missing_option_is_named(shell, script, name):
    arguments = [a for a in SCRIPTS[script] if not a.startswith(f"--{name}=")]
    assert_refused(shell.script(script, *arguments), f"missing option --{name};")
    assert shell.calls() == []


@every_script
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--image_size=96"], "unknown option --image_size;"),
        (["--input_dir output_dir=x"], "unknown option"),
        (["--dry_run=yes"], "unknown option --dry_run;"),
        (["gs://bucket"], "unexpected argument 'gs://bucket'"),
        (["--output_dir="], "--output_dir needs a value"),
        (["--output_dir"], "--output_dir needs a value"),
        (["--output_dir", "--dry_run"], "--output_dir needs a value"),
    ],
)
def test_a_mistyped_option_is_refused(shell, script, arguments, part):
    assert_refused(shell.script(script, *SCRIPTS[script], *arguments), part)
    assert shell.calls() == []


@pytest.mark.parametrize(
    ("script", "argument", "part"),
    [
        ("build_dataflow.sh", "--output_dir=/data/out", "do not see this machine's disk"),
        ("build_dataflow.sh", "--temp_location=gs://bucket", "must be gs://BUCKET/FOLDER"),
        ("build_dataflow.sh", "--input_dir=s3://b/in", "needs --sdk_container_image"),
        ("build_flink.sh", "--input_dir=in", "do not see this machine's disk"),
        ("build_flink.sh", "--environment_type=docker", "must be DOCKER, EXTERNAL or LOOPBACK"),
        ("build_spark.sh", "--output_dir=/out", "do not see this machine's disk"),
        ("build_spark.sh", "--spark_version=4", "Beam knows Spark 3 only"),
        ("build_spark.sh", "--spark_job_server=podman", "must be java or docker"),
    ],
)
def test_a_value_that_cannot_work_is_refused(shell, script, argument, part):
    assert_refused(shell.script(script, *SCRIPTS[script], argument), argument.split("=")[0], part)
    assert shell.calls() == []


def test_dask_workers_elsewhere_need_full_paths(shell):
    arguments = ["--input_dir=in", "--output_dir=/out", "--dask_client_address=tcp://host:8786"]
    assert_refused(shell.script("build_dask.sh", *arguments), "in: workers elsewhere")


# Prerequisites


@pytest.mark.parametrize(
    ("script", "extra", "fails", "part"),
    [
        ("build_dataflow.sh", [], "gcloud auth print-access", "gcloud auth login"),
        ("build_dataflow.sh", [], "default print-access", "application-default login"),
        ("build_dataflow.sh", [], "storage ls gs://tmp", "bucket gs://tmp does not exist"),
        ("build_dataflow.sh", [], "import gcsfs", f"'{ROOT}[gcp]'"),
        ("build_flink.sh", [], "curl", "--flink_master=http://flink:8081: no Flink REST"),
        ("build_flink.sh", [], "import gcsfs", f"'{ROOT}[gcp]'"),
        ("build_spark.sh", ["--input_dir=s3://b/in"], "import s3fs", f"'{ROOT}[aws]'"),
        ("build_spark.sh", ["--spark_job_server=docker"], "docker info", "does not answer"),
        ("build_spark.sh", ["--job_endpoint=127.0.0.1:1"], "", "job server cannot be reached"),
        ("build_spark.sh", ["--spark_master_url=spark://127.0.0.1:1,b:2"], "", "Spark's master"),
        ("build_dask.sh", [], "import dask", f"'{ROOT}[dask]'"),
        ("build_dask.sh", ["--dask_client_address=tcp://127.0.0.1:1"], "", "Dask's scheduler"),
    ],
)
def test_a_prerequisite_that_fails_is_told_before_the_start(shell, script, extra, fails, part):
    assert_refused(shell.script(script, *SCRIPTS[script], *extra, fails=fails), part)
    assert not any("beam_pipelines.build" in call for call in shell.calls())


@pytest.mark.parametrize(
    ("script", "extra", "program"),
    [
        ("build_dataflow.sh", [], "gcloud"),
        ("build_flink.sh", [], "curl"),
        ("build_flink.sh", ["--flink_master=localhost:8081"], "docker"),
        ("build_spark.sh", [], "java"),
        ("build_spark.sh", ["--spark_job_server=docker"], "docker"),
        *((script, [], "python3") for script in SCRIPTS),
    ],
)
def test_a_program_that_is_not_installed_is_named(shell, script, extra, program):
    done = shell.script(script, *SCRIPTS[script], *extra, without=program)
    assert_refused(done, f"{program} is not installed")


# What Beam makes of it

PROJECT_FLAGS = ("--input_dir", "--output_dir")  # build's own, that Beam does not know


@pytest.mark.parametrize(
    ("script", "extra", "expected"),
    [
        (
            "build_dataflow.sh",
            ["--num_workers=2", "--max_num_workers=9", "--machine_type=n2-standard-4"],
            {
                "runner": "DataflowRunner",
                "project": "proj-1",
                "region": "europe-west4",
                "temp_location": "gs://tmp/t",
                "num_workers": 2,
                "max_num_workers": 9,
                "machine_type": "n2-standard-4",
                "setup_file": f"{ROOT}/setup.py",
                "requirements_file": f"{LAUNCH}/dataflow_requirements.txt",
            },
        ),
        (
            "build_dataflow.sh",
            [f"--sdk_container_image={IMAGE}"],
            {
                "runner": "DataflowRunner",
                "project": "proj-1",
                "region": "europe-west4",
                "temp_location": "gs://tmp/t",
                "sdk_container_image": IMAGE,
                "sdk_location": "container",
            },
        ),
        (
            "build_flink.sh",
            [],
            {
                "runner": "FlinkRunner",
                "flink_master": "http://flink:8081",
                "flink_submit_uber_jar": True,
                "parallelism": 8,
                "environment_type": "DOCKER",
                "environment_config": IMAGE,
            },
        ),
        (
            "build_spark.sh",
            ["--spark_master_url=spark://spark:7077"],
            {
                "runner": "SparkRunner",
                "spark_master_url": "spark://spark:7077",
                "environment_type": "DOCKER",
                "environment_config": IMAGE,
                "experiments": ["disable_logging_submission_environment"],
            },
        ),
        (
            "build_spark.sh",
            ["--job_endpoint=spark:8099", "--environment_type=EXTERNAL"],
            {
                "runner": "PortableRunner",
                "job_endpoint": "spark:8099",
                "environment_type": "EXTERNAL",
                "environment_config": IMAGE,
                "experiments": ["disable_logging_submission_environment"],
            },
        ),
        (
            "build_dask.sh",
            ["--dask_client_address=tcp://dask:8786", "--dask_npartitions=64"],
            {"runner": DASK_RUNNER, "address": "tcp://dask:8786", "npartitions": 64},
        ),
    ],
)
def test_beam_knows_every_option(shell, script, extra, expected):
    import apache_beam.runners.dask.dask_runner  # noqa: F401  (its options count once imported)

    given = dry_run(shell, script, *SCRIPTS[script], *extra)
    options = PipelineOptions([a for a in given if not a.startswith(PROJECT_FLAGS)])
    known = options.get_all_options(drop_default=True)
    assert known == expected
    assert options.get_all_options(drop_default=True, retain_unknown_options=True) == known


# The workers' image, and the scripts as text


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found, f"{package} has no single version in constraints.txt"
    return found.group(1)


def dockerfile(name: str = "Dockerfile") -> list[list[str]]:
    lines = (LAUNCH / name).read_text().replace("\\\n", "").splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def test_the_image_has_the_versions_that_the_project_pins():
    (base,) = (words[1] for words in dockerfile() if words[0] == "FROM")
    python, beam = re.fullmatch(r"apache/beam_python(.+)_sdk:(.+)", base).groups()
    assert beam == pinned("apache-beam")
    setup = (ROOT / "setup.py").read_text()
    assert SpecifierSet(re.search(r'python_requires="(.+?)"', setup).group(1)).contains(python)
    # … and the Python that the pins were tested with.
    assert f"those of {python}." in (ROOT / "constraints.txt").read_text()


def test_the_image_gets_all_that_it_copies_and_every_package():
    copied = [name for words in dockerfile() if words[0] == "COPY" for name in words[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied)
    packages = re.search(r"find_packages\(include=\[(.+?)\]", (ROOT / "setup.py").read_text())
    for package in re.findall(r'"(\w+)\*"', packages.group(1)):
        assert package in copied


def test_the_image_installs_pinned_versions_and_keeps_the_entrypoint():
    (install,) = (words[1:] for words in dockerfile() if words[0] == "RUN")
    assert install == ["pip", "install", "--no-cache-dir", "-c", "constraints.txt", ".[$EXTRAS]"]
    assert ["ARG", "EXTRAS=gcp,aws"] in dockerfile()
    assert not {"ENTRYPOINT", "CMD"} & {words[0] for words in dockerfile()}
    for extra in ("gcp", "aws", "dask"):
        assert f'"{extra}": [' in (ROOT / "setup.py").read_text()


def test_dataflow_requirements_are_those_of_the_gcp_extra():
    lines = (LAUNCH / "dataflow_requirements.txt").read_text().splitlines()
    extra = re.search(r'"gcp": \[(.+)\],', (ROOT / "setup.py").read_text()).group(1)
    for line in lines:
        assert line.startswith("#") or f'"{line}"' in extra


def test_shellcheck_finds_nothing_in_the_scripts():
    beside = pathlib.Path(sys.executable).with_name("shellcheck")
    program = beside if beside.exists() else shutil.which("shellcheck")
    if not program:
        pytest.skip("needs shellcheck: pip install -e '.[dev]'")
    scripts = sorted(str(path.relative_to(ROOT)) for path in LAUNCH.glob("*.sh"))
    done = subprocess.run(
        [program, "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == ""
    assert done.returncode == 0


@every_script
def test_scripts_are_short_and_can_be_started(script):
    assert os.access(LAUNCH / script, os.X_OK)
    assert len((LAUNCH / script).read_text().splitlines()) <= 90


def test_the_image_that_serves_is_pinned_and_does_not_run_as_root():
    steps = dockerfile("Dockerfile.serve")
    copied = [words for words in steps if words[0] == "COPY"]
    assert copied == [words for words in dockerfile() if words[0] == "COPY"]
    (install,) = (words for words in steps if words[0] == "RUN")
    assert install[1:6] == ["pip", "install", "--no-cache-dir", "-c", "constraints.txt"]
    assert "serve" in install[6]
    (user,) = (words[1] for words in steps if words[0] == "USER")
    assert int(user) > 0
    assert steps.index(["USER", user]) > steps.index(install)


def test_the_demo_writes_below_one_folder_that_git_ignores(shell):
    """`data/` is the name that readers of the quick start give to their own data set."""
    assert shell.script("demo.sh").returncode == 0
    flags = ("--input_dir", "--output_dir", "--data_dir", "--run_dir")
    words = [word for call in shell.calls() for word in call]
    paths = [word.partition("=")[2] for word in words if word.startswith(flags)]
    assert len(paths) == 5
    assert all(path.startswith("demo/") for path in paths), paths
    builds = [call for call in shell.calls() if "beam_pipelines.build" in call]
    assert all("--input_dir=demo/radiographs" in call for call in builds)  # else it uses data/
    assert "/demo/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
