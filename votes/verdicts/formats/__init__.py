"""Verdict formats, one file each."""
