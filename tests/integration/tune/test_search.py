import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
import ray

from core.errors import InputError
from core.settings.boosters import ROUNDS_PARAMETER
from core.settings.tune import Search
from tests.helpers.boosters import FOLDS, make_recipe, rows_in_both_orders, small_data
from tests.helpers.processes import processes, wait_until
from train.boosters.data import BoosterData
from tune.search import TrialResult, _candidates, run_trials
from tune.space import Parameters, sample_candidates
from tune.trial import SearchJob

SPACES = {
    "lightgbm": {
        "num_leaves": {"low": 2, "high": 8, "integer": True},
        "learning_rate": {"low": 0.02, "high": 0.6, "log": True},
    },
    "xgboost": {
        ROUNDS_PARAMETER: {"low": 15, "high": 25, "integer": True},
        "eta": {"low": 0.02, "high": 0.6, "log": True},
        "subsample": {"low": 0.4, "high": 0.9},
    },
}
DATA = small_data()


def search_job(data: Any, engine: str, trials: int, candidates: Any = None, **changes: Any) -> SearchJob:
    """A search; `changes` are settings of the search, and of the booster where it has them."""
    booster = {"rounds": 20, "checkpoint_every": 5, "early_stopping_rounds": None}
    search = {"trials": trials, "folds": FOLDS, "grace_rounds": 20, "reduction_factor": 3, "space": SPACES[engine]}
    for name, value in changes.items():
        (search if name in Search.model_fields else booster)[name] = value
    return SearchJob(
        data, make_recipe(engine, 2, **booster), Search.model_validate({"booster": "small", **search}), candidates
    )


@pytest.fixture(scope="module")
def data(ray_cluster: None) -> "ray.ObjectRef[BoosterData]":
    return ray.put(DATA)


def run(job: SearchJob, folder: Any, finished: Any = ()) -> dict[int, TrialResult]:
    results: list[TrialResult] = []
    run_trials(job, finished, results.append, str(folder))
    return {result.number: result for result in results}


def direct_loss(candidate: dict[str, Any]) -> float:
    """The mean over folds of the library's own held-out log loss, on rows and swapped copies written out again."""
    import xgboost

    x, y = rows_in_both_orders(DATA)
    folds = np.concatenate([DATA.folds, DATA.folds])
    losses = []
    for fold in range(FOLDS):
        held = folds == fold
        model: Any = None
        score: dict[str, Any] = {}
        for done in range(0, int(candidate[ROUNDS_PARAMETER]), 5):
            params = {"objective": "multi:softprob", "num_class": 3, "eval_metric": "mlogloss", "nthread": 1}
            searched = {name: value for name, value in candidate.items() if name != ROUNDS_PARAMETER}
            params |= searched | {"seed": 2 + done}
            model = xgboost.train(
                params | {"tree_method": "hist"},
                xgboost.DMatrix(x[~held], y[~held]),
                min(5, int(candidate[ROUNDS_PARAMETER]) - done),
                evals=[(xgboost.DMatrix(x[held], y[held]), "valid")],
                evals_result=score,
                xgb_model=model and bytearray(model.save_raw("ubj")),
                verbose_eval=False,
            )
        losses.append(score["valid"]["mlogloss"][-1])
    return float(np.mean(losses))


def test_each_candidate_gets_the_loss_that_the_library_gives_it(data: Any, tmp_path: Any) -> None:
    job = search_job(data, "xgboost", 3, grace_rounds=25)  # no trial has more rounds
    results = run(job, tmp_path)
    assert [results[n].parameters for n in range(3)] == sample_candidates(job.space, 2, 3)
    for result in results.values():
        assert not result.stopped
        assert result.rounds == result.parameters[ROUNDS_PARAMETER]
        assert abs(result.log_loss - direct_loss(result.parameters)) < 1e-6
        assert abs(result.log_loss - np.mean(result.fold_losses)) < 1e-12


@pytest.mark.slow
def test_finished_trials_are_not_run_again(data: Any, tmp_path: Any) -> None:
    four, two = search_job(data, "lightgbm", 4), search_job(data, "lightgbm", 2)
    uninterrupted = run(four, tmp_path / "uninterrupted")
    first = run(two, tmp_path / "first")
    rest = run(four, tmp_path / "rest", list(first.values()))
    assert sorted(rest) == [2, 3]
    for number, result in {**first, **rest}.items():
        assert result.log_loss == uninterrupted[number].log_loss
    assert min(result.at for result in rest.values()) > max(result.at for result in first.values())
    assert not run(four, tmp_path / "none", list(uninterrupted.values()))


def test_hopeless_trials_are_stopped_before_their_end(data: Any, tmp_path: Any) -> None:
    good, bad = {"learning_rate": 0.2, "num_leaves": 4}, {"learning_rate": 1e-5, "num_leaves": 4}
    job = search_job(data, "lightgbm", 6, [good, good, *[bad] * 4], grace_rounds=5, rounds=60)
    results = run(job, tmp_path)
    assert len(results) == 6
    assert any(result.stopped and result.rounds < 60 for number, result in results.items() if number >= 2)
    assert min(results.values(), key=lambda result: result.log_loss).number < 2


