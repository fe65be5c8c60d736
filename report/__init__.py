"""The report: its numbers, figures and page."""
