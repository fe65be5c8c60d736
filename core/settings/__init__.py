"""The schema of settings, one file a subject, and the loader."""
