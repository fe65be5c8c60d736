"""Define the training data of boosters, and the result of a fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from train.boosters.matrix import Matrix, exchange_rows, stack_rows
from votes.schema import RARE_VOTES
from votes.swap import PositionEffect, swap_labels

if TYPE_CHECKING:
    from core.arrays import Doubles, Floats, Folds, Labels, Mask, Probabilities, Rows
    from train.boosters.engine import TrainedModel

EXPLAIN_ROWS = 100  # held-out records for SHAP values, whose time grows with trees x leaves x depth squared
TRIAL_ROWS = 64  # records on which an engine tries its parameters before it starts processes


@dataclass(frozen=True)
class BoosterData:
    """Features of training and test records. It lives once in Ray's object store; its arrays are read without a copy.

    A record has a row for each outcome that it has votes for, weighted by them: engines take one label for each row,
    and a weighted sum over rows is the loss over votes. Records of other sources follow the primary source's: models
    are trained on them, but they are never held out.
    """

    features: Matrix  # n rows
    labels: Labels  # (n,)
    folds: Folds  # (n,); -1 for records of other sources whose prompt is in no fold
    test_features: Matrix | None  # m rows
    permutation: Rows  # (d,); see train.boosters.matrix.Matrix.exchanged
    signs: Floats  # (d,)
    names: list[str]  # (d,)
    families: list[str]  # (d,)
    sources: Folds  # (n,) 0 for the primary source, whose records come first
    weights: Floats | None = None  # (n,) of the records in training; None gives every record weight 1
    used_sources: Mask | None = None  # (folds, other sources): which a fold trains on; None for all
    records: Rows | None = None  # (n,) record of each row, counted through all sources; None if each row is one
    classes: int = 3  # number of outcomes

    def swapped(self, features: Matrix) -> Matrix:
        """Return the features of the same records with A and B exchanged."""
        return features.exchanged(self.permutation, self.signs)

    def held_out(self, fold: int) -> Rows:
        """Return the rows of the primary records of a fold."""
        return np.flatnonzero((self.folds == fold) & (self.sources == 0))

    def held_out_records(self, fold: int) -> Rows:
        """Return one row for each primary record of a fold: rows of a record have the same features."""
        rows = self.held_out(fold)
        if self.records is None:
            return rows
        return rows[np.diff(self.records[rows], prepend=-1) > 0]

    def training_rows(self, fold: int) -> Rows:
        """Return the rows that a fold trains on: primary records outside it, and records of its other sources.

        No record shares a prompt with the fold.
        """
        outside = self.folds != fold
        if self.used_sources is not None:
            outside &= np.concatenate([[True], self.used_sources[fold]])[self.sources]
        return np.flatnonzero(outside)

    def outcome_floor(self, fold: int, swap: bool) -> Doubles:
        """Return the least probability (k,) of each outcome by the model of a fold.

        It is 0 but for outcomes with fewer than RARE_VOTES votes in training. Those have 1 / (votes + k), Laplace's
        rule of succession for an outcome never seen. Boosters alone would predict 1e-15.
        """
        rows = self.training_rows(fold)
        weights = None if self.weights is None else self.weights[rows]
        counts = np.bincount(self.labels[rows], weights, self.classes).astype(np.float64)
        if swap:
            counts[:2] = counts[:2].mean()
        return np.where(counts < RARE_VOTES, 1 / (counts.sum() + self.classes), 0.0)

    def sample(self, rows: Rows, swap: bool) -> TrainingRows:
        """Return rows to train or stop on; with `swap` in both orders, all rows in one before all in the other.

        Which order is first depends on the features, not on the input's order. So input with A and B exchanged gives
        the same rows, and the same random draws of rows.
        """
        features, labels = self.features.rows(rows), self.labels[rows]
        weights = None if self.weights is None else self.weights[rows]
        if not swap:
            return TrainingRows(features, labels, weights)
        swapped = self.swapped(features)
        sign = features.compare(swapped)
        turned = np.where(sign == 0, labels == 1, sign < 0)
        features, swapped = exchange_rows(features, swapped, turned)
        labels = np.where(turned, swap_labels(labels), labels)
        if self.records is not None:
            # Rows of one record differ in labels and weights only.
            order = np.lexsort((labels, self.records[rows]))
            labels, weights = labels[order], None if weights is None else weights[order]
        return TrainingRows(
            stack_rows([features, swapped]),
            np.concatenate([labels, swap_labels(labels)]),
            None if weights is None else np.concatenate([weights, weights]),
        )

    def trial_sample(self) -> TrainingRows:
        """Return the first records, on which an engine tries its parameters."""
        return self.sample(np.arange(min(TRIAL_ROWS, len(self.labels))), swap=False)


class TrainingRows(NamedTuple):
    """Rows to train on: features, labels (k,), weights (k,) or None."""

    features: Matrix
    labels: Labels
    weights: Floats | None


@dataclass(frozen=True)
class Importance:
    """The contribution of each column (d,) to the model of a fold."""

    names: list[str]
    families: list[str]
    gain: Doubles  # total decrease of the loss by splits on it, in the library's own units
    shap: Doubles  # mean |contribution to a class's raw score|, over held-out records and classes


@dataclass(frozen=True)
class FoldResult:
    """The result of a fold."""

    fold: int
    model: TrainedModel
    rows: Rows  # (k,) the held-out records
    out_of_fold: Probabilities  # (k, classes), averaged over both orders if the settings say so, as those for test
    test: Probabilities | None  # (m, classes)
    importance: Importance
    position: PositionEffect  # on the held-out records, before any averaging
    seconds: float
    floor: Doubles  # (classes,) least probabilities, already applied


class FoldError(Exception):
    """A fold failed; its siblings were cancelled. The three parts are kept so that the error survives pickling."""

    def __init__(self, engine: str, fold: int, cause: str) -> None:
        super().__init__(engine, fold, cause)
        self.engine = engine
        self.fold = fold
        self.cause = cause

    def __str__(self) -> str:
        return f"fold {self.fold} of {self.engine} failed: {self.cause}"
