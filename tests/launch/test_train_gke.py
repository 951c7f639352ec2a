"""launch/train_gke.sh: the manifests against a schema, and what their container would run."""

from __future__ import annotations

import copy

import pytest

from tests.launch.jobset_schema import JOBSET
from tests.launch.shell import LAUNCH, assert_refused
from tests.launch.train_shell import TrainShell

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: pip install -e '.[dev]'")
yaml = pytest.importorskip("yaml", reason="needs pyyaml: pip install -e '.[dev]'")
SCRIPT = str(LAUNCH / "train_gke.sh")
BOTH = [
    "--job_name=first",
    "--image=registry.example/cxr:1",
    "--data_dir=gs://b/data dir",
]
KINDS = {
    "gpu": [
        SCRIPT,
        *BOTH,
        "--volume_claim=shared",
        "--run_dir=/shared/run",
        "--kind=gpu",
        "--accelerator=nvidia-l4",
        "--workers=3",
        "--chips=2",
    ],
    "tpu": [
        SCRIPT,
        *BOTH,
        "--run_dir=gs://b/run",
        "--kind=tpu",
        "--accelerator=tpu-v5-lite-podslice",
        "--topology=2x4",
        "--chips=8",
    ],
}
ODD = ['--odd=it\'s & "x" \\ $HOME $(id) ${IMAGE}', "--weights=: #"]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def shell(tmp_path):
    found = TrainShell(tmp_path)
    found.stand_in("kubectl", 'if [[ "$1" == apply ]]; then cat >"$NOTES/applied"; fi\n')
    return found


def manifest(shell, kind, *arguments):
    done = shell.train(*KINDS[kind], "--dry_run", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)


def job(found):
    return found["spec"]["replicatedJobs"][0]["template"]["spec"]


def container(found):
    return job(found)["template"]["spec"]["containers"][0]


@every_kind
def test_the_manifest_follows_the_schema(shell, kind):
    jsonschema.Draft202012Validator.check_schema(JOBSET)
    jsonschema.validate(manifest(shell, kind, "--", *ODD), JOBSET)


@every_kind
def test_the_schema_sees_a_mistyped_field(shell, kind):
    found = manifest(shell, kind)
    for spoil in (
        lambda m: m["spec"].update(maxRestarts=1),
        lambda m: job(m).update(backoffLimit="0"),
        lambda m: job(m)["template"]["spec"].update(restartPolicy="OnFailure"),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].update(action="Restart"),
        lambda m: container(m).pop("image"),
    ):
        spoiled = copy.deepcopy(found)
        spoil(spoiled)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spoiled, JOBSET)


@every_kind
def test_what_is_applied_is_what_a_dry_run_prints(shell, kind):
    printed = shell.train(*KINDS[kind], "--dry_run", "--", *ODD).stdout
    assert not (shell.notes / "applied").exists()
    assert shell.train(*KINDS[kind], "--", *ODD).returncode == 0
    assert (shell.notes / "applied").read_text() == printed


@every_kind
def test_code_75_and_lost_nodes_restart_and_other_codes_end(shell, kind):
    found = manifest(shell, kind)
    (rule,) = job(found)["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "NotIn"
    # 137 and 143: killed together with the node.
    assert rule["onExitCodes"]["values"] == [0, 75, 137, 143]
    assert rule["onExitCodes"]["containerName"] == container(found)["name"]
    # A pod that is not restarted fails the Job, and that restarts the set …
    assert job(found)["backoffLimit"] == 0
    # … unless the rule above failed it.
    (end,) = found["spec"]["failurePolicy"]["rules"]
    assert (end["action"], end["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_every_gpu_pod_finds_its_place_and_gets_its_flags(shell):
    found = manifest(shell, "gpu", "--", *ODD)
    assert job(found)["completions"] == job(found)["parallelism"] == 3
    assert container(found)["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    # As Kubernetes does: $$( in args becomes $(.
    args = [word.replace("$$(", "$(") for word in container(found)["args"]]
    shell.stand_in("python", 'exec python3 "$@"\n')
    for index in range(3):
        shell.stand_in("bash-in-pod", f'export JOB_COMPLETION_INDEX={index}\nexec bash "$@"\n')
        command = [*container(found)["command"], *args]
        done = shell.train("-c", 'exec "$@"', "pod", "bash-in-pod", *command[1:])
        assert done.returncode == 0, done.stderr
        worker = shell.worker(index)
        assert worker["tf_config"] == {
            "cluster": {"worker": [f"first-worker-0-{i}.first:12345" for i in range(3)]},
            "task": {"type": "worker", "index": index},
        }
        expected = [*BOTH[2:], "--run_dir=/shared/run", "--strategy=multi_worker", *ODD]
        assert worker["arguments"] == ["-m", "trainer.main", *expected]


def test_the_tpu_pod_takes_the_whole_host(shell):
    found = manifest(shell, "tpu")
    chips = {"google.com/tpu": 8}
    assert container(found)["resources"] == {"requests": chips, "limits": chips}
    assert "--strategy=tpu" in container(found)["args"]
    assert job(found)["template"]["spec"]["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "2x4",
    }


def test_only_folders_on_the_volume_need_one(shell):
    volumes = {kind: job(manifest(shell, kind))["template"]["spec"]["volumes"][0] for kind in KINDS}
    assert volumes["gpu"] == {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}
    assert volumes["tpu"] == {"name": "shared", "emptyDir": {}}
    assert_refused(shell.train(*KINDS["tpu"], "--run_dir=/shared/run"), "--volume_claim")


@pytest.mark.parametrize(
    ("kind", "argument", "part"),
    [
        ("gpu", "--kind=cpu", "gpu or tpu"),
        ("gpu", "--job_name=First", "lower-case"),
        ("gpu", "--job_name=a: b", "lower-case"),
        ("gpu", "--image=a b", "is not a name"),
        ("gpu", "--run_dir=/run", "below /shared"),
        ("gpu", "--data_dir=data", "below /shared"),
        ("gpu", "--workers=0", "from 1"),
        ("tpu", "--topology=4x4", "slices of one host"),
        ("tpu", "--topology=8", "must look like 2x4"),
        ("tpu", "--accelerator=tpu7x", "v2 to v6e only"),
    ],
)
def test_a_value_that_cannot_work_is_refused(shell, kind, argument, part):
    assert_refused(shell.train(*KINDS[kind], argument), argument.split("=")[0], part)
    assert not (shell.notes / "applied").exists()
