"""The shapes in which votes are written for other tools, one file each."""
