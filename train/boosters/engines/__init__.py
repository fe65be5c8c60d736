"""Booster engines, one file each."""
