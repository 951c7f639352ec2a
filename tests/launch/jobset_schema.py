"""JSON schemas of those fields of a JobSet and a Job that the manifests use; no other is allowed.

Written from the reference pages, field names and types only:
jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2 and
kubernetes.io/docs/reference/kubernetes-api/workload-resources/{job-v1,pod-v1}.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
# Kubernetes' names; with the JobSet's own suffixes a pod's stays below 63.
NAME: Schema = {"type": "string", "pattern": "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def many(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


def closed(required: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_RESOURCES = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}}
_CONTAINER = closed(
    "name image command args resources",
    name=NAME,
    image=TEXT,
    command=many(TEXT),
    args=many({"type": "string"}),
    ports=many(closed("containerPort", containerPort=COUNT)),
    resources=closed("limits", limits=_RESOURCES, requests=_RESOURCES),
    volumeMounts=many(closed("name mountPath", name=NAME, mountPath=TEXT)),
)
_VOLUME = closed(
    "name",
    name=NAME,
    persistentVolumeClaim=closed("claimName", claimName=NAME),
    emptyDir=closed("", medium=one_of("Memory")),
)
_POD = closed(
    "restartPolicy containers",
    # With a podFailurePolicy a Job takes no other.
    restartPolicy=one_of("Never"),
    terminationGracePeriodSeconds=COUNT,
    nodeSelector=LABELS,
    tolerations=many(
        closed("key operator", key=TEXT, operator=one_of("Exists"), effect=one_of("NoSchedule"))
    ),
    containers=many(_CONTAINER),
    volumes=many(_VOLUME),
)
_EXIT_CODES = closed(
    "operator values",
    containerName=NAME,
    operator=one_of("In", "NotIn"),
    values=many({"type": "integer", "minimum": 0, "maximum": 255}),
)
_JOB_FIELDS: Schema = {
    "completionMode": one_of("Indexed", "NonIndexed"),
    "completions": COUNT,
    "parallelism": COUNT,
    "backoffLimit": COUNT,
    "podFailurePolicy": closed(
        "rules",
        rules=many(
            closed(
                "action",
                action=one_of("FailJob", "FailIndex", "Ignore", "Count"),
                onExitCodes=_EXIT_CODES,
            )
        ),
    ),
    "template": closed("spec", spec=_POD),
}
_JOB = closed("template", **_JOB_FIELDS)
_RULE = closed(
    "name action",
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action=one_of("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
    onJobFailureReasons=many(
        one_of("BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy")
    ),
)
JOBSET = closed(
    "apiVersion kind metadata spec",
    apiVersion=one_of("jobset.x-k8s.io/v1alpha2"),
    kind=one_of("JobSet"),
    metadata=closed("name", name=NAME),
    spec=closed(
        "replicatedJobs",
        network=closed("", enableDNSHostnames=FLAG, publishNotReadyAddresses=FLAG),
        failurePolicy=closed("", maxRestarts=COUNT, rules=many(_RULE)),
        replicatedJobs=many(
            closed("name template", name=NAME, replicas=COUNT, template=closed("spec", spec=_JOB))
        ),
    ),
)
JOB = closed(
    "apiVersion kind metadata spec",
    apiVersion=one_of("batch/v1"),
    kind=one_of("Job"),
    metadata=closed("name", name=NAME),
    # With a limit of each index, backoffLimit is not set.
    spec=closed(
        "template backoffLimitPerIndex",
        backoffLimitPerIndex=COUNT,
        **{name: field for name, field in _JOB_FIELDS.items() if name != "backoffLimit"},
    ),
)
