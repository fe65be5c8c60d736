"""A linear model in two parts, exactly consistent under exchange of A and B.

    P(tie)          logistic in what exchanging A and B leaves as it is: |A - B|, A + B, columns of the prompt
    P(A | decided)  logistic in what changes sign: A - B and ratios, without intercept

With a few thousand votes it holds its own against boosted trees and errs elsewhere, so that a blend gains from it. It
trains in well under a second for 1,000 records, on one order of each.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from metrics.scores import log_loss
from train.boosters.data import BoosterData, BoosterSettings, Doubles, Fit, Floats, Labels, Probabilities

if TYPE_CHECKING:
    from train.boosters.matrix import Matrix

# Inverse strengths of the L2 penalty on standardised columns, and standard deviations at which columns are clipped.
# Chosen out-of-fold on 1,000 real votes; strong, since there are hundreds of columns.
DEFAULTS: dict[str, float] = {"c_anti": 0.003, "c_tie": 0.001, "clip": 3.0}
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Columns:
    """Columns by what exchanging A and B does to them."""

    odd: Indices  # change their sign
    same: Indices  # stay as they are
    first: Indices  # change places with `second`
    second: Indices

    @classmethod
    def of(cls, permutation: Indices, signs: Floats) -> Columns:
        """Columns from the exchange of train.boosters.data.BoosterData."""
        index = np.arange(len(permutation))
        stays = permutation == index
        first = np.flatnonzero(permutation > index)
        return cls(np.flatnonzero(stays & (signs < 0)), np.flatnonzero(stays & (signs > 0)), first, permutation[first])

    def views(self, features: Floats) -> tuple[Doubles, Doubles]:
        """What the two parts see of features (n, d): antisymmetric (n, odd), and symmetric (n, odd + first + same).

        The symmetric ones are on a logarithmic scale, where a difference of ten words counts alike for short answers
        and long ones.
        """
        values = features.astype(np.float64)
        small = np.sign(values) * np.log1p(np.abs(values))
        sums = small[:, self.first] + small[:, self.second]
        return values[:, self.odd], np.hstack([np.abs(small[:, self.odd]), sums, small[:, self.same]])


@dataclass(frozen=True)
class TwoPart:
    """A fitted model."""

    columns: Columns
    clip: float
    odd_factor: Doubles  # 1 / standard deviation; 0 for constant columns, which then say nothing
    even_mean: Doubles
    even_factor: Doubles
    odd_weights: Doubles
    even_weights: Doubles
    even_intercept: float

    @classmethod
    def fit(
        cls, features: Floats, labels: Labels, weights: Floats | None, columns: Columns, params: Mapping[str, float]
    ) -> TwoPart:
        """Fit on records (n, d) in one order."""
        weight = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
        odd, even = columns.views(features)
        odd_factor = _factor(np.average(odd**2, axis=0, weights=weight))
        even_mean = np.average(even, axis=0, weights=weight)
        even_factor = _factor(np.average((even - even_mean) ** 2, axis=0, weights=weight))
        clip = params["clip"]
        decided = labels < 2
        of_sides = _clipped(odd[decided] * odd_factor, clip)
        anti, _ = _logistic(of_sides, labels[decided] == 0, weight[decided], params["c_anti"], intercept=False)
        of_ties = _clipped((even - even_mean) * even_factor, clip)
        tie, tie_intercept = _logistic(of_ties, labels == 2, weight, params["c_tie"], intercept=True)
        return cls(columns, clip, odd_factor, even_mean, even_factor, anti, tie, tie_intercept)

    def _contributions(self, features: Floats) -> tuple[Doubles, Doubles]:
        odd, even = self.columns.views(features)
        return (
            _clipped(odd * self.odd_factor, self.clip) * self.odd_weights,
            _clipped((even - self.even_mean) * self.even_factor, self.clip) * self.even_weights,
        )

    def predict(self, features: Floats) -> Probabilities:
        """Probabilities (n, 3) in the order A, B, tie."""
        odd, even = self._contributions(features)
        a = _sigmoid(odd.sum(axis=1))
        tie = _sigmoid(even.sum(axis=1) + self.even_intercept)
        return np.stack([(1 - tie) * a, (1 - tie) * (1 - a), tie], axis=1)

    def importance(self, features: Floats) -> tuple[Doubles, Doubles]:
        """By column (d,): |weight| of the standardised column, and mean |contribution| to the two scores.

        For a linear model the contributions are its SHAP values (Lundberg and Lee 2017) but for their means.
        """
        odd, even = (np.abs(part - part.mean(axis=0)).mean(axis=0) for part in self._contributions(features))
        weights = np.abs(self.odd_weights), np.abs(self.even_weights)
        return self._by_column(*weights, features.shape[1]), self._by_column(odd, even, features.shape[1])

    def _by_column(self, odd: Doubles, even: Doubles, width: int) -> Doubles:
        columns = self.columns
        found = np.zeros(width)
        found[columns.odd] = odd + even[: len(columns.odd)]
        sums = even[len(columns.odd) : len(columns.odd) + len(columns.first)] / 2
        found[columns.first], found[columns.second] = sums, sums
        found[columns.same] = even[len(columns.odd) + len(columns.first) :]
        return found

    def to_bytes(self) -> bytes:
        """The model as JSON."""
        arrays = {**self.__dict__, **self.columns.__dict__}
        del arrays["columns"]
        lists = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in arrays.items()}
        return json.dumps(lists).encode()

    @classmethod
    def from_bytes(cls, model: bytes) -> TwoPart:
        """The model behind `to_bytes`."""
        saved = json.loads(model)
        columns = Columns(**{name: np.array(saved.pop(name), np.intp) for name in Columns.__annotations__})
        arrays: dict[str, Any] = {
            name: np.array(value) if isinstance(value, list) else value for name, value in saved.items()
        }
        return cls(columns, **arrays)


def _logistic(
    values: Doubles, outcome: npt.NDArray[np.bool_], weight: Doubles, c: float, intercept: bool
) -> tuple[Doubles, float]:
    """Weights (d,) and intercept of a penalised logistic regression.

    Where all records have one outcome (votes without ties, say) nothing can be learnt of the columns: the intercept
    is that of the share with one record more of each outcome (Laplace), since no outcome is impossible.
    """
    from sklearn.linear_model import LogisticRegression

    yes, no = float(weight[outcome].sum()), float(weight[~outcome].sum())
    if not yes or not no:
        return np.zeros(values.shape[1]), float(np.log((yes + 1) / (no + 1))) if intercept else 0.0
    model = LogisticRegression(C=c, fit_intercept=intercept, max_iter=500).fit(values, outcome, sample_weight=weight)
    return model.coef_[0], float(model.intercept_[0]) if intercept else 0.0


def _factor(variance: Doubles) -> Doubles:
    deviation = np.sqrt(variance)
    return np.where(deviation < 1e-9, 0.0, 1 / np.maximum(deviation, 1e-9))


def _clipped(values: Doubles, clip: float) -> Doubles:
    return np.clip(values, -clip, clip)


def _sigmoid(scores: Doubles) -> Doubles:
    from scipy.special import expit

    return np.asarray(expit(scores))


def _params(settings: BoosterSettings) -> dict[str, float]:
    for name, value in settings.params.items():
        where = f"two_part params.{name}"
        if name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS, n=1, cutoff=0.0)[0]
            raise InputError("the two-part model has no such parameter", where=where, fix=f"did you mean {near!r}?")
        if isinstance(value, bool | str) or value <= 0:
            raise InputError(f"{value!r} is not a number above 0", where=where, fix="give one, such as 0.003")
    if settings.actors_per_fold > 1:
        raise InputError("a linear fold has one process", where="two_part actors_per_fold", fix="leave it out")
    return {**DEFAULTS, **settings.params}


def check(data: BoosterData, settings: BoosterSettings) -> None:
    """See train.boosters.data.Engine.check."""
    _params(settings)
    if not len(Columns.of(data.permutation, data.signs).odd):
        raise InputError(
            "no column tells A from B", where="two_part features", fix="give it a family or a block of differences"
        )


def main_name(name: str) -> str:
    """See train.boosters.data.Engine.main_name."""
    return name


def fixed_by_data(name: str) -> bool:
    """See train.boosters.data.Engine.fixed_by_data."""
    return False


def host(body: Callable[[], None], settings: BoosterSettings) -> None:
    """See train.boosters.data.Engine.host. There is no wrapper: folds train in the calling process."""
    body()


def prepare(data: BoosterData, settings: BoosterSettings, keep_folds: bool = False) -> BoosterData:
    """See train.boosters.data.Engine.prepare. There is nothing to prepare."""
    return data


def start(prepared: BoosterData, fold: int, settings: BoosterSettings, checkpoint: bytes | None) -> TwoPartTrainer:
    """See train.boosters.data.Engine.start."""
    return TwoPartTrainer(prepared, fold, settings)


def start_distributed(
    shared: Any,  # noqa: ANN401 - a list with a reference to the data
    data: BoosterData,
    fold: int,
    settings: BoosterSettings,
    checkpoint: bytes | None,
) -> TwoPartTrainer:
    """See train.boosters.data.Engine.start_distributed; `check` refuses it."""
    return TwoPartTrainer(data, fold, settings)


class TwoPartTrainer:
    """See train.boosters.data.Trainer. It is over in one stretch, so there are no checkpoints."""

    def __init__(self, data: BoosterData, fold: int, settings: BoosterSettings) -> None:
        self._data, self._fold, self._settings = data, fold, settings
        self._model: TwoPart | None = None
        self.done = 0
        self.finished = False

    def advance(self) -> None:
        """See train.boosters.data.Trainer."""
        from threadpoolctl import threadpool_limits

        features, labels, weights = self._data.sample(self._data.rest(self._fold), both_orders=False)
        columns = Columns.of(self._data.permutation, self._data.signs)
        with threadpool_limits(self._settings.cpus_per_fold):
            self._model = TwoPart.fit(_dense(features), labels, weights, columns, _params(self._settings))
        self.done, self.finished = 1, True

    @property
    def best_score(self) -> float:
        """See train.boosters.data.Trainer."""
        assert self._model is not None
        held_out = self._data.held_out(self._fold)
        predicted = self._model.predict(_dense(self._data.features.rows(held_out)))
        return log_loss(predicted, self._data.labels[held_out])

    def checkpoint(self) -> bytes:
        """See train.boosters.data.Trainer."""
        return b""

    def fit(self) -> Fit:
        """See train.boosters.data.Trainer."""
        assert self._model is not None
        return Fit(self._model.to_bytes(), 1, 1, 0)


def predict(model: bytes, features: Matrix, threads: int) -> Probabilities:
    """Probabilities (n, 3) of the JSON `model`."""
    return TwoPart.from_bytes(model).predict(_dense(features))


def importance(model: bytes, features: Matrix, threads: int) -> tuple[Doubles, Doubles]:
    """See train.boosters.data.Engine.importance."""
    return TwoPart.from_bytes(model).importance(_dense(features))


def _dense(features: Matrix) -> Floats:
    """All columns as one array: a linear model needs each column's scale, and few n-gram columns."""
    joined = features.joined()
    return joined if isinstance(joined, np.ndarray) else np.asarray(joined.toarray())
