"""What a booster is trained on, with which settings, and what a fold leaves behind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from train.boosters.matrix import Matrix, Rows, stack
from votes.swap import PositionEffect, swap_labels

EXPLAIN_ROWS = 100  # held-out records for SHAP values, whose time grows with trees x leaves x depth squared
TRIAL_ROWS = 64  # on which an engine tries its parameters before it starts processes

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int8]
Probabilities = npt.NDArray[np.float64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BoosterData:
    """Features of training and test records. It lives once in Ray's object store; its arrays are read without a copy.

    Records of other sources than the primary one stand behind its own: they are trained on, but never held out.
    """

    features: Matrix  # n rows
    labels: Labels  # (n,)
    folds: npt.NDArray[np.int16]  # (n,); -1 for records of other sources whose prompt is in no fold
    test_features: Matrix | None  # m rows
    permutation: npt.NDArray[np.intp]  # (d,); see train.boosters.matrix.Matrix.exchanged
    signs: Floats  # (d,)
    names: list[str]  # (d,)
    families: list[str]  # (d,)
    sources: npt.NDArray[np.int16]  # (n,) 0 for the primary source, whose records come first
    weights: Floats | None = None  # (n,) of the records in training; None weighs all alike
    used_sources: npt.NDArray[np.bool_] | None = None  # (folds, other sources): which a fold trains on; None for all

    def swapped(self, features: Matrix) -> Matrix:
        """The features of the same records with A and B exchanged."""
        return features.exchanged(self.permutation, self.signs)

    def held_out(self, fold: int) -> Rows:
        """The primary records of a fold."""
        return np.flatnonzero((self.folds == fold) & (self.sources == 0))

    def rest(self, fold: int) -> Rows:
        """The records that a fold trains on: the primary ones outside it, and those of other sources that it uses.

        None shares a prompt with the fold.
        """
        outside = self.folds != fold
        if self.used_sources is not None:
            outside &= np.concatenate([[True], self.used_sources[fold]])[self.sources]
        return np.flatnonzero(outside)

    def sample(self, rows: Rows, both_orders: bool) -> "Sample":
        """Records to train or stop on; with `both_orders` followed by their swapped copies."""
        features, labels = self.features.rows(rows), self.labels[rows]
        weights = None if self.weights is None else self.weights[rows]
        if not both_orders:
            return Sample(features, labels, weights)
        return Sample(
            stack([features, self.swapped(features)]),
            np.concatenate([labels, swap_labels(labels)]),
            None if weights is None else np.concatenate([weights, weights]),
        )


class Sample(NamedTuple):
    """Rows to train on: features, labels (k,), weights (k,) or None."""

    features: Matrix
    labels: Labels
    weights: Floats | None


@dataclass(frozen=True)
class BoosterSettings:
    """How to train one fold. `params` are the engine's own; what the runner decides itself is refused in them."""

    rounds: int  # boosting rounds at most; each grows one tree per class
    early_stopping_rounds: int | None  # rounds without a better held-out log loss after which training ends
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    cpus_per_fold: int = 1  # threads = CPUs: OpenMP threads spin while they wait, so more would only get in the way
    # Rounds between checkpoints: what the death of a worker costs at most. It is part of the recipe: fresh random
    # numbers are drawn after each checkpoint, so that a resumed run equals an undisturbed one.
    checkpoint_every: int = 100
    both_orders: bool = True  # train on swapped copies too, and average predictions over both orders
    # Training processes that share a fold's records, each with `cpus_per_fold` CPUs; for folds too large for one. Sums
    # over processes round differently, so another number gives another model.
    actors_per_fold: int = 1


class Fit(NamedTuple):
    """A trained model in its library's own safe format, cut to its best round."""

    model: bytes
    best_iteration: int  # rounds kept
    rounds_trained: int
    resumed_at: int  # rounds that came from a checkpoint


@dataclass(frozen=True)
class Importance:
    """What each column (d,) gave to the model of a fold."""

    names: list[str]
    families: list[str]
    gain: Doubles  # total decrease of the loss by splits on it, in the library's own units
    shap: Doubles  # mean |contribution to a class's raw score|, over held-out records and classes


