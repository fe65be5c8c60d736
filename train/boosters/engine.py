"""Define the base class of booster engines (registry ENGINES), and the types of its methods.

An engine is one file: it names its library's parameters, trains a fold from checkpoint to checkpoint, predicts, and
explains. The files of the project's own engines are in `train/boosters/engines`.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from core.errors import InputError

if TYPE_CHECKING:
    import ray

    from core.arrays import Doubles, Probabilities
    from core.settings.boosters import Booster
    from core.settings.tune import Space
    from train.boosters.data import BoosterData
    from train.boosters.matrix import Matrix


@dataclass(frozen=True)
class BoosterRecipe:
    """A booster's settings and the run's seed: everything that decides a model."""

    settings: Booster
    seed: int = 0
    classes: int = 3  # number of outcomes


class TrainedModel(NamedTuple):
    """The model of a fold in its library's own safe format, cut to its best round."""

    content: bytes
    best_iteration: int  # rounds kept
    rounds_trained: int
    resumed_at: int = 0  # rounds that came from the checkpoint of a killed process; 0 if none did
    from_search: bool = False  # a search with the same settings trained it


@dataclass
class EarlyStopping:
    """The state of early stopping; without `patience` the last round is the best."""

    patience: int | None  # rounds without a better score after which training stops
    best_score: float = float("inf")
    best_iteration: int = 0

    def update(self, rounds: int, score: float) -> bool:
        """Note the held-out log loss of the last of `rounds` rounds; return whether to stop."""
        if self.patience is None or score < self.best_score:
            self.best_score, self.best_iteration = score, rounds
        return self.stopped(rounds)

    def stopped(self, rounds: int) -> bool:
        """Whether the last `patience` rounds were not better."""
        return self.patience is not None and rounds - self.best_iteration >= self.patience


class WorkerDiedError(Exception):
    """A training process died (killed, out of memory). Another process may resume from its checkpoint."""


class FoldTrainer(ABC):
    """The training of one fold.

    It continues from each checkpoint as saved, so that an undisturbed training takes the same steps as a resumed one.
    """

    done: int  # rounds
    finished: bool  # all rounds are done, or training stopped early

    @property
    @abstractmethod
    def best_score(self) -> float:
        """Lowest held-out log loss of a round so far; the last round's without early stopping."""

    @abstractmethod
    def advance(self) -> None:
        """Train up to the next checkpoint, or to the end if that comes first."""

    @abstractmethod
    def checkpoint(self) -> bytes:
        """Return the checkpoint from which `BoosterEngine.start` resumes."""

    @abstractmethod
    def model(self) -> TrainedModel:
        """Return the trained model."""


class BoosterEngine(ABC):
    """One library, or one kind of model, that learns from the features of a fold. Members hold no state."""

    name: ClassVar[str]  # as settings name the engine
    title: ClassVar[str]  # as messages name it
    summary: ClassVar[str]  # one line for the docs
    model_file: ClassVar[str]  # name of a fold's model
    libraries: ClassVar[tuple[str, ...]] = ()  # distributions whose other versions may train other models
    distributed: ClassVar[bool] = False  # a fold may have several processes; see start_distributed
    has_rounds: ClassVar[bool] = True  # False where training is one step, without early stopping
    swap_consistent: ClassVar[bool] = False  # predictions are swapped exactly with the answers, whatever `swap` says
    search_spaces: ClassVar[Mapping[str, Space]] = {}
    reserved: ClassVar[Mapping[str, str]] = {}  # by main name: what to do in place of setting the parameter

    @abstractmethod
    def known_parameters(self) -> Collection[str]:
        """Return all names of parameters, aliases included."""

    def main_name(self, name: str) -> str:
        """Return the name under which the library knows a parameter that has several."""
        return name

    def fixed_by_data(self, name: str) -> bool:
        """Return whether the result of `prepare` fixes a parameter, so that no search can vary it."""
        return False

    def check_parameters(self, params: Mapping[str, Any], where: str = "params") -> None:
        """Raise InputError for an unknown parameter and for one that the settings decide; `where` holds them.

        Settings are checked with it when they are loaded, so it must not import the library.
        """
        known = self.known_parameters()
        for name in params:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"see {self.title}'s list of parameters."
                raise InputError(f"{self.title} has no parameter {name!r}", f"{where}.{name}", hint)
            instead = self.reserved.get(self.main_name(name))
            if instead is not None:
                raise InputError("Tiebreak sets this parameter", f"{where}.{name}", f"{instead}.")

    def check_settings(self, settings: Booster) -> None:
        """Raise InputError if the engine cannot train with these settings. Runs when settings are loaded."""
        self.check_parameters(settings.params, settings.key("params"))
        if settings.num_workers > 1 and not self.distributed:
            raise InputError(f"{self.title} trains a fold in one process", settings.key("num_workers"), "leave it out.")

    def try_parameters(self, data: BoosterData, recipe: BoosterRecipe) -> None:
        """Raise InputError if the library refuses the parameters, tried on a few rows before any process starts."""
        self.check_settings(recipe.settings)

    def host(self, body: Callable[[], None], settings: Booster) -> None:
        """Run `body` in a training process of the engine's library; return when it ends.

        Raises WorkerDiedError if the process died. `body` reports its own failures.
        """
        body()

    @abstractmethod
    def prepare(self, data: BoosterData, recipe: BoosterRecipe, keep_folds: bool = False) -> Any:  # noqa: ANN401
        """Return data that all folds of one process share, such as binned features.

        With `keep_folds` each fold's own matrices are kept as well. The result serves all recipes that differ from this
        one in training parameters alone.
        """

    @abstractmethod
    def start(self, prepared: Any, recipe: BoosterRecipe, fold: int, checkpoint: bytes | None) -> FoldTrainer:  # noqa: ANN401
        """Return the training of a fold, from its beginning or from a checkpoint."""

    def start_distributed(
        self,
        reference: ray.ObjectRef[BoosterData],
        data: BoosterData,
        recipe: BoosterRecipe,
        fold: int,
        checkpoint: bytes | None,
    ) -> FoldTrainer:
        """Return the training of a fold in several processes, which `FoldTrainer.advance` starts.

        `advance` raises WorkerDiedError if one of them died. Only engines that are `distributed` have it.
        """
        raise NotImplementedError(self.name)

    @abstractmethod
    def predict(self, model: bytes, features: Matrix, threads: int) -> Probabilities:
        """Return probabilities (n, k) in the order A, B, tie, both bad."""

    @abstractmethod
    def importance(self, model: bytes, features: Matrix, threads: int) -> tuple[Doubles, Doubles]:
        """Return gain (d,), and mean absolute SHAP values (d,) over these records; see train.boosters.data."""


def train_to_end(trainer: FoldTrainer, save: Callable[[bytes], None]) -> TrainedModel:
    """Train a fold to its end, saving each checkpoint on the way; return its model."""
    while not trainer.finished:
        trainer.advance()
        if not trainer.finished:
            save(trainer.checkpoint())
    return trainer.model()


def mean_absolute_shap(contributions: Doubles) -> Doubles:
    """Return the mean |SHAP value| (d,) of contributions (n, classes, d + 1); the last column is the expected score."""
    mean: Doubles = np.abs(contributions[:, :, :-1]).mean(axis=(0, 1))
    return mean
