"""Extend Ray's AWS node provider: launch nodes on demand that AWS refuses as spot.

Ray 2.60's autoscaler has no such fallback. If two node types fit equally, it takes the one with the higher `priority`.
It lowers a priority only if an instance never becomes a node (CloudResourceMonitor handles ALLOCATION_TIMEOUT). A
refused launch is ALLOCATION_FAILED, which lowers nothing, so the autoscaler requests the same type forever.
"""

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

AWS_SPOT = "InstanceMarketOptions"
# EC2's error codes for unavailable spot, as opposed to an invalid request or a missing permission.
AWS_REFUSALS = {
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",  # an account that has never used spot; see cluster.yaml
    "InsufficientInstanceCapacity",
    "InsufficientCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "Unsupported",  # from the last zone; it hides the errors of the zones before
}


class AwsSpotFirst(AWSNodeProvider):  # type: ignore[misc]
    """Launch nodes with spot `InstanceMarketOptions` as spot if any subnet has it, otherwise on demand."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Launch up to `count` instances; return them by id. Raises NodeLaunchException if none is available."""
        try:
            launched: dict[str, Any] = super().create_node(node_config, tags, count)
        except NodeLaunchException as refusal:
            if AWS_SPOT not in node_config or refusal.category not in AWS_REFUSALS:
                raise
            logging.getLogger(__name__).warning("spot refused (%s): launching %d on demand", refusal.category, count)
            launched = super().create_node({k: v for k, v in node_config.items() if k != AWS_SPOT}, tags, count)
        return launched