@pytest.mark.slow
def test_an_interrupted_search_compares_its_trials_with_finished_ones(data: Any, tmp_path: Any) -> None:
    good: Parameters = {"learning_rate": 0.2, "num_leaves": 4}
    bad: Parameters = {"learning_rate": 1e-5, "num_leaves": 4}
    job = search_job(data, "lightgbm", 3, [good, good, bad], grace_rounds=5, rounds=60)
    first = run(dataclasses.replace(job, candidates=[good, good]), tmp_path / "first")
    assert [rounds for rounds, _ in first[0].curve] == list(range(5, 65, 5))
    assert first[0].curve[-1][1] == first[0].log_loss
    alone = run(dataclasses.replace(job, candidates=[bad]), tmp_path / "alone")
    assert not alone[0].stopped, "there is no other trial to compare with"
    (last,) = run(job, tmp_path / "rest", list(first.values())).values()
    assert last.stopped
    assert last.rounds == 5


@pytest.mark.slow
def test_tpe_learns_from_finished_trials(data: Any, tmp_path: Any) -> None:
    job = search_job(data, "lightgbm", 5, sampler="tpe")
    first = run(search_job(data, "lightgbm", 3, sampler="tpe"), tmp_path / "first")
    rest = run(job, tmp_path / "rest", list(first.values()))
    assert sorted({**first, **rest}) == [0, 1, 2, 3, 4]
    configured = _candidates(job, list(first.values()))
    assert configured is not None
    algorithm = configured.algorithm
    assert algorithm._points_to_evaluate == [result.parameters for result in first.values()]
    assert algorithm._evaluated_rewards == [result.log_loss for result in first.values()]
    drawn = [tuple(result.parameters.values()) for result in [*first.values(), *rest.values()]]
    assert len(set(drawn)) == 5
    # What it proposes follows: among many trials with one clear optimum, more like that one.
    known = [
        dataclasses.replace(
            first[0], number=n, parameters=each, log_loss=abs(np.log(float(each["learning_rate"]) / 0.03))
        )
        for n, each in enumerate(sample_candidates(job.space, 1, 40))
    ]
    informed = _candidates(search_job(data, "lightgbm", 60, sampler="tpe"), known)
    assert informed is not None
    rates = [informed.algorithm.suggest(str(n))["learning_rate"] for n in range(20)]
    assert np.median(np.abs(np.log(np.array(rates) / 0.03))) < 0.7  # of the space at random: 1.3


def test_refused_parameters_are_an_input_error(data: Any, tmp_path: Any) -> None:
    with pytest.raises(InputError, match="max_depht"):
        run(search_job(data, "xgboost", 1, [{"max_depht": 3}]), tmp_path)


@pytest.mark.parametrize(
    ("params", "candidate", "says"),
    [
        ({"reg_lambda": 2.0}, {"lambda": 1.0}, "reg_lambda and the search's lambda are one parameter"),
        ({"max_bin": 15}, {"eta": 0.1}, ""),
    ],
)
def test_a_parameter_under_two_names_is_refused(
    data: Any, tmp_path: Any, params: dict[str, Any], candidate: dict[str, Any], says: str
) -> None:
    job = search_job(data, "xgboost", 1, [candidate], params=params)
    if not says:
        assert len(run(job, tmp_path)) == 1
        return
    with pytest.raises(InputError, match=says):
        run(job, tmp_path)


def test_bins_cannot_be_searched(data: Any, tmp_path: Any) -> None:
    with pytest.raises(InputError, match="one binned matrix"):
        run(search_job(data, "lightgbm", 1, [{"max_bins": 7}]), tmp_path)


def test_the_first_failing_trial_ends_the_search(data: Any, tmp_path: Any) -> None:
    def fail(candidate: Any, fits: Any) -> None:
        raise OSError("no space left")

    results: list[TrialResult] = []
    with pytest.raises(RuntimeError, match="a trial failed: OSError: no space left"):
        run_trials(search_job(data, "xgboost", 6), [], results.append, str(tmp_path), keep=fail)
    assert not results


@pytest.mark.slow
def test_a_killed_trial_resumes_and_changes_nothing(data: Any, tmp_path: Any) -> None:
    """kill -9 of a trial's process: Ray Tune starts it again from its last checkpoint."""
    candidates = [{"eta": 0.01, "subsample": 0.5}, {"eta": 0.02, "subsample": 0.6}]
    job = search_job(data, "xgboost", 2, candidates, rounds=1500, checkpoint_every=100, grace_rounds=1500)
    undisturbed = run(job, tmp_path / "undisturbed")
    killed = []

    def kill() -> None:
        def has_checkpoint() -> bool:
            return any((tmp_path / "disturbed").rglob("checkpoint_*/fold-*"))

        assert wait_until(has_checkpoint, 60)
        killed.extend(processes("ray::ResourceTrainable"))
        for process in killed:
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    disturbed = run(job, tmp_path / "disturbed")
    killer.join()
    assert killed
    assert {n: result.log_loss for n, result in disturbed.items()} == {
        n: result.log_loss for n, result in undisturbed.items()
    }
