"""Scoring modes, one file each. To add one, subclass ScoringMode here or in a file given by --plugin."""
