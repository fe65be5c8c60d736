"""Calibrate probabilities: match them to the frequencies of votes.

Every method treats A and B alike, as if it were fitted on each record in both orders. So exchanging the answers of a
calibrated record exchanges its P(A) and P(B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from infer.ensemble.pools import clip_to_simplex, softmax, sum_over_outcomes
from metrics.intervals import standard_error
from metrics.scores import EPSILON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Doubles, Probabilities
    from votes.arrays import Votes

CalibrationMethod = Literal["none", "temperature", "vector", "isotonic"]
CALIBRATION_METHODS: Final[tuple[CalibrationMethod, ...]] = get_args(CalibrationMethod)  # the simplest first
# Calibrated values (second) at raw values (first), with straight lines between them.
CalibrationCurve = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Calibration:
    """A fitted map of probabilities.

    The scaling methods score A and B by `power_answer` ln P(A) and `power_answer` ln P(B). They score a tie by
    `power_tie` ln P(tie) + `bias_tie`, and both bad alike. Isotonic reads each probability off the curve of its class.
    """

    method: CalibrationMethod = "none"
    power_answer: float = 1.0
    power_tie: float = 1.0
    bias_tie: float = 0.0
    power_both_bad: float = 1.0
    bias_both_bad: float = 0.0
    curve_answer: CalibrationCurve | None = None
    curve_tie: CalibrationCurve | None = None
    curve_both_bad: CalibrationCurve | None = None

    def apply(self, probabilities: Probabilities) -> Probabilities:
        """Return calibrated probabilities (n, k). None is 0 or 1."""
        classes = probabilities.shape[1]
        if self.method == "none":
            return clip_to_simplex(probabilities)
        if self.curve_answer is not None:
            curves = (self.curve_answer, self.curve_answer, self.curve_tie, self.curve_both_bad)[:classes]
            columns = [np.interp(probabilities[:, n], *curve) for n, curve in enumerate(curves) if curve is not None]
            read = np.stack(columns, axis=1)
            renormalized: Probabilities = read / sum_over_outcomes(read)[:, None]
            return renormalized
        powers = np.array([self.power_answer, self.power_answer, self.power_tie, self.power_both_bad])[:classes]
        biases = np.array([0.0, 0.0, self.bias_tie, self.bias_both_bad])[:classes]
        return clip_to_simplex(softmax(np.log(clip_to_simplex(probabilities)) * powers + biases))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration whose fields JSON holds."""
        curves = {
            name: None if values.get(name) is None else tuple(map(tuple, values[name]))
            for name in ("curve_answer", "curve_tie", "curve_both_bad")
        }
        return cls(**{**values, **curves})


UNCALIBRATED: Final = Calibration()


def fit_calibration(method: CalibrationMethod, probabilities: Probabilities, votes: Votes) -> Calibration:
    """Return the calibration with the least log loss on probabilities (n, k) that did not see their votes.

    `temperature` has one power for all classes. `vector` (Guo et al. 2017, "On Calibration of Modern Neural Networks")
    has one power for the answers, one for ties, and a bias of ties; both bad has its own power and bias. `isotonic`
    fits scikit-learn's to each class against the others (Zadrozny and Elkan 2002) and renormalizes.
    """
    if method == "none":
        return UNCALIBRATED
    if method == "isotonic":
        return _fit_isotonic(probabilities, votes)
    from scipy.optimize import minimize

    logs = np.log(clip_to_simplex(probabilities))
    rows, labels, one_hot = np.arange(len(votes)), votes.labels, votes.shares
    others = votes.classes - 2  # classes besides the answers, each with its own power and bias
    is_scalar = method == "temperature" or not others

    def powers_and_biases(values: Doubles) -> tuple[Doubles, Doubles]:
        if is_scalar:
            return np.full(votes.classes, values[0]), np.zeros(votes.classes)
        return np.concatenate([[values[0]], values[: 1 + others]]), np.concatenate([[0.0, 0.0], values[1 + others :]])

    def loss(values: Doubles) -> tuple[float, Doubles]:
        powers, biases = powers_and_biases(values)
        shares = softmax(logs * powers + biases)
        errors = shares - one_hot
        slopes = votes.mean(errors * logs)
        by_power = slopes[0] + slopes[1]
        several = [by_power, *slopes[2:], *votes.mean(errors[:, 2:])]
        gradient = [by_power + slopes[2:].sum()] if is_scalar else several
        return float(votes.mean(-np.log(np.maximum(shares[rows, labels], EPSILON)))), np.array(gradient)

    # A power below 0 would reverse the order of the predictions.
    start = [1.0] if is_scalar else [1.0] * (1 + others) + [0.0] * others
    least = [0.0] if is_scalar else [0.0] * (1 + others) + [-np.inf] * others
    optimum = minimize(loss, np.array(start), jac=True, method="L-BFGS-B", bounds=[(low, None) for low in least])
    powers, biases = (values.tolist() for values in powers_and_biases(optimum.x))
    tie, both_bad = ([*zip(powers, biases, strict=True)][2:] + [(1.0, 0.0)] * 2)[:2]
    return Calibration(method, powers[0], *tie, *both_bad)


def _fit_isotonic(probabilities: Probabilities, votes: Votes) -> Calibration:
    """Fit the curves of answers and ties. Their ends stay off 0 and 1 by what one more vote would change."""
    from sklearn.isotonic import IsotonicRegression

    def curve(classes: Sequence[int]) -> CalibrationCurve:
        raw = np.concatenate([probabilities[:, n] for n in classes])
        hits = np.concatenate([votes.labels == n for n in classes])
        weights = np.concatenate([votes.weights for _ in classes])
        edge = 1 / (weights.sum() + 2)
        fitted = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(raw, hits, sample_weight=weights)
        return tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())

    tie, both_bad = ([curve([n]) for n in range(2, votes.classes)] + [None, None])[:2]
    return Calibration("isotonic", curve_answer=curve([0, 1]), curve_tie=tie, curve_both_bad=both_bad)


def cross_calibrate(method: CalibrationMethod, probabilities: Probabilities, votes: Votes) -> Probabilities:
    """Return calibrated probabilities (n, k). The calibration of each fold is fitted on the other folds."""
    calibrated = np.empty_like(probabilities)
    for fold in np.unique(votes.folds):
        held_out = votes.folds == fold
        calibration = fit_calibration(method, probabilities[~held_out], votes.take(~held_out))
        calibrated[held_out] = calibration.apply(probabilities[held_out])
    return calibrated


@dataclass(frozen=True)
class MethodScore:
    """The mean log loss of a method, and the standard error of its difference from the best method's."""

    log_loss: float
    standard_error: float


def compare_methods(losses: Mapping[CalibrationMethod, Doubles], votes: Votes) -> dict[CalibrationMethod, MethodScore]:
    """Return the scores of methods from their held-out losses (m,); votes of one group are dependent."""
    best = min(losses, key=lambda method: float(votes.mean(losses[method])))
    return {
        method: MethodScore(
            float(votes.mean(values)), standard_error(values - losses[best], votes.groups, votes.weights)
        )
        for method, values in losses.items()
    }


def choose_method(scores: Mapping[CalibrationMethod, MethodScore]) -> CalibrationMethod:
    """Return the simplest method within one standard error of the best (Breiman et al. 1984, section 3.4.3).

    The standard error is of the difference. Losses of single records have a far larger one, with which no calibration
    would ever be chosen.
    """
    least = min(score.log_loss for score in scores.values())
    return next(
        name
        for name in CALIBRATION_METHODS
        if name in scores and scores[name].log_loss - least <= scores[name].standard_error
    )
