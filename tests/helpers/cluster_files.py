"""The files that clusters are made from, as Ray reads them."""

import re
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _generate_available_node_types_from_ray_cr_spec

ROOT = Path(__file__).parents[2]
AWS = ROOT / "cluster.yaml"
GCP, LOCAL, KUBERAY = (ROOT / f"configs/clusters/{name}.yaml" for name in ("gcp", "local", "kuberay"))
LAUNCHED = [AWS, GCP, LOCAL]  # by `ray up`
CLOUDS = [AWS, GCP]


def read(path: Path) -> dict[str, Any]:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


def manifests() -> dict[str, dict[str, Any]]:
    """The manifests for Kubernetes by their kinds."""
    return {each["kind"]: each for each in yaml.safe_load_all(KUBERAY.read_text(encoding="utf-8"))}


def worker_types(path: Path) -> dict[str, dict[str, float]]:
    """Resources of the nodes that an autoscaler may add, by the names of their types."""
    return {name: each["resources"] for name, each in _types(path).items()}


def may_come(path: Path) -> list[tuple[dict[str, float], int]]:
    """The same with how many of each there may be."""
    return [(each["resources"], each["max_workers"]) for each in _types(path).values()]


def _types(path: Path) -> dict[str, dict[str, Any]]:
    if path == KUBERAY:
        types = _generate_available_node_types_from_ray_cr_spec(manifests()["RayJob"]["spec"]["rayClusterSpec"])
        head = "headgroup"
    else:
        types, head = read(path)["available_node_types"], "head"
    assert head in types
    return {name: each for name, each in types.items() if name != head}


def changes(path: Path) -> list[tuple[int, int]]:
    """The marks of what a user is to change: number, and of how many."""
    marks = re.findall(r"# CHANGE (\d) of (\d)", path.read_text(encoding="utf-8"))
    return [(int(number), int(total)) for number, total in marks]
