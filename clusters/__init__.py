"""What clusters are made with: scripts for their nodes, and node providers with a way out when spot is refused."""
