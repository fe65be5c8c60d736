"""Cluster tools: scripts for nodes, and node providers that fall back to on-demand when spot is refused."""
