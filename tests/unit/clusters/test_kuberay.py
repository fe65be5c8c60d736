"""The manifest for Kubernetes against the schemas of Kubernetes and KubeRay, and through Ray's own autoscaler."""

import copy
import json

import jsonschema
import kubernetes_validate
import pytest
import ray
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from core.resources import NODE_TYPES
from tests.helpers.cluster_files import KUBERAY, manifests, may_come, worker_types
from tests.helpers.kuberay_schema import RAY_JOB

KUBERNETES = "1.37"
GROUPS = ["head", "cpu", "gpu-spot", "gpu-on-demand"]


@pytest.fixture
def spec():
    return manifests()["RayJob"]["spec"]["rayClusterSpec"]


def template(spec, group):
    groups = {each["groupName"]: each for each in spec["workerGroupSpecs"]} | {"head": spec["headGroupSpec"]}
    return copy.deepcopy(groups[group]["template"])


def check(template):
    """Raise kubernetes_validate.ValidationError if the pods of a template are not as Kubernetes takes them."""
    pods = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pods"}, "template": template}
    kubernetes_validate.validate(pods, KUBERNETES, strict=True)


@pytest.mark.parametrize("kind", ["ServiceAccount", "NetworkPolicy"])
def test_kubernetes_takes_what_goes_with_the_job(kind):
    kubernetes_validate.validate(manifests()[kind], KUBERNETES, strict=True)


def test_kuberay_takes_the_job():
    jsonschema.validate(manifests()["RayJob"], RAY_JOB)


@pytest.mark.parametrize(
    "wrong",
    [{"authOption": {}}, {"authOptions": {"mode": "Token"}}, {"workerGroupSpecs": [{"groupName": "cpu"}]}],
)
def test_mistakes_in_the_job_are_found(spec, wrong):
    job = manifests()["RayJob"]
    job["spec"]["rayClusterSpec"] = {**spec, **wrong}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)


@pytest.mark.parametrize("group", GROUPS)
def test_kubernetes_takes_the_pods(spec, group):
    check(template(spec, group))


def test_kubernetes_takes_the_autoscalers_environment(spec):
    pod = template(spec, "head")
    pod["spec"]["containers"][0]["env"] += spec["autoscalerOptions"]["env"]
    check(pod)


def test_mistakes_in_the_pods_are_found(spec):
    pod = template(spec, "cpu")
    pod["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(pod)


def test_rays_autoscaler_reads_it(spec):
    """As the operator hands it on; Ray validates what comes out by the schema of `ray up`."""
    cluster = {"metadata": {"name": "tiebreak", "namespace": "default"}, "spec": spec}
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert {name: each.get("priority") for name, each in types.items() if "gpu" in name} == {
        "gpu-spot": 1,
        "gpu-on-demand": 0,
    }
    assert {name: each["GPU"] for name, each in worker_types(KUBERAY).items() if "GPU" in each} == {
        "gpu-spot": 1,
        "gpu-on-demand": 1,
    }


def test_drivers_are_told_what_may_come(spec):
    """For core.resources."""
    variables = {each["name"]: each["value"] for each in template(spec, "head")["spec"]["containers"][0]["env"]}
    there: dict[tuple[float, float], int] = {}
    for node, count in may_come(KUBERAY):
        size = node["CPU"], node.get("GPU", 0)
        there[size] = there.get(size, 0) + count
    told = {(node["CPU"], node.get("GPU", 0)): count for node, count in json.loads(variables[NODE_TYPES])}
    assert told == there
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) > 3


def test_pods_run_this_ray_and_can_do_little(spec):
    assert spec["rayVersion"] == ray.__version__
    for group in GROUPS:
        pod = template(spec, group)["spec"]
        assert pod["serviceAccountName"] == "tiebreak"
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("group", ["gpu-spot", "gpu-on-demand"])
def test_pods_may_go_to_nodes_with_gpus(spec, group):
    pod = template(spec, group)["spec"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    tolerates_spot = any(each["key"] == "cloud.google.com/gke-spot" for each in pod["tolerations"])
    assert tolerates_spot == (group == "gpu-spot") == ("cloud.google.com/gke-spot" in pod["nodeSelector"])