@dataclass(frozen=True)
class FoldResult:
    """What a fold leaves behind."""

    fold: int
    model: bytes
    best_iteration: int
    rounds_trained: int
    resumed_at: int  # rounds that came from the checkpoint of a process that died; 0 if none did
    rows: Rows  # (k,) of the held-out records
    out_of_fold: Probabilities  # (k, 3), averaged over both orders if the settings say so, as those for test
    test: Probabilities | None  # (m, 3)
    importance: Importance
    position: PositionEffect  # on the held-out records, before any averaging
    taken: bool  # the model was trained elsewhere
    seconds: float


class Trainer(Protocol):
    """One fold in training. It goes from checkpoint to checkpoint, each time from the model as saved, so that an
    undisturbed training goes the very way of a resumed one.
    """

    done: int  # rounds
    finished: bool  # all rounds are done, or it stopped early

    @property
    def best_score(self) -> float:
        """Least held-out log loss of a round so far; that of the last round without early stopping."""

    def advance(self) -> None:
        """Train up to the next checkpoint, or to the end if that comes first."""

    def checkpoint(self) -> bytes:
        """What `Engine.start` goes on from."""

    def fit(self) -> Fit:
        """The trained model."""


class Engine(Protocol):
    """What train.boosters.engines.lightgbm, train.boosters.engines.xgboost and train.boosters.engines.linear have in common."""

    def main_name(self, name: str) -> str:
        """The name under which the library knows a parameter that has several."""

    def fixed_by_data(self, name: str) -> bool:
        """Whether a parameter is settled by what `prepare` makes, so that no search can vary it."""

    def check(self, data: BoosterData, settings: BoosterSettings) -> None:
        """Raise InputError if the library refuses the parameters, on a few rows and before any process starts."""

    def host(self, body: Callable[[], None], settings: BoosterSettings) -> None:
        """Run `body` in a training process of the wrapper; returns when it ends.

        Raises WorkerDiedError if the process died; what `body` raises is its own to report.
        """

    def prepare(self, data: BoosterData, settings: BoosterSettings, keep_folds: bool = False) -> Any:  # noqa: ANN401
        """What all folds of one process share, such as binned features; with `keep_folds` each fold's own as well.

        It serves any settings that differ from these in training parameters alone.
        """

    def start(self, prepared: Any, fold: int, settings: BoosterSettings, checkpoint: bytes | None) -> "Trainer":  # noqa: ANN401
        """A fold to train, from its beginning or from a checkpoint."""

    def start_distributed(
        self,
        shared: Any,  # noqa: ANN401 - a list with a reference to the data
        data: BoosterData,
        fold: int,
        settings: BoosterSettings,
        checkpoint: bytes | None,
    ) -> "Trainer":
        """A fold to train in several processes of the wrapper, which `Trainer.advance` starts.

        `advance` raises WorkerDiedError if one of them died.
        """

    def predict(self, model: bytes, features: Matrix, threads: int) -> Probabilities:
        """Probabilities (n, 3) in the order A, B, tie."""

    def importance(self, model: bytes, features: Matrix, threads: int) -> tuple[Doubles, Doubles]:
        """Gain (d,), and mean absolute SHAP values (d,) on these records; see Importance."""


class WorkerDiedError(Exception):
    """A process that trains folds died (killed, out of memory); another may go on from its checkpoint."""


class FoldError(Exception):
    """A fold failed; its siblings were cancelled. The three parts are kept so that the error survives pickling."""

    def __init__(self, engine: str, fold: int, cause: str) -> None:
        super().__init__(engine, fold, cause)
        self.engine = engine
        self.fold = fold
        self.cause = cause

    def __str__(self) -> str:
        return f"fold {self.fold} of {self.engine} failed: {self.cause}"


def refuse_reserved(engine: str, params: Mapping[str, Any], reserved: Mapping[str, str]) -> None:
    """Raise InputError if `params` sets what the runner decides; `reserved` gives what to do instead of each."""
    for name in params:
        if name in reserved:
            raise InputError("this parameter is decided elsewhere", where=f"{engine} params.{name}", fix=reserved[name])


def mean_absolute(contributions: Doubles) -> Doubles:
    """Mean |SHAP value| (d,) from contributions (n, classes, d + 1), whose last column is the expected score."""
    mean: Doubles = np.abs(contributions[:, :, :-1]).mean(axis=(0, 1))
    return mean
