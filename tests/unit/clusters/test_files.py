"""What the files for clusters have in common: Ray's schema, few lines to change, nobody gets in, nothing runs idle."""

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from core.settings.loader import load_settings
from tests.helpers.cluster_files import (
    AWS,
    CLOUDS,
    GCP,
    KUBERAY,
    LAUNCHED,
    LOCAL,
    ROOT,
    changes,
    manifests,
    read,
    worker_types,
)

ALL = [*LAUNCHED, KUBERAY]
TEXTS = [*ALL, *sorted((ROOT / "clusters").glob("*.sh")), ROOT / "configs/clusters/Dockerfile"]


def name(path):
    return path.name


@pytest.mark.parametrize("path", LAUNCHED, ids=name)
def test_is_what_ray_up_takes(path):
    validate_config(prepare_config(read(path)))


@pytest.mark.parametrize("path", LAUNCHED, ids=name)
def test_what_ray_would_refuse_is_refused_here(path):
    config = prepare_config(read(path))
    config["idle_minutes"] = 5
    with pytest.raises(Exception, match="idle_minutes"):
        validate_config(config)


@pytest.mark.parametrize("path", ALL, ids=name)
def test_has_few_marked_lines_to_change(path):
    marks = changes(path)
    assert 1 <= len(marks) <= 5
    assert marks == [(number, len(marks)) for number in range(1, len(marks) + 1)]


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_listens_to_no_one_and_ends_nothing_of_others(path):
    commands = [line.partition("#")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    for line in commands:
        assert "0.0.0.0" not in line
        assert "ray stop" not in line
        assert "pkill" not in line


@pytest.mark.parametrize("path", LAUNCHED, ids=name)
def test_starts_ray_with_a_token_only(path):
    config = read(path)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        (command,) = config[f"{role}_start_ray_commands"]
        assert command.startswith("export RAY_AUTH_MODE=token; ")
        assert f"; : ray start; bash ~/tiebreak/clusters/start_ray.sh {role}" in command
    assert "--dashboard-host=127.0.0.1" in (ROOT / "clusters/start_ray.sh").read_text()


def test_kubernetes_asks_for_a_token_and_lets_only_the_operator_in():
    job, policy = manifests()["RayJob"], manifests()["NetworkPolicy"]
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "tiebreak-token"}
    labels = policy["spec"]["podSelector"]["matchLabels"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert all(labels.items() <= group["template"]["metadata"]["labels"].items() for group in groups)
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    own, operator = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert [port["port"] for port in operator["ports"]] == [8265]


@pytest.mark.parametrize("path", CLOUDS, ids=name)
def test_runs_nothing_without_work(path):
    config = read(path)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    workers = [each for type_name, each in types.items() if type_name != config["head_node_type"]]
    assert [each["min_workers"] for each in workers] == [0, 0]
    assert sum(each["max_workers"] for each in workers) <= config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False


def test_kubernetes_runs_nothing_without_work():
    job = manifests()["RayJob"]["spec"]
    spec = job["rayClusterSpec"]
    assert job["shutdownAfterJobFinishes"]
    assert spec["enableInTreeAutoscaling"]
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert [group["minReplicas"] for group in spec["workerGroupSpecs"]] == [0, 0, 0]


def test_spot_comes_before_what_is_dearer():
    spec = manifests()["RayJob"]["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups["gpu-spot"]["priority"] > groups["gpu-on-demand"]["priority"]
    # Else the autoscaler prefers the type that fits better, whatever the priorities.
    types = worker_types(KUBERAY)
    assert types["gpu-spot"] == types["gpu-on-demand"]
    aws, gcp = read(AWS)["available_node_types"], read(GCP)["available_node_types"]
    for node_type in ("cpu", "gpu"):
        assert aws[node_type]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert gcp[node_type]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"


def test_local_needs_addresses_and_a_key_only():
    config = read(LOCAL)
    assert set(config["provider"]) == {"type", "head_ip", "worker_ips"}
    assert set(config["auth"]) == {"ssh_user", "ssh_private_key"}


def test_the_entry_point_is_a_line_that_the_project_has():
    line = manifests()["RayJob"]["spec"]["entrypoint"]
    module, config, *overrides = line.partition("python -m ")[2].split(" --")
    assert module == "ray_jobs.pipeline"
    path = ROOT / config.removeprefix("config ")
    load_settings(path.read_text(encoding="utf-8"), path.name, [each.removeprefix("set ") for each in overrides])
