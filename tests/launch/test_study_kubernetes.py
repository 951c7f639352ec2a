"""launch/study_kubernetes.sh: the manifest against a schema, and what its pods would run."""

from __future__ import annotations

import copy

import pytest

from tests.launch.jobset_schema import JOB
from tests.launch.shell import LAUNCH, assert_refused
from tests.launch.study_shell import StudyShell

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: pip install -e '.[dev]'")
yaml = pytest.importorskip("yaml", reason="needs pyyaml: pip install -e '.[dev]'")
STUDY = ["--data_dir=gs://b/data dir", "--study_dir=/shared/study"]
NEEDED = [
    *(str(LAUNCH / "study_kubernetes.sh"), "--job_name=study", "--image=registry.example/cxr:1"),
    *("--volume_claim=shared", "--parts=3", "--gpus=2", *STUDY),
]
ODD = ['--odd=it\'s & "x" \\ $HOME $(id) ${IMAGE}', "--weights=: #"]


@pytest.fixture
def shell(tmp_path):
    found = StudyShell(tmp_path)
    found.stand_in("kubectl", 'if [[ "$1" == apply ]]; then cat >"$NOTES/applied"; fi\n')
    return found


def manifest(shell, *arguments):
    done = shell.train(*NEEDED, "--dry_run", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)


def test_the_manifest_follows_the_schema_which_sees_a_mistyped_field(shell):
    jsonschema.Draft202012Validator.check_schema(JOB)
    job = manifest(shell, "--", *ODD)
    jsonschema.validate(job, JOB)
    for spoil in (
        lambda m: m["spec"].update(backoffLimitPerIndex="1"),
        lambda m: m["spec"].pop("template"),
        lambda m: m["spec"]["podFailurePolicy"]["rules"][0].update(action="FailPod"),
    ):
        spoiled = copy.deepcopy(job)
        spoil(spoiled)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spoiled, JOB)


def test_every_pod_trains_its_part(shell):
    spec = manifest(shell, "--at_once=2", "--", *ODD)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 2)
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    # As Kubernetes does: $$( in args becomes $(. It leaves what names no variable as it is.
    args = [word.replace("$$(", "$(") for word in container["args"]]
    shell.stand_in("python", 'exec python3 "$@"\n')
    for index in range(3):
        shell.stand_in("bash-in-pod", f'export JOB_COMPLETION_INDEX={index}\nexec bash "$@"\n')
        command = ["bash-in-pod", *container["command"][1:], *args]
        done = shell.train("-c", 'exec "$@"', "pod", *command)
        assert done.returncode == 0, done.stderr
    flags = ["-m", "trainer.compare", *STUDY, *ODD]
    assert shell.parts() == {f"{k}-of-3": [*flags, f"--cells={k}/3"] for k in (1, 2, 3)}


def test_code_75_and_lost_nodes_restart_and_other_codes_end_their_part_only(shell):
    spec = manifest(shell, "--max_restarts=5")["spec"]
    assert spec["backoffLimitPerIndex"] == 5
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailIndex", "NotIn")
    assert rule["onExitCodes"]["values"] == [0, 75, 137, 143]
    assert rule["onExitCodes"]["containerName"] == "study"


def test_what_is_applied_is_what_a_dry_run_prints(shell):
    printed = shell.train(*NEEDED, "--dry_run", "--", *ODD).stdout
    assert not (shell.notes / "applied").exists()
    assert shell.train(*NEEDED, "--", *ODD).returncode == 0
    assert (shell.notes / "applied").read_text() == printed


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--job_name=Study"], ["--job_name", "lower-case"]),
        (["--image=a b"], ["--image", "is not a name"]),
        (["--study_dir=/study"], ["--study_dir", "below /shared"]),
        (["--data_dir=data"], ["--data_dir", "below /shared"]),
        (["--parts=0"], ["--parts", "from 1"]),
        (["--", "--study_dir=x"], ["--study_dir after --"]),
    ],
)
def test_a_value_that_cannot_work_is_refused(shell, arguments, parts):
    assert_refused(shell.train(*NEEDED, *arguments), *parts)
    assert not (shell.notes / "applied").exists()
