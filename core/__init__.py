"""What every job stands on: command line, settings, runs, stages, storage, Ray."""
