"""Ray's provider of AWS nodes, which launches on demand what AWS refuses as spot.

Ray 2.60's autoscaler does not: of two node types that fit equally it takes the one with the higher `priority`, and
lowers that only when an instance that it got never becomes a node (CloudResourceMonitor hears of ALLOCATION_TIMEOUT). A
refused launch is ALLOCATION_FAILED, of which it learns nothing: it requests the same type again without end.
"""

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

AWS_SPOT = "InstanceMarketOptions"
# EC2's codes for spot that cannot be had here or now, as opposed to a mistake in the request or a missing permission.
AWS_REFUSALS = {
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",  # an account that has never used spot; see cluster.yaml
    "InsufficientInstanceCapacity",
    "InsufficientCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "Unsupported",  # by the zone that was tried last, whatever the others had said
}


class AwsSpotFirst(AWSNodeProvider):  # type: ignore[misc]
    """Nodes whose `InstanceMarketOptions` ask for spot are spot where AWS has it in any of the subnets, else not."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Launch up to `count` instances; return them by id. Raises NodeLaunchException if none can be had."""
        try:
            launched: dict[str, Any] = super().create_node(node_config, tags, count)
        except NodeLaunchException as refusal:
            if AWS_SPOT not in node_config or refusal.category not in AWS_REFUSALS:
                raise
            logging.getLogger(__name__).warning("no spot (%s): launching %d on demand", refusal.category, count)
            launched = super().create_node({k: v for k, v in node_config.items() if k != AWS_SPOT}, tags, count)
        return launched
