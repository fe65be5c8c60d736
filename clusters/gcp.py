"""Extend Ray's Google Cloud node provider: launch nodes on demand that Google refuses as spot; see clusters/aws.py."""

import logging
from typing import Any

from ray.autoscaler._private.gcp.node_provider import GCPNodeProvider

# Google's error codes for a zone without such machines, or an exhausted quota of spot machines.
GCP_REFUSALS = ("ZONE_RESOURCE_POOL_EXHAUSTED", "STOCKOUT", "PREEMPTIBLE", "QUOTA_EXCEEDED")
# Keys of `scheduling` that make an instance spot.
GCP_SPOT_KEYS = ("provisioningModel", "instanceTerminationAction", "preemptible")


class GcpSpotFirst(GCPNodeProvider):  # type: ignore[misc]
    """Launch nodes with provisioningModel SPOT in `scheduling` as spot if the zone has it, otherwise on demand."""

    def create_node(self, base_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Launch `count` instances; return the operations by the instances' names. Raises Google's other errors."""
        launched: dict[str, Any] = {}
        for _ in range(count):  # one by one, so that instances before a refusal are not launched twice
            try:
                launched |= super().create_node(base_config, tags, 1)
            except Exception as refusal:  # Ray raises a bare Exception with Google's response
                scheduling = base_config.get("scheduling", {})
                if scheduling.get("provisioningModel") != "SPOT" or not any(
                    code in str(refusal) for code in GCP_REFUSALS
                ):
                    raise
                logging.getLogger(__name__).warning("spot refused (%s): launching on demand", refusal)
                kept = {name: value for name, value in scheduling.items() if name not in GCP_SPOT_KEYS}
                launched |= super().create_node({**base_config, "scheduling": kept}, tags, 1)
        return launched
