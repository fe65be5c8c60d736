"""The features are lost with a node before others have them."""

import subprocess
import sys

import pytest

from tests.helpers.commands import ROOT, environment

# In a process of its own, since that of the tests has joined another cluster.
SCRIPT = """
import dataclasses
import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table
from tests.helpers.boosters import make_recipe, small_data
from train.boosters.fold_pool import train_folds
from train.boosters.fold_worker import FoldJob
from train.boosters.matrix import Matrix

def read():
    # Small objects would be stored with their owner, which is not lost.
    return dataclasses.replace(small_data(), test_features=Matrix(np.zeros((20_000, 12), np.float32)))

def fold(result):
    return result.fold

def cancelled():
    if first and sum(group["state"] == "CREATED" for group in placement_group_table().values()) == 2:
        cluster.remove_node(first.pop(), allow_graceful=False)
    return False

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
try:
    first = [cluster.add_node(num_cpus=1)]
    ray.init(address=cluster.address, log_to_driver=False)
    data = ray.remote(num_cpus=1)(read).remote()
    ray.wait([data], fetch_local=False)
    cluster.add_node(num_cpus=1)
    reasons = []
    job = FoldJob(make_recipe("lightgbm", rounds=5, early_stopping_rounds=None), data, fold)
    done = dict(train_folds(job, [0, 1], reasons.append, cancelled=cancelled))
    print("done", sorted(done), reasons)
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
def test_features_that_were_lost_are_read_again_where_slots_hold_all_cpus() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "done [0, 1]" in done.stdout, done.stdout + done.stderr
