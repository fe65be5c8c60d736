"""Rate models by each method, and choose the method that predicts held-out votes best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from core.registry import RATING_MODELS
from leaderboard.bootstrap import bootstrap_fit
from leaderboard.connectivity import has_finite_ratings
from leaderboard.fit import fit_ratings, pair_weights
from leaderboard.hierarchical import hierarchical_ratings
from leaderboard.powered import powered_ratings
from metrics.intervals import standard_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.arrays import Doubles, Folds, Probabilities
    from core.settings.leaderboard import Leaderboard
    from leaderboard.battles import Battles
    from leaderboard.fit import RatingFit

MethodName = Literal["votes", "powered", "hierarchical"]
LEAST_PENALTY: Final = (
    0.25  # about one more vote of each model against an average one, where a rating would be infinite
)
_PARTS: Final = 5


@dataclass(frozen=True)
class RatingInputs:
    """Battles to rate models from, and what is known of each."""

    battles: Battles
    predicted: Probabilities | None  # (n, 3) by models that did not see the record's votes; None without predictions
    folds: Folds  # (n,) of voted records; -1 for others
    seed: int = 0

    @property
    def voted(self) -> Battles:
        """The battles that have votes."""
        return self.battles.take(np.asarray(self.battles.votes > 0))


@dataclass(frozen=True)
class MethodRatings:
    """Ratings by one method, and remarks on them."""

    fit: RatingFit
    remarks: tuple[str, ...] = ()
    details: Mapping[str, float] | None = None


@dataclass(frozen=True)
class HeldOutScore:
    """The mean log-likelihood loss of a method on held-out votes, and what it gains over votes alone."""

    log_loss: float
    gain: float
    standard_error: float


def rate(method: MethodName, inputs: RatingInputs, settings: Leaderboard) -> MethodRatings:
    """Return the ratings by one method."""
    model = RATING_MODELS.get(settings.model)
    battles, predicted = inputs.battles, inputs.predicted
    voted = inputs.voted
    shrinkage = None if settings.shrinkage == "auto" else settings.shrinkage
    remarks: list[str] = []
    if shrinkage is not None and shrinkage < LEAST_PENALTY and not has_finite_ratings(voted):
        shrinkage = LEAST_PENALTY
        remarks.append(
            "some models have no win, or no loss, against the others; their ratings would be infinite, so all are "
            f"shrunken with shrinkage={LEAST_PENALTY}"
        )
    if method == "votes" or predicted is None:
        weights = pair_weights(voted) if settings.weights == "pairs" else None
        fit = fit_ratings(
            voted,
            model,
            shrinkage=shrinkage,
            clusters=settings.clusters,
            weights=weights,
            style_penalty=settings.style_penalty,
        )
        if settings.intervals == "bootstrap":
            fit = bootstrap_fit(
                fit,
                voted,
                weights=weights,
                style_penalty=settings.style_penalty,
                repetitions=settings.repetitions,
                seed=inputs.seed,
            )
        return MethodRatings(fit, tuple(remarks))
    if method == "powered":
        powered = powered_ratings(battles, predicted, model, shrinkage=shrinkage, clusters=settings.clusters)
        return MethodRatings(powered.fit, tuple(remarks), {"share": powered.share})
    found = hierarchical_ratings(battles, predicted, model, clusters=settings.clusters)
    return MethodRatings(found.fit, (), {"power": found.power, "spread": found.spread, "deviation": found.deviation})


def compare_methods(inputs: RatingInputs, settings: Leaderboard) -> dict[MethodName, HeldOutScore]:
    """Return each method's score on votes that it did not see, by parts of the folds.

    A method predicts a held-out vote from the two models' ratings alone, so what is compared are the ratings.
    """
    model = RATING_MODELS.get(settings.model)
    battles, folds = inputs.battles, inputs.folds
    parts = np.where(folds >= 0, folds % _PARTS, -1)
    names: tuple[MethodName, ...] = ("votes", "powered", "hierarchical") if inputs.predicted is not None else ("votes",)
    losses: dict[MethodName, Doubles] = {name: np.zeros(len(battles)) for name in names}
    for part in np.unique(parts[parts >= 0]):
        held_out = parts == part
        counts = np.where(held_out[:, None], 0.0, battles.counts)
        if not counts.any():
            continue
        rest = RatingInputs(battles.with_counts(counts), inputs.predicted, folds, inputs.seed)
        for name in names:
            fit = rate(name, rest, settings.model_copy(update={"intervals": "sandwich", "style": []})).fit
            lead = fit.ratings[battles.first[held_out]] - fit.ratings[battles.second[held_out]]
            logs = model.log_probabilities(lead, fit.tie)
            losses[name][held_out] = -(battles.counts[held_out] * logs).sum(axis=1)
    votes = battles.votes
    seen = votes > 0
    scores = {}
    for name, values in losses.items():
        gain = (losses["votes"] - values)[seen] / votes[seen]
        error = standard_error(gain, battles.groups[seen], votes[seen])
        total = votes[seen].sum()
        scores[name] = HeldOutScore(float(values.sum() / total), float((gain * votes[seen]).sum() / total), error)
    return scores


def best_method(scores: Mapping[MethodName, HeldOutScore]) -> MethodName:
    """Return the method with the least loss; the simplest of equal ones."""
    return min(scores, key=lambda name: scores[name].log_loss)
