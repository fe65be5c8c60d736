"""One local Ray cluster for the whole test session; starting one costs seconds."""

import logging

import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    import ray
    import ray.data

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield
    ray.shutdown()
