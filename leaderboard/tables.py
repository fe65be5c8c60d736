"""Write ratings as tables: a row for each model, with intervals of its rating, rank and win rate."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leaderboard.ranks import simultaneous_ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Doubles
    from leaderboard.battles import Battles
    from leaderboard.fit import RatingFit

SCALE: Final = 400 / np.log(10)  # of ratings: as in chess, 400 points are odds of 10 to 1
CENTER: Final = 1000.0
_STEP: Final = 1e-5  # of numerical derivatives, in log-odds


@dataclass(frozen=True)
class RatingTable:
    """Ratings as rows by falling rating, and what holds for all of them."""

    rows: list[dict[str, Any]]
    order: list[int]  # of the rows, among the battles' models
    mean_width: float  # of the intervals of win rates between two models


def rating_table(battles: Battles, fit: RatingFit, alone: RatingFit | None = None, seed: int = 0) -> RatingTable:
    """Return the rows of models. With `alone`, each has its rating by votes alone as well."""
    ranks = simultaneous_ranks(fit, seed)
    tallies = battles.tallies()
    lower, upper = _interval(fit)
    rates = _win_rates(fit)
    low_alone, high_alone = _interval(fit if alone is None else alone)
    order = sorted(range(len(battles.models)), key=lambda n: (fit.components[n], -fit.ratings[n], battles.models[n]))
    rows = []
    for n in order:
        wins, losses, ties = tallies[n].tolist()
        row: dict[str, Any] = {
            "model": battles.models[n],
            "rating": _points(fit.ratings[n]),
            "lower": lower[n],
            "upper": upper[n],
            "rank": int(ranks.rank[n]),
            "rank_lower": int(ranks.lower[n]),
            "rank_upper": int(ranks.upper[n]),
            "votes": wins + losses + ties,
            "wins": wins,
            "losses": losses,
            "ties": ties,
            "win_rate": rates[n][0],
            "win_rate_lower": rates[n][1],
            "win_rate_upper": rates[n][2],
            "shrinkage": float(fit.shrinkage[n]),
            "component": int(fit.components[n]) + 1,
        }
        if alone is not None:
            row |= {
                "votes_rating": _points(alone.ratings[n]),
                "votes_lower": low_alone[n],
                "votes_upper": high_alone[n],
            }
        rows.append(row)
    return RatingTable(rows, order, mean_interval_width(fit))


def win_rate_intervals(fit: RatingFit) -> tuple[Doubles, Doubles]:
    """Return both ends (m, m) of the 95% intervals of win rates between two models."""
    differences = fit.ratings[:, None] - fit.ratings[None, :]
    half = fit.quantile * fit.difference_errors()
    shape = differences.shape
    ends = (fit.model.win_rates((differences + sign * half).ravel(), fit.tie).reshape(shape) for sign in (-1, 1))
    low, high = ends
    return low, high


def mean_interval_width(fit: RatingFit) -> float:
    """Return the mean width of the intervals of win rates, over comparable pairs; 0 without one."""
    low, high = win_rate_intervals(fit)
    comparable = np.triu(fit.components[:, None] == fit.components[None, :], 1)
    return float((high - low)[comparable].mean()) if comparable.any() else 0.0


def equivalent_votes(fit: RatingFit, alone: RatingFit, votes: float) -> float:
    """Return how many votes alone would give ratings as exact as these.

    The inverse variance of a difference of ratings grows with the votes, from that of the prior. The mean is over all
    comparable pairs.
    """
    comparable = np.triu(alone.components[:, None] == alone.components[None, :], 1)
    before = 1 / (2 * alone.prior_variance)
    of_fit, of_votes = (1 / (each.difference_errors()[comparable] ** 2).mean() - before for each in (fit, alone))
    return float(votes * max(of_fit, 0.0) / of_votes) if of_votes > 0 else float(votes)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as a CSV file; numbers have six significant digits after the point at most."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:  # noqa: ANN401 - a cell
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _points(rating: float) -> float:
    return float(CENTER + SCALE * rating)


def _interval(fit: RatingFit) -> tuple[list[float], list[float]]:
    half = fit.quantile * np.sqrt(np.maximum(np.diag(fit.rating_covariance), 0.0))
    return [(CENTER + SCALE * (fit.ratings + sign * half)).tolist() for sign in (-1, 1)]  # type: ignore[return-value]


def _win_rates(fit: RatingFit) -> list[tuple[float | None, float | None, float | None]]:
    """Return each model's mean win rate against the others it is comparable to, with its interval."""
    same = fit.components[:, None] == fit.components[None, :]
    np.fill_diagonal(same, False)
    others = same.sum(axis=1)
    rates = np.where(same, fit.win_rates(), 0.0)
    differences = fit.ratings[:, None] - fit.ratings[None, :]
    shape = differences.shape
    ends = [fit.model.win_rates((differences + step).ravel(), fit.tie).reshape(shape) for step in (-_STEP, _STEP)]
    slopes = np.where(same, (ends[1] - ends[0]) / (2 * _STEP), 0.0)
    results: list[tuple[float | None, float | None, float | None]] = []
    for n, count in enumerate(others):
        if not count:
            results.append((None, None, None))
            continue
        gradient = -slopes[n] / count
        gradient[n] = slopes[n].sum() / count
        error = float(np.sqrt(max(gradient @ fit.rating_covariance @ gradient, 0.0)))
        mean, half = float(rates[n].sum() / count), fit.quantile * error
        results.append((mean, max(mean - half, 0.0), min(mean + half, 1.0)))
    return results
