import json

import pytest

from cxr_tfrecords.errors import UserError
from trainer.distribution import cluster

SLURM = {
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NODELIST": "n[9-10],gpu7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_JOB_ID": "7",
    "SLURMD_NODENAME": "n10",
}
KUBERNETES = {
    "JOB_COMPLETION_INDEX": "1",
    "HOSTNAME": "train-workers-0-1",
    "CXR_WORKERS": "3",
    "CXR_WORKER_SERVICE": "train",
}


def test_slurm_tasks_are_numbered_in_the_order_of_the_node_list():
    config, source = cluster.find_cluster(SLURM)
    # By name n10 would come before n9, and rank 3 would be another node's.
    assert config["cluster"]["worker"] == [
        "n9:20112",
        "n9:20113",
        "n10:20112",
        "n10:20113",
        "gpu7:20112",
    ]
    assert config["task"] == {"type": "worker", "index": 3}
    assert source == "SLURM"
    assert cluster.num_processes(config) == 5


def test_slurm_tasks_in_another_order_are_refused():
    with pytest.raises(UserError, match=r"runs on n9 and not on n10: .*--distribution=block"):
        cluster.find_cluster(SLURM | {"SLURMD_NODENAME": "n9"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SLURM_STEP_NODELIST": "r[1-2]n[3-4]"}, "cannot be read .*set TF_CONFIG"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2"}, "cannot be read"),
        ({"SLURM_PROCID": "5"}, "cannot be read"),
    ],
)
def test_slurm_variables_that_cannot_be_read_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        cluster.find_cluster(SLURM | changes)


def test_batch_script_without_srun_is_told_to_use_it():
    environment = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}
    with pytest.raises(UserError, match="start the workers with srun"):
        cluster.find_cluster(environment)


def test_pods_of_an_indexed_job_find_each_other_by_their_service():
    config, source = cluster.find_cluster(KUBERNETES)
    assert config["cluster"]["worker"] == [
        f"train-workers-0-{number}.train:8888" for number in range(3)
    ]
    assert config["task"] == {"type": "worker", "index": 1}
    assert source == "Kubernetes"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"CXR_WORKERS": "1"}, "CXR_WORKERS=1 must be the number"),
        ({"CXR_WORKER_SERVICE": ""}, "also needs CXR_WORKER_SERVICE"),
        ({"HOSTNAME": "train-abc"}, "completionMode: Indexed"),
    ],
)
def test_incomplete_indexed_job_names_what_is_missing(changes, words):
    with pytest.raises(UserError, match=words):
        cluster.find_cluster(KUBERNETES | changes)


def test_tf_config_is_taken_before_what_a_scheduler_says():
    own = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}
    assert cluster.find_cluster(SLURM | {"TF_CONFIG": json.dumps(own)}) == (own, "TF_CONFIG")


def test_single_process_is_no_cluster():
    assert cluster.find_cluster({"SLURM_STEP_NUM_TASKS": "1", "JOB_COMPLETION_INDEX": "0"}) is None


@pytest.mark.parametrize(
    ("jobs", "task", "expected"),
    [
        (("worker",), ("worker", 0), True),
        (("worker",), ("worker", 1), False),
        (("chief", "worker"), ("worker", 0), False),
        (("chief", "worker"), ("chief", 0), True),
    ],
)
def test_one_process_writes_the_run(jobs, task, expected):
    addresses = {job: ["a:1", "b:1"] for job in jobs}
    found = {"cluster": addresses, "task": {"type": task[0], "index": task[1]}}
    assert cluster.is_chief(found) == expected
