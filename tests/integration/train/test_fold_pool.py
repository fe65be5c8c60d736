import threading
import time
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from core.errors import InputError
from core.registry import ENGINES
from tests.helpers.boosters import FOLDS, make_recipe, rows_in_both_orders, small_data
from tests.helpers.processes import kinds, processes, wait_until
from train.boosters.data import BoosterData, FoldError, FoldResult
from train.boosters.engine import BoosterRecipe
from train.boosters.fold_pool import train_folds
from train.boosters.fold_worker import FoldJob
from train.boosters.matrix import Matrix
from votes.swap import position_effect, swap_average, swap_probabilities

BOOSTED = ("lightgbm", "xgboost")
PARAMS: dict[str, dict[str, Any]] = {
    "lightgbm": {"num_leaves": 7, "learning_rate": 0.2, "bagging_fraction": 0.8, "bagging_freq": 1},
    "xgboost": {"max_depth": 3, "learning_rate": 0.2, "subsample": 0.8, "colsample_bynode": 0.8},
}
LONG: dict[str, int] = {"lightgbm": 2000, "xgboost": 8000}  # rounds that take several times the start-up
BACKENDS: dict[str, str] = {"lightgbm": "ray::_RemoteRayLightGBMActor", "xgboost": "ray::_RemoteRayXGBoostActor"}
DATA = small_data()


def stopping(engine: str) -> BoosterRecipe:
    return make_recipe(engine, 5, rounds=30, early_stopping_rounds=8, params=PARAMS[engine])


def keep(result: FoldResult) -> FoldResult:
    return result


@pytest.fixture(scope="module")
def data(ray_cluster: None) -> "ray.ObjectRef[BoosterData]":
    return ray.put(DATA)


Results = dict[str, dict[int, FoldResult]]


@pytest.fixture(scope="module")
def results(data: "ray.ObjectRef[BoosterData]") -> Results:
    return {engine: dict(train_folds(FoldJob(stopping(engine), data, keep), range(FOLDS))) for engine in BOOSTED}


def everything_given_back() -> bool:
    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    return not groups and ray.available_resources().get("CPU") == 2.0


