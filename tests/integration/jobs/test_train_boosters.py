"""Several boosters on one cluster: at the same time where there is room, and all ended by the first failure."""

import calendar
import json
import resource
import shutil
import time

import pytest

from tests.helpers.commands import run_job

SMALL = [
    "data.synthetic.train_rows=120",
    "data.synthetic.test_rows=20",
    "data.folds=2",
    "llms=[]",
    "featurize.families=all",
]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    run = tmp_path_factory.mktemp("features") / "run"
    for job in ("ingest", "featurize"):
        done = run_job(job, run, *SMALL)
        assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def run(features, tmp_path):
    shutil.copytree(features, tmp_path / "run")
    return tmp_path / "run"


def span(path):
    manifest = json.loads(path.read_text())
    end = calendar.timegm(time.strptime(manifest["finished"], "%Y-%m-%dT%H:%M:%SZ"))
    return end - manifest["seconds"], end


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [4, 2])
def test_the_next_booster_begins_once_those_before_leave_cpus(run, cpus):
    boosters = "boosters.lightgbm.rounds=30", "boosters.xgboost.rounds=30"
    done = run_job("train_boosters", run, *SMALL, *boosters, f"ray.cpus={cpus}")
    assert done.returncode == 0, done.stderr
    began, _ = span(run / "models/xgboost/manifest.json")
    lightgbm_began, lightgbm_ended = span(run / "models/lightgbm/manifest.json")
    first_fold = min(span(path)[1] for path in run.glob("models/lightgbm/fold-*/manifest.json"))
    if cpus == 4:
        assert began - lightgbm_began < first_fold - lightgbm_began - 1
    else:
        assert first_fold - 1 <= began <= lightgbm_ended + 1


@pytest.mark.slow
def test_the_first_failure_ends_the_others(run):
    rounds = [
        "boosters.lightgbm.rounds=5",
        "boosters.xgboost.rounds=100000",
        "boosters.xgboost.early_stopping_rounds=null",
    ]
    in_the_way = run / "models/lightgbm/fold-1/model.txt"
    (in_the_way / "x").mkdir(parents=True)
    started = time.monotonic()
    done = run_job("train_boosters", run, *SMALL, *rounds, "ray.cpus=4")
    assert done.returncode == 1
    assert "fold 1 of lightgbm failed: IsADirectoryError" in done.stderr.splitlines()[-1]
    assert time.monotonic() - started < 120
    assert not (run / "models/xgboost/manifest.json").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("boosters.lightgbm.params.num_leavs=7", "did you mean 'num_leaves'?"),
        ("boosters.lightgbm.params.num_threads=7", "set cpus_per_worker"),
        ("boosters.xgboost.params.max_depht=7", "did you mean 'max_depth'?"),
        ("boosters.0={name: lightgbm, engine: linear, params: {c_ti: 1}}", "did you mean 'c_tie'?"),
    ],
)
def test_a_misspelled_parameter_ends_the_pipeline_before_ingest(tmp_path, override, says):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_job("pipeline", tmp_path / "run", *SMALL, override)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "run/records").exists()
    # CPU time, since other work may share the machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
