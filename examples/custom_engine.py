"""Add a booster engine: multinomial logistic regression by gradient descent, in NumPy.

    tiebreak pipeline --config configs/demo.yaml --plugin examples/custom_engine.py \
        --set boosters='[{name: descent, engine: gradient_descent, rounds: 200, early_stopping_rounds: null}]'

Folds train in parallel, resume from checkpoints after a kill, and predict as with any other engine.
"""

import io
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from core.registry import ENGINES
from core.settings.tune import Dimension, Space
from metrics.scores import log_loss
from train.boosters.engine import BoosterEngine, BoosterRecipe, EarlyStopping, FoldTrainer, TrainedModel

if TYPE_CHECKING:
    from core.arrays import Doubles, Probabilities
    from train.boosters.data import BoosterData
    from train.boosters.matrix import Matrix

_DEFAULTS = {"learning_rate": 0.5, "l2": 0.01}


@ENGINES.register
class GradientDescent(BoosterEngine):
    """A linear model on standardized features. One round is one gradient step over all records."""

    name = "gradient_descent"
    title = "gradient descent"
    summary = "Multinomial logistic regression by gradient descent."
    model_file = "model.npz"
    libraries = ("numpy",)
    search_spaces: ClassVar[Mapping[str, Space]] = {
        "default": {"learning_rate": Dimension(low=0.05, high=1.0, log=True)}
    }

    def known_parameters(self) -> Collection[str]:
        """Return the valid names in `params`."""
        return _DEFAULTS

    def prepare(self, data: "BoosterData", recipe: BoosterRecipe, keep_folds: bool = False) -> "BoosterData":
        """Return the data that all folds of one process share."""
        return data

    def start(self, prepared: "BoosterData", recipe: BoosterRecipe, fold: int, checkpoint: bytes | None) -> FoldTrainer:
        """Return a trainer of the fold, which starts at round 0 or resumes from a checkpoint."""
        return _Descent(prepared, recipe, fold, checkpoint)

    def predict(self, model: bytes, features: "Matrix", threads: int) -> "Probabilities":
        """Return probabilities (n, 3)."""
        arrays = _load(model)
        return _softmax(_standardized(features, arrays) @ arrays["weights"])

    def importance(self, model: bytes, features: "Matrix", threads: int) -> tuple["Doubles", "Doubles"]:
        """Return |weight| (d,) for gain, and the mean |contribution| (d,) of each column."""
        arrays = _load(model)
        weights = np.abs(arrays["weights"][:-1]).mean(axis=1)
        return weights, np.abs(_standardized(features, arrays)[:, :-1]).mean(axis=0) * weights


class _Descent(FoldTrainer):
    def __init__(self, data: "BoosterData", recipe: BoosterRecipe, fold: int, checkpoint: bytes | None) -> None:
        self._settings = recipe.settings
        self._params = {**_DEFAULTS, **recipe.settings.params}
        sample = data.sample(data.training_rows(fold), recipe.settings.swaps)
        held_out = data.held_out(fold)
        values = _dense(sample.features)
        scale = values.std(axis=0)
        self._arrays = {
            "mean": values.mean(axis=0),
            "scale": np.where(scale > 0, scale, 1.0),
            "weights": np.zeros((values.shape[1] + 1, 3)),
        }
        self.done = 0
        if checkpoint is not None:
            self._arrays = _load(checkpoint)
            self.done = int(self._arrays.pop("done"))
        self._resumed_at = self.done
        self._x, self._votes = _standardized(sample.features, self._arrays), np.eye(3)[sample.labels]
        self._held_out = _standardized(data.features.rows(held_out), self._arrays), data.labels[held_out]
        self._stopping = EarlyStopping(None)
        self.finished = False

    @property
    def best_score(self) -> float:
        return self._stopping.best_score

    def advance(self) -> None:
        target = min(self._settings.rounds, self.done + self._settings.checkpoint_every)
        while self.done < target:
            errors = _softmax(self._x @ self._arrays["weights"]) - self._votes
            gradient = self._x.T @ errors / len(errors) + float(self._params["l2"]) * self._arrays["weights"]
            self._arrays["weights"] -= float(self._params["learning_rate"]) * gradient
            self.done += 1
        features, labels = self._held_out
        self._stopping.update(self.done, log_loss(_softmax(features @ self._arrays["weights"]), labels))
        self.finished = self.done == self._settings.rounds

    def checkpoint(self) -> bytes:
        return _save({**self._arrays, "done": np.array(self.done)})

    def model(self) -> TrainedModel:
        return TrainedModel(_save(self._arrays), self.done, self.done, self._resumed_at)


def _dense(features: "Matrix") -> "Doubles":
    joined: Any = features.joined()
    return np.asarray(joined if isinstance(joined, np.ndarray) else joined.toarray(), np.float64)


def _standardized(features: "Matrix", arrays: Mapping[str, "Doubles"]) -> "Doubles":
    """Return standardized features (n, d + 1) with a column of ones at the end."""
    values = (_dense(features) - arrays["mean"]) / arrays["scale"]
    return np.hstack([np.clip(values, -3, 3), np.ones((len(values), 1))])


def _softmax(scores: "Doubles") -> "Probabilities":
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _save(arrays: Mapping[str, "Doubles"]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _load(content: bytes) -> dict[str, "Doubles"]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
