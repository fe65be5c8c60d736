"""Rating models, one file each."""
