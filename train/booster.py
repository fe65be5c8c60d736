"""What a booster is trained on, with which settings, and what a fold leaves behind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from preference.errors import InputError
from preference.swap import swap_labels

TRIAL_ROWS = 64  # on which an engine tries its parameters before it starts processes

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int8]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BoosterData:
    """Features of training and test records. It lives once in Ray's object store; its arrays are read without a copy.

    The features of a record with A and B exchanged are `features[:, permutation] * signs`.
    """

    features: Features  # (n, d), without nan
    labels: Labels  # (n,)
    folds: npt.NDArray[np.int16]  # (n,)
    test_features: Features | None  # (m, d)
    permutation: npt.NDArray[np.intp]  # (d,)
    signs: Features  # (d,)
    names: list[str]  # (d,)

    def swapped(self, features: Features) -> Features:
        """The features (k, d) of the same records with A and B exchanged."""
        # take() along rows keeps C order, which fancy indexing of columns does not.
        swapped = np.take(features, self.permutation, axis=1)
        swapped *= self.signs
        return swapped

    def both_orders(self, rows: npt.NDArray[np.intp]) -> tuple[Features, Labels]:
        """Features (2k, d) and labels (2k,) of records `rows` (k,), followed by their swapped copies."""
        features, labels = self.features[rows], self.labels[rows]
        return np.concatenate([features, self.swapped(features)]), np.concatenate([labels, swap_labels(labels)])


@dataclass(frozen=True)
class BoosterSettings:
    """How to train one fold. `params` are the engine's own; what the runner decides itself is refused in them."""

    rounds: int  # boosting rounds at most; each grows one tree per class
    early_stopping_rounds: int | None  # rounds without a better held-out log loss after which training ends
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    cpus_per_fold: int = 1  # threads = CPUs: OpenMP threads spin while they wait, so more would only get in the way
    # LightGBM's rounds between checkpoints: what the death of a worker costs at most. It is part of the recipe: fresh
    # random numbers are drawn after each checkpoint, so that a resumed run equals an undisturbed one.
    checkpoint_every: int = 100


class Fit(NamedTuple):
    """A trained model in its library's own safe format, cut to its best round."""

    model: bytes
    best_iteration: int  # rounds kept
    rounds_trained: int
    resumed_at: int  # rounds that came from a checkpoint


@dataclass(frozen=True)
class FoldResult:
    """What a fold leaves behind: predictions are averaged over both orders of each record."""

    fold: int
    model: bytes
    best_iteration: int
    rounds_trained: int
    resumed_at: int  # rounds that came from the checkpoint of a process that died; 0 if none did
    rows: npt.NDArray[np.intp]  # (k,) of the held-out records
    out_of_fold: Probabilities  # (k, 3)
    test: Probabilities | None  # (m, 3)
    seconds: float


class Engine(Protocol):
    """What train.lightgbm_engine and train.xgboost_engine have in common."""

    def fit(
        self,
        train: tuple[Features, Labels],
        valid: tuple[Features, Labels],
        settings: BoosterSettings,
        checkpoint: bytes | None,
        save: Callable[[bytes], None],
    ) -> Fit:
        """Train on (n, d) features and (n,) labels, stop early on the held-out ones, go on from `checkpoint` if any.

        `save` is called in the training process with each new checkpoint. Raises WorkerDiedError if that process died.
        """

    def predict(self, model: bytes, features: Features, threads: int) -> Probabilities:
        """Probabilities (n, 3) in the order A, B, tie."""


class WorkerDiedError(Exception):
    """A process that trains a fold died (killed, out of memory); another may go on from its checkpoint."""


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
