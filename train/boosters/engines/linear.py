"""Train a linear model in parts. Swapping A and B swaps its predictions exactly.

    P(undecided)             logistic in columns that the exchange leaves as they are: |A - B|, A + B, the prompt's
    P(both bad | undecided)  logistic in the same columns, where votes have this outcome; else undecided is a tie
    P(A | decided)           logistic in columns that change sign: A - B and ratios, without intercept

With a few thousand votes it matches boosted trees and makes different errors, so a blend gains from it. It trains in
well under a second for 1,000 records, on one order of each.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from core.errors import InputError
from core.registry import ENGINES
from core.settings.tune import Dimension, Space
from train.boosters.engine import BoosterEngine, BoosterRecipe, FoldTrainer, TrainedModel

if TYPE_CHECKING:
    from core.arrays import Doubles, Floats, Mask, Probabilities, Rows
    from train.boosters.data import BoosterData, TrainingRows
    from train.boosters.matrix import Matrix

# Inverse strengths of the L2 penalty on standardized columns, and standard deviations at which columns are clipped.
# Chosen out-of-fold on 1,000 real votes; the penalty is strong because there are hundreds of columns.
_DEFAULTS: Mapping[str, float] = {"c_anti": 0.003, "c_tie": 0.001, "clip": 3.0}


@ENGINES.register
class LinearEngine(BoosterEngine):
    """Two penalized logistic regressions: who wins, and whether it is a tie."""

    name = "linear"
    title = "the linear model"
    summary = "Two logistic regressions, for the winner and for ties; strong with few votes, good in a blend."
    model_file = "model.json"
    libraries = ("scikit-learn",)
    has_rounds = False
    swap_consistent = True
    search_spaces: ClassVar[Mapping[str, Space]] = {
        "default": {
            "c_anti": Dimension(low=1e-4, high=1.0, log=True),
            "c_tie": Dimension(low=1e-4, high=1.0, log=True),
        }
    }

    def known_parameters(self) -> Collection[str]:
        """See BoosterEngine."""
        return _DEFAULTS

    def check_parameters(self, params: Mapping[str, Any], where: str = "params") -> None:
        """See BoosterEngine. All parameters are numbers above 0."""
        super().check_parameters(params, where)
        for name, value in params.items():
            if isinstance(value, bool | str) or value <= 0:
                raise InputError(f"{value!r} is not a number above 0", f"{where}.{name}", "give one, such as 0.003.")

    def try_parameters(self, data: BoosterData, recipe: BoosterRecipe) -> None:
        """See BoosterEngine. Refuse features that are the same for A and B."""
        super().try_parameters(data, recipe)
        if not len(SwapColumns.from_exchange(data.permutation, data.signs).odd):
            raise InputError(
                "all features are the same for A and B",
                recipe.settings.key("features"),
                "add a feature family that compares the answers.",
            )

    def prepare(self, data: BoosterData, recipe: BoosterRecipe, keep_folds: bool = False) -> BoosterData:
        """See BoosterEngine. There is nothing to prepare."""
        return data

    def start(self, prepared: BoosterData, recipe: BoosterRecipe, fold: int, checkpoint: bytes | None) -> FoldTrainer:
        """See BoosterEngine."""
        return _LinearTrainer(prepared, recipe, fold)

    def predict(self, model: bytes, features: Matrix, threads: int) -> Probabilities:
        """See BoosterEngine."""
        return TwoPartModel.from_bytes(model).predict(_dense(features))

    def importance(self, model: bytes, features: Matrix, threads: int) -> tuple[Doubles, Doubles]:
        """See BoosterEngine."""
        return TwoPartModel.from_bytes(model).importance(_dense(features))


class _LinearTrainer(FoldTrainer):
    """The training is one step, so there are no checkpoints."""

    def __init__(self, data: BoosterData, recipe: BoosterRecipe, fold: int) -> None:
        self._data, self._recipe, self._fold = data, recipe, fold
        self._model: TwoPartModel | None = None
        self.done = 0
        self.finished = False

    def advance(self) -> None:
        from threadpoolctl import threadpool_limits

        data, settings = self._data, self._recipe.settings
        rows = data.sample(data.training_rows(self._fold), swap=False)
        columns = SwapColumns.from_exchange(data.permutation, data.signs)
        params: dict[str, Any] = {**_DEFAULTS, **settings.params}
        with threadpool_limits(settings.cpus_per_worker):
            self._model = TwoPartModel.fit(rows, data.classes, columns, params)
        self.done, self.finished = 1, True

    @property
    def best_score(self) -> float:
        from metrics.scores import log_loss

        assert self._model is not None
        held_out = self._data.held_out(self._fold)
        predicted = self._model.predict(_dense(self._data.features.rows(held_out)))
        weights = self._data.weights
        votes = None if weights is None else weights[held_out].astype(np.float64)
        return log_loss(predicted, self._data.labels[held_out], votes)

    def checkpoint(self) -> bytes:
        return b""

    def model(self) -> TrainedModel:
        assert self._model is not None
        return TrainedModel(self._model.to_bytes(), 1, 1)


@dataclass(frozen=True)
class SwapColumns:
    """Columns by what exchanging A and B does to them."""

    odd: Rows  # change their sign
    same: Rows  # stay as they are
    first: Rows  # change places with `second`
    second: Rows

    @classmethod
    def from_exchange(cls, permutation: Rows, signs: Floats) -> SwapColumns:
        """Return the columns by the exchange of train.boosters.data.BoosterData."""
        index = np.arange(len(permutation))
        stays = permutation == index
        first = np.flatnonzero(permutation > index)
        return cls(np.flatnonzero(stays & (signs < 0)), np.flatnonzero(stays & (signs > 0)), first, permutation[first])

    def views(self, features: Floats) -> tuple[Doubles, Doubles]:
        """Return the two parts' views of features (n, d): antisymmetric (n, odd), symmetric (n, odd + first + same).

        Symmetric columns are on a logarithmic scale: ten words more count more between short answers than long ones.
        """
        values = features.astype(np.float64)
        small = np.sign(values) * np.log1p(np.abs(values))
        sums = small[:, self.first] + small[:, self.second]
        return values[:, self.odd], np.hstack([np.abs(small[:, self.odd]), sums, small[:, self.same]])


@dataclass(frozen=True)
class TwoPartModel:
    """A fitted model."""

    columns: SwapColumns
    clip: float
    odd_factor: Doubles  # 1 / standard deviation; 0 for constant columns, which then count for nothing
    even_mean: Doubles
    even_factor: Doubles
    odd_weights: Doubles
    even_weights: Doubles
    even_intercept: float
    bad_weights: Doubles | None = None  # None without the outcome both bad
    bad_intercept: float = 0.0
    has_ties: bool = True  # whether there are other outcomes than A and B

    @classmethod
    def fit(cls, rows: TrainingRows, classes: int, columns: SwapColumns, params: Mapping[str, float]) -> TwoPartModel:
        """Return the model fitted on rows in one order."""
        features, labels, weights = _dense(rows.features), rows.labels, rows.weights
        weight = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
        odd, even = columns.views(features)
        odd_factor = _factor(np.average(odd**2, axis=0, weights=weight))
        even_mean = np.average(even, axis=0, weights=weight)
        even_factor = _factor(np.average((even - even_mean) ** 2, axis=0, weights=weight))
        clip = params["clip"]
        decided = labels < 2
        sides = _clipped(odd[decided] * odd_factor, clip)
        anti = _winner_weights(sides, labels[decided] == 0, weight[decided], params["c_anti"])
        ties = _clipped((even - even_mean) * even_factor, clip)
        if classes == 2:
            none = np.zeros(even.shape[1])
            return cls(columns, clip, odd_factor, even_mean, even_factor, anti, none, 0.0, has_ties=False)
        tie, tie_intercept = _logistic(ties, ~decided, weight, params["c_tie"], intercept=True)
        fitted = cls(columns, clip, odd_factor, even_mean, even_factor, anti, tie, tie_intercept)
        if classes == 3:
            return fitted
        bad, bad_intercept = _logistic(
            ties[~decided], labels[~decided] == 3, weight[~decided], params["c_tie"], intercept=True
        )
        return dataclasses.replace(fitted, bad_weights=bad, bad_intercept=bad_intercept)

    def _contributions(self, features: Floats) -> tuple[Doubles, Doubles, Doubles]:
        """Return what columns add to the scores of A against B, of ties, and of both bad against a tie."""
        odd, even = self.columns.views(features)
        scaled = _clipped((even - self.even_mean) * self.even_factor, self.clip)
        bad = np.zeros_like(scaled) if self.bad_weights is None else scaled * self.bad_weights
        return _clipped(odd * self.odd_factor, self.clip) * self.odd_weights, scaled * self.even_weights, bad

    def predict(self, features: Floats) -> Probabilities:
        """Return probabilities (n, k) in the order A, B, tie, both bad."""
        odd, even, bad = self._contributions(features)
        lead = odd.sum(axis=1)
        a, b = _sigmoid(lead), _sigmoid(-lead)  # 1 - a would round otherwise than b of the exchanged record
        if not self.has_ties:
            return np.stack([a, b], axis=1)
        tie = _sigmoid(even.sum(axis=1) + self.even_intercept)
        sides = [(1 - tie) * a, (1 - tie) * b]
        if self.bad_weights is None:
            return np.stack([*sides, tie], axis=1)
        both_bad = _sigmoid(bad.sum(axis=1) + self.bad_intercept)
        return np.stack([*sides, tie * (1 - both_bad), tie * both_bad], axis=1)

    def importance(self, features: Floats) -> tuple[Doubles, Doubles]:
        """Return by column (d,): |weight| of the standardized column, and mean |contribution|, summed over the scores.

        For a linear model the contributions are its SHAP values (Lundberg and Lee 2017) but for their means.
        """
        odd, even, bad = (np.abs(part - part.mean(axis=0)).mean(axis=0) for part in self._contributions(features))
        even_weights = np.abs(self.even_weights)
        if self.bad_weights is not None:
            even_weights = even_weights + np.abs(self.bad_weights)
        width = features.shape[1]
        return self._by_column(np.abs(self.odd_weights), even_weights, width), self._by_column(odd, even + bad, width)

    def _by_column(self, odd: Doubles, even: Doubles, width: int) -> Doubles:
        columns = self.columns
        values = np.zeros(width)
        values[columns.odd] = odd + even[: len(columns.odd)]
        sums = even[len(columns.odd) : len(columns.odd) + len(columns.first)] / 2
        values[columns.first], values[columns.second] = sums, sums
        values[columns.same] = even[len(columns.odd) + len(columns.first) :]
        return values

    def to_bytes(self) -> bytes:
        """Return the model as JSON."""
        arrays = {**self.__dict__, **self.columns.__dict__}
        del arrays["columns"]
        lists = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in arrays.items()}
        return json.dumps(lists).encode()

    @classmethod
    def from_bytes(cls, model: bytes) -> TwoPartModel:
        """Return the model that `to_bytes` wrote."""
        saved = json.loads(model)
        columns = SwapColumns(**{name: np.array(saved.pop(name), np.intp) for name in SwapColumns.__annotations__})
        arrays: dict[str, Any] = {
            name: np.array(value) if isinstance(value, list) else value for name, value in saved.items()
        }
        return cls(columns, **arrays)


def _logistic(values: Doubles, outcome: Mask, weight: Doubles, c: float, intercept: bool) -> tuple[Doubles, float]:
    """Return weights (d,) and intercept of a penalized logistic regression.

    If all records have one outcome (votes without ties, say), the weights are 0. The intercept then comes from the
    share with one more record of each outcome (Laplace), since no outcome is impossible.
    """
    from sklearn.linear_model import LogisticRegression

    yes, no = float(weight[outcome].sum()), float(weight[~outcome].sum())
    if not yes or not no:
        return np.zeros(values.shape[1]), float(np.log((yes + 1) / (no + 1))) if intercept else 0.0
    model = LogisticRegression(C=c, fit_intercept=intercept, max_iter=500).fit(values, outcome, sample_weight=weight)
    return model.coef_[0], float(model.intercept_[0]) if intercept else 0.0


def _winner_weights(sides: Doubles, first_won: Mask, weight: Doubles, c: float) -> Doubles:
    """Return the weights (d,) of who wins, from columns (n, d) that change sign with A and B exchanged.

    Rows are turned by their own signs, so an exchange of A and B leaves the weights the same to the last bit.
    """
    if first_won.all() or not first_won.any():
        return np.zeros(sides.shape[1])
    first = (sides != 0).argmax(axis=1)
    turn = np.where(sides[np.arange(len(sides)), first] < 0, -1.0, 1.0)
    turn[::2] *= -1  # else the turned rows can all have one winner, where the first column decides
    won = first_won == (turn > 0)
    if won.all() or not won.any():
        turn[0], won[0] = -turn[0], not won[0]
    weights, _ = _logistic(sides * turn[:, None], won, weight, c, intercept=False)
    return weights


def _factor(variance: Doubles) -> Doubles:
    deviation = np.sqrt(variance)
    return np.where(deviation < 1e-9, 0.0, 1 / np.maximum(deviation, 1e-9))


def _clipped(values: Doubles, clip: float) -> Doubles:
    return np.clip(values, -clip, clip)


def _sigmoid(scores: Doubles) -> Doubles:
    from scipy.special import expit

    return np.asarray(expit(scores))


def _dense(features: Matrix) -> Floats:
    """Return all columns as one array: a linear model needs each column's scale, and sees few n-gram columns."""
    joined = features.joined()
    return joined if isinstance(joined, np.ndarray) else np.asarray(joined.toarray())
