"""Compute and render the report: its numbers, figures and page."""
