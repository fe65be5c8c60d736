"""Judges as models: calibrations of verdicts that were made elsewhere."""
