"""Share what every job needs: command line, settings, runs, stages, storage, Ray."""
