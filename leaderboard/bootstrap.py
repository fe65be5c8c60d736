"""Bootstrap ratings by drawing whole prompts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from leaderboard.fit import Likelihood

if TYPE_CHECKING:
    from core.arrays import Doubles
    from leaderboard.battles import Battles
    from leaderboard.fit import RatingFit


def bootstrap_fit(
    fit: RatingFit, battles: Battles, *, weights: Doubles | None, style_penalty: float, repetitions: int, seed: int
) -> RatingFit:
    """Return the fit with the covariance of ratings over draws of prompts, each fitted anew."""
    groups, group = np.unique(battles.groups, return_inverse=True)
    base = battles.counts if weights is None else battles.counts * weights[:, None]
    tie = [fit.tie] if fit.model.has_tie_parameter and battles.counts[:, 2].any() else []
    start = np.concatenate([fit.ratings, fit.style, tie])
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(repetitions):
        drawn = np.bincount(rng.integers(0, len(groups), size=len(groups)), minlength=len(groups))
        sample = battles.with_counts(base * drawn[group][:, None])
        compact = sample if battles.style.shape[1] else sample.by_pair()
        likelihood = Likelihood(compact, fit.model, style_penalty)
        # A draw may lack a model's wins: without some pull its rating would be infinite.
        optimum = likelihood.maximize(max(fit.penalty, 1e-2), start[: likelihood.size])
        draws.append(optimum.parameters[: len(fit.ratings)])
    covariance = fit.covariance.copy()
    m = len(fit.ratings)
    covariance[:m, :m] = np.cov(np.stack(draws), rowvar=False)
    return dataclasses.replace(fit, covariance=covariance)
