"""The part of KubeRay's RayJob that our manifest uses, as a JSON schema: fields, types and values of KubeRay 1.7.

Written for these tests after the reference of ray.io/v1 (https://docs.ray.io/en/latest/cluster/kubernetes/references/
api.html) and ray-operator/apis/ray/v1 of github.com/ray-project/kuberay. A field that is not here is refused: the API
server would drop it without a word. Pods are left to Kubernetes' own schema.
"""

from typing import Any

COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
ENV = {"type": "array"}  # checked as that of a container


def fields(required: list[str], **properties: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


HEAD_GROUP = fields(
    ["template", "rayStartParams"],
    template={"type": "object"},
    rayStartParams=TEXTS,
    resources=TEXTS,
    labels=TEXTS,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    enableIngress={"type": "boolean"},
)
WORKER_GROUP = fields(
    ["groupName", "minReplicas", "maxReplicas", "template", "rayStartParams"],
    groupName={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    idleTimeoutSeconds=COUNT,
    priority={"type": "integer"},
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    template={"type": "object"},
)
CLUSTER = fields(
    ["headGroupSpec"],
    rayVersion=TEXT,
    authOptions=fields(
        [], mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth={"type": "boolean"}
    ),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=fields(
        [],
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        env=ENV,
        image=TEXT,
        imagePullPolicy=TEXT,
        resources={"type": "object"},
        securityContext={"type": "object"},
    ),
    headGroupSpec=HEAD_GROUP,
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
)
RAY_JOB = fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={"type": "object", "required": ["name"]},
    spec=fields(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        runtimeEnvYAML=TEXT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        activeDeadlineSeconds=COUNT,
        backoffLimit=COUNT,
        rayClusterSpec=CLUSTER,
    ),
)
