"""Battles: the votes of records whose models have names, as arrays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from core.arrays import Doubles, Groups, Mask, Rows

OUTCOMES: Final = 3  # of a battle: the first model is better, the second one is, a tie


@dataclass(frozen=True)
class Battles:
    """Records of two models, with their votes. A record without votes has counts of 0."""

    models: tuple[str, ...]
    first: Rows  # (n,) index of the first answer's model
    second: Rows  # (n,)
    counts: Doubles  # (n, 3) votes for the first, for the second, for a tie
    groups: Groups  # (n,) records of one group share a prompt
    style: Doubles  # (n, f) standardized differences of style; f is 0 without style control

    def __len__(self) -> int:
        return len(self.first)

    @property
    def votes(self) -> Doubles:
        """The number of votes of each record (n,)."""
        total: Doubles = self.counts.sum(axis=1)
        return total

    def take(self, rows: Mask | Rows) -> Battles:
        """Return some records. All models stay, so that indexes stay the same."""
        names = ("first", "second", "counts", "groups", "style")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def with_counts(self, counts: Doubles) -> Battles:
        """Return the same records with other votes (n, 3)."""
        return dataclasses.replace(self, counts=counts)

    def pair_index(self) -> tuple[Rows, Rows, Rows]:
        """Return the pair of each record (n,), and the two models of each pair (p,); the smaller index is first."""
        low, high = np.minimum(self.first, self.second), np.maximum(self.first, self.second)
        keys, pair = np.unique(low * np.intp(len(self.models)) + high, return_inverse=True)
        return pair, keys // len(self.models), keys % len(self.models)

    def by_pair(self) -> Battles:
        """Return one record for each pair of models, with all its votes. Needs battles without style."""
        pair, low, high = self.pair_index()
        turned = self.first > self.second
        columns = [np.where(turned, self.counts[:, b], self.counts[:, a]) for a, b in ((0, 1), (1, 0), (2, 2))]
        counts: Doubles = np.stack([np.bincount(pair, column, len(low)) for column in columns], axis=1)
        return Battles(self.models, low, high, counts, np.arange(len(low)), np.empty((len(low), 0)))

    def tallies(self) -> Doubles:
        """Return wins, losses and ties of each model (m, 3)."""
        count = len(self.models)
        ours = [np.bincount(self.first, column, count) for column in self.counts.T]
        others = [np.bincount(self.second, column, count) for column in self.counts.T]
        return np.stack([ours[0] + others[1], ours[1] + others[0], ours[2] + others[2]], axis=1)


@dataclass(frozen=True)
class BattleRows:
    """Battles of a table, with the row of each, and what was left out."""

    battles: Battles
    rows: Rows  # (n,) row of each battle in the table
    unnamed: int  # rows in which a model has no name
    same: int  # rows in which a model meets itself


def battles_from_table(table: pa.Table, counts: Doubles, style: Doubles | None = None) -> BattleRows:
    """Return the battles of a table with model_a, model_b and group, and votes `counts` (n, k).

    The votes for both bad count as ties, as in the arena's leaderboard. Models are in the order of their names.
    """
    import pyarrow.compute as pc

    names_a, names_b = (table[name].combine_chunks() for name in ("model_a", "model_b"))
    has_names = pc.and_(*(pc.fill_null(pc.greater(pc.binary_length(name), 0), False) for name in (names_a, names_b)))
    named = has_names.to_numpy(zero_copy_only=False)
    differ = pc.fill_null(pc.not_equal(names_a, names_b), False).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(named & differ)
    a, b = (names.take(rows) for names in (names_a, names_b))
    models = sorted({*pc.unique(a).to_pylist(), *pc.unique(b).to_pylist()})
    first, second = (pc.index_in(names, _strings(models)).to_numpy().astype(np.intp) for names in (a, b))
    battles = Battles(
        tuple(models),
        first,
        second,
        three_outcomes(counts[rows]),
        table["group"].to_numpy()[rows],
        np.empty((len(rows), 0)) if style is None else style[rows],
    )
    return BattleRows(battles, rows, int((~named).sum()), int((named & ~differ).sum()))


def three_outcomes(counts: Doubles) -> Doubles:
    """Return counts or probabilities (n, k) of two to four outcomes as (n, 3); both bad is a tie."""
    ties = counts[:, 2:].sum(axis=1)
    return np.stack([counts[:, 0], counts[:, 1], ties], axis=1)


def _strings(values: Sequence[str]) -> Any:  # noqa: ANN401 - an Arrow array
    import pyarrow as pa

    return pa.array(values, pa.string())