def expected(engine: str, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold and test predictions of the library itself, called with rows and symmetry written out again."""

    def swap(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x[:, 4:8], x[:, :4], -x[:, 8:]], axis=1)

    assert DATA.test_features is not None
    features = DATA.features.dense
    x, y = rows_in_both_orders(DATA)
    held = np.concatenate([DATA.folds, DATA.folds]) == fold
    common = {**PARAMS[engine], "seed": 5, "num_class": 3}
    if engine == "lightgbm":
        import lightgbm

        params = {**common, "objective": "multiclass", "num_threads": 1, "deterministic": True, "verbosity": -1}
        # As in lightgbm.cv, the bins are those of all records.
        binned = lightgbm.Dataset(x, y, params={"data_random_seed": 5}, free_raw_data=False).construct()
        booster = lightgbm.train(
            params | {"force_row_wise": True},
            binned.subset(np.flatnonzero(~held)),
            30,
            [binned.subset(np.flatnonzero(held))],
            callbacks=[lightgbm.early_stopping(8, verbose=False)],
        )

        def one(x: np.ndarray) -> np.ndarray:
            return np.asarray(booster.predict(x))

    else:
        import xgboost

        params = {**common, "objective": "multi:softprob", "tree_method": "hist", "nthread": 1}
        booster = xgboost.train(
            params,
            xgboost.DMatrix(x[~held], y[~held]),
            30,
            evals=[(xgboost.DMatrix(x[held], y[held]), "valid")],
            early_stopping_rounds=8,
            verbose_eval=False,
        )
        rounds = (0, booster.best_iteration + 1)

        def one(x: np.ndarray) -> np.ndarray:
            return np.asarray(booster.predict(xgboost.DMatrix(x), iteration_range=rounds))

    def averaged(x: np.ndarray) -> np.ndarray:
        return np.asarray((one(x) + one(swap(x))[:, [1, 0, 2]]) / 2)

    return averaged(features[DATA.folds == fold]), averaged(DATA.test_features.dense)


@pytest.mark.parametrize("engine", BOOSTED)
def test_predictions_are_those_of_the_library_called_directly(results: Results, engine: str) -> None:
    for fold, result in results[engine].items():
        out_of_fold, test = expected(engine, fold)
        assert (result.rows == np.flatnonzero(DATA.folds == fold)).all()
        assert np.abs(result.out_of_fold - out_of_fold).max() < 1e-6
        assert result.test is not None
        assert np.abs(result.test - test).max() < 1e-6
        assert result.model.best_iteration <= result.model.rounds_trained <= 30
        assert result.position["records"] == len(result.rows)
    lasted = [
        (result.model.rounds_trained, result.model.rounds_trained - result.model.best_iteration)
        for result in results[engine].values()
    ]
    assert all(trained == 30 or after_best == 8 for trained, after_best in lasted)


@pytest.mark.parametrize("engine", BOOSTED)
def test_model_bytes_predict_antisymmetrically(results: Results, engine: str) -> None:
    library = ENGINES.get(engine)
    result, held = results[engine][0], DATA.features.rows(DATA.held_out(0))

    def averaged(features: Matrix) -> np.ndarray:
        return swap_average(*(library.predict(result.model.content, x, 1) for x in (features, DATA.swapped(features))))

    one_way, other_way = (library.predict(result.model.content, x, 1) for x in (held, DATA.swapped(held)))
    assert result.position == position_effect(one_way, other_way)
    assert (swap_average(one_way, other_way) == result.out_of_fold).all()
    assert (averaged(DATA.swapped(held)) == swap_probabilities(result.out_of_fold)).all()
    assert np.abs(result.out_of_fold.sum(axis=1) - 1).max() < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("engine", BOOSTED)
def test_reports_the_wait_for_a_cpu_and_one_slot_gives_the_same_bytes(
    results: Results, data: "ray.ObjectRef[BoosterData]", engine: str
) -> None:
    assert wait_until(everything_given_back, 5)
    occupied = [placement_group([{"CPU": 1}]) for _ in range(2)]
    assert all(group.wait(10) for group in occupied)
    reasons: list[str] = []

    def release_one(reason: str) -> None:
        reasons.append(reason)
        remove_placement_group(occupied[0])

    again = dict(train_folds(FoldJob(stopping(engine), data, keep), [1], release_one))
    remove_placement_group(occupied[1])
    assert "0 of 2 are free" in reasons[0]
    assert again[1].model.content == results[engine][1].model.content
    assert (again[1].out_of_fold == results[engine][1].out_of_fold).all()
    assert wait_until(everything_given_back, 5)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "sparse"), [("lightgbm", False), ("xgboost", True)])
def test_several_processes_may_share_a_fold(ray_cluster: None, engine: str, sparse: bool) -> None:
    """Two processes with half the rows each learn what one learns, up to where bins and sums are rounded."""
    shared = small_data(sparse)
    # Without sampling, so that the two differ by rounding alone; two stretches, so that the second starts from a model.
    params = {"learning_rate": 0.3, "max_depth": 3}
    settings = {"rounds": 20, "early_stopping_rounds": 8, "params": params, "checkpoint_every": 12}
    reference = ray.put(shared)
    ((_, one),) = train_folds(FoldJob(make_recipe(engine, 5, **settings), reference, keep), [1])
    ((_, two),) = train_folds(FoldJob(make_recipe(engine, 5, **settings, num_workers=2), reference, keep), [1])

    def loss(result: FoldResult) -> float:
        labels = shared.labels[result.rows]
        return float(-np.log(result.out_of_fold[np.arange(len(labels)), labels]).mean())

    assert two.model.rounds_trained > 12
    assert abs(loss(one) - loss(two)) < 0.03
    assert loss(two) < 0.8
    assert wait_until(everything_given_back, 5)


def test_a_failing_fold_is_named_and_cancels_its_siblings(data: "ray.ObjectRef[BoosterData]") -> None:

    def commit(result: FoldResult) -> None:
        if result.fold == 1:
            raise OSError(f"disk full at {time.time():.2f}")
        time.sleep(600)

    with pytest.raises(FoldError, match=r"fold 1 of lightgbm failed: OSError: disk full at ") as caught:
        list(train_folds(FoldJob(stopping("lightgbm"), data, commit), [0, 1, 2]))
    assert caught.value.fold == 1
    assert wait_until(everything_given_back, 5)
    assert wait_until(lambda: not processes("ray::FoldWorker", "ray::_RemoteRay", "ray::FoldQueue"), 5)
    assert time.time() - float(str(caught.value).split()[-1]) < 5


@pytest.mark.slow
def test_cancelling_ends_all_folds(data: "ray.ObjectRef[BoosterData]") -> None:
    at_work = threading.Event()

    def commit(result: FoldResult) -> None:
        time.sleep(600)

    def cancelled() -> bool:
        if processes("ray::_RemoteRay"):
            at_work.set()
        return at_work.is_set()

    with pytest.raises(CancelledError):
        list(train_folds(FoldJob(stopping("lightgbm"), data, commit), [0, 1, 2], cancelled=cancelled))
    assert wait_until(everything_given_back, 5)
    assert wait_until(lambda: not processes("ray::FoldWorker", "ray::_RemoteRay", "ray::FoldQueue"), 5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", BOOSTED)
def test_a_slot_has_two_processes(data: "ray.ObjectRef[BoosterData]", engine: str) -> None:
    assert wait_until(lambda: not processes("ray::FoldWorker", "ray::_RemoteRay"), 5)
    before, seen = kinds("ray::_", "ray::Fold"), set[str]()

    def commit(result: FoldResult) -> None:
        time.sleep(1.5)  # longer than anything takes to be seen

    def cancelled() -> bool:
        seen.update(kinds("ray::_", "ray::Fold"))
        return False

    job = FoldJob(stopping(engine), data, commit)
    assert [fold for fold, _ in train_folds(job, [0], cancelled=cancelled)] == [0]
    assert seen - before == {"ray::FoldQueue", "ray::FoldWorker", BACKENDS[engine]}


def test_input_errors_come_through(data: "ray.ObjectRef[BoosterData]") -> None:
    with pytest.raises(InputError, match="fold 9 holds 0 of 300 records"):
        list(train_folds(FoldJob(stopping("xgboost"), data, keep), [9]))
    assert wait_until(everything_given_back, 5)


@pytest.mark.parametrize(
    ("engine", "params", "says"),
    [
        ("lightgbm", {"max_bin": 1}, "max_bin"),
        ("xgboost", {"max_depth": -5}, "max_depth"),
        ("xgboost", {"rate_drop": 0.5}, "rate_drop"),
    ],
)
def test_parameters_that_the_library_refuses_are_named(
    data: "ray.ObjectRef[BoosterData]", engine: str, params: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        list(train_folds(FoldJob(make_recipe(engine, rounds=5, params=params), data, keep), [0]))


@pytest.mark.slow
@pytest.mark.parametrize("engine", BOOSTED)
@pytest.mark.parametrize("victim", ["ray::_RemoteRay", "ray::FoldWorker", "ray::FoldQueue"])
def test_a_killed_process_costs_at_most_a_checkpoint_and_changes_nothing(
    data: "ray.ObjectRef[BoosterData]", engine: str, victim: str
) -> None:
    # A low learning rate, else LightGBM soon finds nothing left to learn.
    slow = PARAMS[engine] | {"learning_rate": 0.01}
    job = FoldJob(make_recipe(engine, 5, rounds=LONG[engine], early_stopping_rounds=None, params=slow), data, keep)
    ((_, undisturbed),) = train_folds(job, [0])
    assert undisturbed.model.resumed_at == 0
    assert wait_until(lambda: not processes("ray::FoldWorker", "ray::_RemoteRay"), 5)

    def kill() -> None:
        # Imports take some 3 s of CPU time, the training several times as much.
        assert wait_until(lambda: any(p.cpu_times().user > 5 for p in processes("ray::_RemoteRay")), 60)
        for process in processes(victim):
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    reasons: list[str] = []
    ((_, disturbed),) = train_folds(job, [0], reasons.append)
    killer.join()
    if victim == "ray::FoldQueue":  # which holds the checkpoints
        assert any("the fold queue was lost; 1 folds restart" in line for line in reasons)
    else:
        assert disturbed.model.resumed_at >= 100
    assert disturbed.model.content == undisturbed.model.content
    assert (disturbed.out_of_fold == undisturbed.out_of_fold).all()
    assert wait_until(everything_given_back, 5)
    assert wait_until(lambda: not processes("ray::FoldWorker", "ray::_RemoteRay"), 5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", BOOSTED)
def test_a_killed_process_of_several_costs_at_most_a_checkpoint(
    data: "ray.ObjectRef[BoosterData]", engine: str
) -> None:
    every = 2000  # rounds; the start of the processes takes longer
    slow = PARAMS[engine] | {"learning_rate": 0.01}
    settings = {"rounds": 2 * every, "early_stopping_rounds": None, "checkpoint_every": every, "num_workers": 2}
    job = FoldJob(make_recipe(engine, 5, params=slow, **settings), data, keep)
    ((_, undisturbed),) = train_folds(job, [0])

    for victim in (0, 1):
        assert wait_until(lambda: not processes("ray::FoldWorker", "ray::_RemoteRay"), 5)
        seen: set[int] = set()  # each stretch has its own two processes
        killed: list[int] = []

        def cancelled(victim: int = victim, seen: set[int] = seen, killed: list[int] = killed) -> bool:
            training = sorted(processes(f"{BACKENDS[engine]}.train"), key=lambda process: process.pid)
            if not killed and len(training) == 2 and len(seen) == 4:  # this is their second look
                training[victim].kill()
                killed.append(training[victim].pid)
            seen.update(process.pid for process in training)
            return False

        ((_, disturbed),) = train_folds(job, [0], cancelled=cancelled)
        assert killed
        assert disturbed.model.resumed_at == every
        # LightGBM adds up its processes' sums in the order of their random ports.
        np.testing.assert_allclose(disturbed.out_of_fold, undisturbed.out_of_fold, atol=1e-3)
    assert wait_until(everything_given_back, 5)
