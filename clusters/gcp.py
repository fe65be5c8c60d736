"""Ray's provider of Google Cloud nodes, which launches on demand what Google refuses as spot; see clusters/aws.py."""

import logging
from typing import Any

from ray.autoscaler._private.gcp.node_provider import GCPNodeProvider

# Google's codes for a zone without such machines, or a quota of spot ones that is used up.
GCP_REFUSALS = ("ZONE_RESOURCE_POOL_EXHAUSTED", "STOCKOUT", "PREEMPTIBLE", "QUOTA_EXCEEDED")
# What makes an instance spot, in its `scheduling`.
GCP_SPOT_KEYS = ("provisioningModel", "instanceTerminationAction", "preemptible")


class GcpSpotFirst(GCPNodeProvider):  # type: ignore[misc]
    """Nodes whose `scheduling` asks for provisioningModel SPOT are spot where the zone has it, else not."""

    def create_node(self, base_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Launch `count` instances; return the operations by the instances' names. Raises what Google answers."""
        launched: dict[str, Any] = {}
        for _ in range(count):  # one by one, so that what came up before a refusal is not launched twice
            try:
                launched |= super().create_node(base_config, tags, 1)
            except Exception as refusal:  # Ray raises a bare Exception with Google's answer
                scheduling = base_config.get("scheduling", {})
                if scheduling.get("provisioningModel") != "SPOT" or not any(
                    code in str(refusal) for code in GCP_REFUSALS
                ):
                    raise
                logging.getLogger(__name__).warning("no spot (%s): launching on demand", refusal)
                kept = {name: value for name, value in scheduling.items() if name not in GCP_SPOT_KEYS}
                launched |= super().create_node({**base_config, "scheduling": kept}, tags, 1)
        return launched
