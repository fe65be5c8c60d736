"""Judges' verdicts from elsewhere: read tables of them, and join them to the records."""
