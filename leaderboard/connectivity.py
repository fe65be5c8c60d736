"""Find which models are comparable: those that battles connect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Mask, Rows
    from leaderboard.battles import Battles


def components_of(battles: Battles) -> Rows:
    """Return the component of each model (m,), the largest one first; models of one component are comparable."""
    return _sorted_components(battles, np.asarray(battles.counts.any(axis=1)), "weak")


def has_finite_ratings(battles: Battles) -> bool:
    """Return whether ratings are finite without a penalty: within each component, wins lead from any to any model.

    It is Ford's condition (1957, "Solution of a ranking problem from binary comparisons"). A tie leads both ways.
    """
    return bool((strong_components_of(battles) == components_of(battles)).all())


def strong_components_of(battles: Battles) -> Rows:
    """Return the sets of models (m,) among which wins and ties lead from any to any; the largest first."""
    return _sorted_components(battles, np.asarray(battles.counts.any(axis=1)), "strong")


def _sorted_components(battles: Battles, rows: Mask, connection: str) -> Rows:
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components

    size = len(battles.models)
    some = battles.take(rows)
    wins, losses = some.counts[:, 0] + some.counts[:, 2] > 0, some.counts[:, 1] + some.counts[:, 2] > 0
    winners = np.concatenate([some.first[wins], some.second[losses]])
    losers = np.concatenate([some.second[wins], some.first[losses]])
    graph = scipy.sparse.coo_matrix((np.ones(len(winners)), (winners, losers)), shape=(size, size))
    _, labels = connected_components(graph, directed=True, connection=connection)
    sizes = np.bincount(labels)
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[labels])
