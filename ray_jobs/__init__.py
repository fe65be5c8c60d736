"""The jobs: configuration, artifacts, one module per job, the pipeline and the report."""
