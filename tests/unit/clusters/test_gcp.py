"""configs/clusters/gcp.yaml through Ray's own code, with Google's answers made up here.

Not checked, for want of Google: that the project, images, machines and zones exist, and what permissions allow.
"""

import json
from typing import Any

import httplib2
import pytest
from googleapiclient.discovery_cache import get_static_doc
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider

from tests.helpers.cluster_files import GCP, read

ACCOUNT = {"email": "ray@my-project.iam.gserviceaccount.com", "projectId": "my-project"}
ANSWERS: dict[tuple[str, str], Any] = {  # by method and the end of the path
    ("GET", "v1/projects/my-project"): {"projectId": "my-project", "lifecycleState": "ACTIVE"},
    ("GET", f"serviceAccounts/ray-autoscaler-sa-v1@{ACCOUNT['email'].partition('@')[2]}"): ACCOUNT,
    ("POST", "my-project:getIamPolicy"): {"bindings": []},
    ("POST", "my-project:setIamPolicy"): {},
    ("GET", "compute/v1/projects/my-project"): {"name": "my-project", "commonInstanceMetadata": {}},
    ("POST", "setCommonInstanceMetadata"): {"name": "operation"},
    ("GET", "global/operations/operation"): {"status": "DONE"},
    ("GET", "us-central1/subnetworks"): {"items": [{"selfLink": "projects/my-project/subnetworks/default"}]},
}


@pytest.fixture
def google(tmp_path, monkeypatch):
    """Answers to requests, to which a test may add; and the bodies of the instances that are asked for."""
    answers, asked = dict(ANSWERS), []

    def request(self, uri, method="GET", body=None, headers=None, **kwargs):
        path = uri.partition("?")[0]
        if method == "POST" and path.endswith("/instances"):
            asked.append(json.loads(body))
            return httplib2.Response({"status": "200"}), json.dumps({"name": f"insert-{len(asked)}"}).encode()
        matching = [answer for (verb, end), answer in answers.items() if verb == method and path.endswith(end)]
        assert matching, f"{method} {path}"
        answer = matching[-1](len(asked)) if callable(matching[-1]) else matching[-1]
        return httplib2.Response({"status": "200"}), json.dumps(answer).encode()

    monkeypatch.setattr(httplib2.Http, "request", request)
    monkeypatch.setenv("HOME", str(tmp_path))
    return answers, asked


@pytest.fixture
def cluster(google):
    config = read(GCP)
    config["provider"]["gcp_credentials"] = {"type": "credentials_token", "credentials": "token"}
    return _bootstrap_config(config, no_config_cache=True)


def test_ray_up_fills_in_key_network_and_the_heads_account(cluster, tmp_path):
    key = tmp_path / cluster["auth"]["ssh_private_key"].rpartition(f"{tmp_path}/")[2]
    assert key.stat().st_mode & 0o777 == 0o600
    assert cluster["head_node"]["serviceAccounts"][0]["email"] == ACCOUNT["email"]
    for node_type in cluster["available_node_types"].values():
        assert node_type["node_config"]["networkInterfaces"][0]["subnetwork"].endswith("default")
    # Workers keep the account of the file, which may do less.
    assert "tiebreak-worker@" in cluster["available_node_types"]["gpu"]["node_config"]["serviceAccounts"][0]["email"]


@pytest.mark.parametrize("node_type", ["head", "cpu", "gpu"])
def test_google_knows_every_field(node_type):
    """By Google's own description of its interface, which comes with the client."""
    schemas = json.loads(get_static_doc("compute", "v1"))["schemas"]
    assert _unknown(read(GCP)["available_node_types"][node_type]["node_config"], schemas["Instance"], schemas) == []
    assert _unknown({"machinetype": "a"}, schemas["Instance"], schemas) == ["machinetype"]
    wrong = {"scheduling": {"provisioningModel": "CHEAP"}}
    assert _unknown(wrong, schemas["Instance"], schemas) == ["provisioningModel: CHEAP"]


def _unknown(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """What of the value the schema does not know: names of fields, and values of enumerations."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list):
        return [found for each in value for found in _unknown(each, schema["items"], schemas)]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    unknown = []
    for name, each in value.items():
        if name not in schema["properties"]:
            unknown.append(name)
            continue
        field = schema["properties"][name]
        if "enum" in field and each not in field["enum"]:
            unknown.append(f"{name}: {each}")
        unknown += _unknown(each, field, schemas)
    return unknown


def launch(cluster, node_type, count):
    provider = _get_node_provider(cluster["provider"], cluster["cluster_name"], use_cache=False)
    tags = {"ray-node-name": "worker", "ray-node-type": "worker", "ray-user-node-type": node_type}
    return provider.create_node(cluster["available_node_types"][node_type]["node_config"], tags, count)


@pytest.mark.parametrize("node_type", ["cpu", "gpu"])
def test_workers_are_spot(cluster, google, node_type):
    answers, asked = google
    answers["GET", "operations/insert-1"] = {"name": "insert-1", "status": "DONE"}
    assert len(launch(cluster, node_type, 1)) == 1
    assert [each["scheduling"]["provisioningModel"] for each in asked] == ["SPOT"]


def test_spot_that_is_refused_is_launched_on_demand(cluster, google):
    """The second of three: those that came up stay, and none is launched twice."""
    answers, asked = google
    refusal = {"name": "insert-2", "error": {"errors": [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"}]}}
    for number in (1, 3, 4):
        answers["GET", f"operations/insert-{number}"] = {"name": f"insert-{number}", "status": "DONE"}
    answers["GET", "operations/insert-2"] = refusal
    assert len(launch(cluster, "gpu", 3)) == 3
    assert [each["scheduling"].get("provisioningModel") for each in asked] == ["SPOT", "SPOT", None, "SPOT"]
    # What a GPU needs stays.
    assert asked[2]["scheduling"] == {"onHostMaintenance": "TERMINATE", "automaticRestart": False}
    assert asked[2]["labels"]["ray-user-node-type"] == "gpu"


def test_other_refusals_stay_refusals(cluster, google):
    answers, asked = google
    answers["GET", "operations/insert-1"] = {"name": "insert-1", "error": {"errors": [{"code": "PERMISSION_DENIED"}]}}
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        launch(cluster, "gpu", 1)
    assert len(asked) == 1
