"""cluster.yaml through Ray's own code, against a server that answers as AWS does."""

import boto3
import pytest
import requests
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from ray.autoscaler._private.aws.utils import resource_cache
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import NODE_KIND_WORKER, TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

from tests.helpers.cluster_files import AWS, read


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder for the key that Ray makes, and an empty account on a server of this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    requests.post(f"{address}/moto-api/reset", timeout=30).raise_for_status()
    resource_cache.cache_clear()
    made = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("HOME", str(made))
        yield made
    server.stop()
    resource_cache.cache_clear()


@pytest.fixture(scope="module")
def cluster(home):
    """The configuration after all that `ray up` does with it before it launches a node."""
    for name in ("tiebreak-head", "tiebreak-worker"):
        boto3.client("iam", "us-west-2").create_instance_profile(InstanceProfileName=name)
    return _bootstrap_config(read(AWS), no_config_cache=True)


def test_ray_up_fills_in_key_subnets_and_group(cluster, home):
    types = cluster["available_node_types"]
    assert (home / ".ssh/ray-autoscaler_us-west-2.pem").stat().st_mode & 0o777 == 0o600
    ec2 = boto3.client("ec2", "us-west-2")
    (group,) = ec2.describe_security_groups(GroupNames=["tiebreak"])["SecurityGroups"]
    zones = {each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]}  # the region's own have one each
    assert len(zones) > 1
    for node_type in types.values():
        config = node_type["node_config"]
        assert config["SecurityGroupIds"] == [group["GroupId"]]
        assert set(config["SubnetIds"]) == zones
        assert config["KeyName"]
        assert config["MetadataOptions"] == {"HttpTokens": "required"}
        assert config["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
    # From outside, ssh and nothing else; Ray made no role that may do everything.
    open_to_all = [rule for rule in group["IpPermissions"] if rule["IpRanges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in open_to_all] == [(22, 22)]
    assert boto3.client("iam", "us-west-2").list_roles()["Roles"] == []
    assert cluster["head_node"] == {}


def test_the_nodes_have_the_resources_that_the_file_states(cluster):
    """Ray asks AWS what a type of instance has."""
    offered = {
        each["InstanceType"]: each
        for each in boto3.client("ec2", "us-west-2")
        .get_paginator("describe_instance_types")
        .paginate()
        .build_full_result()["InstanceTypes"]
    }
    for name in ("cpu", "gpu"):
        node_type = cluster["available_node_types"][name]
        instance = offered[node_type["node_config"]["InstanceType"]]
        assert node_type["resources"]["CPU"] == instance["VCpuInfo"]["DefaultVCpus"]
        gpus = instance.get("GpuInfo", {}).get("Gpus", [])
        assert node_type["resources"].get("GPU", 0) == sum(gpu["Count"] for gpu in gpus)


def launch(cluster, node_type, refuse=None):
    """Launch a node as the autoscaler does, and return what AWS has; `refuse` is its code for spot."""
    provider = _get_node_provider(cluster["provider"], cluster["cluster_name"], use_cache=False)

    def answer(params, **kwargs):
        if refuse is not None and "InstanceMarketOptions" in params:
            raise ClientError({"Error": {"Code": refuse, "Message": "no capacity"}}, "RunInstances")

    tags = {
        TAG_RAY_NODE_NAME: "worker",
        TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
        TAG_RAY_USER_NODE_TYPE: node_type,
    }
    events = provider.ec2_fail_fast.meta.client.meta.events
    events.register("before-parameter-build.ec2.RunInstances", answer)
    try:
        launched = provider.create_node(cluster["available_node_types"][node_type]["node_config"], tags, 1)
    finally:
        events.unregister("before-parameter-build.ec2.RunInstances", answer)
    found = boto3.client("ec2", "us-west-2").describe_instances(InstanceIds=list(launched))["Reservations"]
    return found[0]["Instances"][0]


@pytest.mark.parametrize(("node_type", "instance_type"), [("cpu", "m6i.4xlarge"), ("gpu", "g6e.2xlarge")])
def test_workers_are_spot(cluster, node_type, instance_type):
    instance = launch(cluster, node_type)
    assert instance["InstanceType"] == instance_type
    assert instance["InstanceLifecycle"] == "spot"


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "Unsupported"])
def test_spot_that_is_refused_is_launched_on_demand(cluster, code):
    instance = launch(cluster, "gpu", refuse=code)
    assert "InstanceLifecycle" not in instance
    # The same type to the autoscaler, which takes others for leaks.
    assert {"Key": TAG_RAY_USER_NODE_TYPE, "Value": "gpu"} in instance["Tags"]
    assert instance["IamInstanceProfile"]["Arn"].endswith("/tiebreak-worker")


def test_other_refusals_stay_refusals(cluster):
    with pytest.raises(NodeLaunchException, match="UnauthorizedOperation"):
        launch(cluster, "gpu", refuse="UnauthorizedOperation")


def test_ray_itself_would_ask_for_spot_for_ever():
    """Why clusters/aws.py exists: when Ray learns of refused launches, two node types with priorities will do."""
    monitor = CloudResourceMonitor()
    refused = InstanceUpdateEvent(instance_type="gpu", new_instance_status=Instance.ALLOCATION_FAILED)
    monitor.notify([refused])
    assert monitor.get_recoverable_resource_availabilities() == {}
