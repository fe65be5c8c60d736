"""Measure people by each other's votes: how well other people's votes predict a vote, and how often they agree.

Other people's votes on the same pair tell much of a vote that texts alone may not. So these scores are a reference for
models: the human ceiling. With few votes on a pair it is an estimate, which a model that reads the texts may pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Folds, Groups, Ints, Labels, Mask

_PRIOR_VOTES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # candidates for the votes that the class prior counts as


@dataclass(frozen=True)
class SharedVotes:
    """Votes on records of at least two people, one row for each vote."""

    records: Ints  # (m,)
    labels: Labels  # (m,)
    folds: Folds  # (m,) of the records
    groups: Groups  # (m,) of the records' prompts
    classes: int

    @classmethod
    def of(
        cls, records: Ints, labels: Labels, folds: Folds, groups: Groups, voters: Ints, classes: int
    ) -> tuple[SharedVotes, Mask]:
        """Return the votes on records of at least two people, and which of all (m,) these are.

        `voters` (m,) are numbers, -1 for an unknown one. Of several votes of a person on a record the first one counts.
        """
        is_first = np.ones(len(records), bool)
        known = np.flatnonzero(voters >= 0)
        _, first = np.unique(np.stack([records[known], voters[known]]), axis=1, return_index=True)
        is_first[known] = False
        is_first[known[first]] = True
        shared = is_first & (np.bincount(records[is_first], minlength=int(records.max()) + 1)[records] > 1)
        return cls(records[shared], labels[shared], folds[shared], groups[shared], classes), shared

    @functools.cached_property
    def others(self) -> Doubles:
        """Votes (m, k) of the others on the record of each vote."""
        _, row = np.unique(self.records, return_inverse=True)
        counts = np.zeros((int(row.max()) + 1, self.classes))
        np.add.at(counts, (row, self.labels), 1)
        return counts[row] - np.eye(self.classes)[self.labels]

    @property
    def agreement(self) -> Doubles:
        """Share (m,) of the others on the same record who vote alike."""
        others = self.others
        alike: Doubles = others[np.arange(len(others)), self.labels] / others.sum(axis=1)
        return alike

    @property
    def chance(self) -> Doubles:
        """Share (m,) of all votes that are for the outcome of each vote: its agreement with others by chance."""
        return np.bincount(self.labels, minlength=self.classes)[self.labels] / len(self.labels)

    def loss_from_one(self) -> Doubles:
        """Return the log loss (m,) of predicting each vote from one other person's, in the mean over the others.

        How votes follow from another person's is counted in the other folds.
        """
        others = self.others / self.others.sum(axis=1, keepdims=True)
        losses = np.empty(len(self.labels))
        for fold in np.unique(self.folds):
            held_out = self.folds == fold
            table = np.ones((self.classes, self.classes))  # votes by another person's vote, one added
            np.add.at(table.T, self.labels[~held_out], others[~held_out])
            table /= table.sum(axis=1, keepdims=True)
            losses[held_out] = (others[held_out] * -np.log(table[:, self.labels[held_out]].T)).sum(axis=1)
        return losses

    def loss_from_all(self) -> Doubles:
        """Return the log loss (m,) of predicting each vote from those of all others, and the class prior.

        The class prior counts as some votes: as many as are best in the other folds.
        """
        losses = np.empty(len(self.labels))
        for fold in np.unique(self.folds):
            held_out = self.folds == fold
            counts = np.bincount(self.labels[~held_out], minlength=self.classes) + 1.0
            prior: Doubles = counts / counts.sum()
            by_weight = [self._loss_with(prior, weight) for weight in _PRIOR_VOTES]
            best = min(by_weight, key=lambda loss: float(loss[~held_out].mean()) if (~held_out).any() else 0.0)
            losses[held_out] = best[held_out]
        return losses

    def _loss_with(self, prior: Doubles, weight: float) -> Doubles:
        others = self.others
        predicted = (others + weight * prior) / (others.sum(axis=1, keepdims=True) + weight)
        loss: Doubles = -np.log(predicted[np.arange(len(others)), self.labels])
        return loss
