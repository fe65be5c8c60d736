"""Calibrate probabilities: match them to the frequencies of votes.

Every method treats A and B alike, as if it were fitted on each record in both orders. So exchanging the answers of a
calibrated record exchanges its P(A) and P(B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from infer.ensemble.pools import clip_to_simplex, softmax
from metrics.intervals import standard_error
from metrics.scores import EPSILON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.arrays import Doubles, Groups, Labels, Mask, Probabilities
    from votes.arrays import Votes

CalibrationMethod = Literal["none", "temperature", "vector", "isotonic"]
CALIBRATION_METHODS: Final[tuple[CalibrationMethod, ...]] = get_args(CalibrationMethod)  # the simplest first
# Calibrated values (second) at raw values (first), with straight lines between them.
CalibrationCurve = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Calibration:
    """A fitted map of probabilities.

    The scaling methods score A and B by `power_answer` ln P(A) and `power_answer` ln P(B). They score a tie by
    `power_tie` ln P(tie) + `bias_tie`. Isotonic reads each probability off the curve of its class.
    """

    method: CalibrationMethod = "none"
    power_answer: float = 1.0
    power_tie: float = 1.0
    bias_tie: float = 0.0
    curve_answer: CalibrationCurve | None = None
    curve_tie: CalibrationCurve | None = None

    def apply(self, probabilities: Probabilities) -> Probabilities:
        """Return calibrated probabilities (n, 3). None is 0 or 1."""
        if self.method == "none":
            return clip_to_simplex(probabilities)
        if self.curve_answer is not None and self.curve_tie is not None:
            curves = (self.curve_answer, self.curve_answer, self.curve_tie)
            read = np.stack([np.interp(probabilities[:, n], *curve) for n, curve in enumerate(curves)], axis=1)
            renormalized: Probabilities = read / read.sum(axis=1, keepdims=True)
            return renormalized
        powers = np.array([self.power_answer, self.power_answer, self.power_tie])
        return clip_to_simplex(softmax(np.log(clip_to_simplex(probabilities)) * powers + [0.0, 0.0, self.bias_tie]))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration whose fields JSON holds."""
        curves = {
            name: None if values[name] is None else tuple(map(tuple, values[name]))
            for name in ("curve_answer", "curve_tie")
        }
        return cls(**{**values, **curves})


UNCALIBRATED: Final = Calibration()


def fit_calibration(method: CalibrationMethod, probabilities: Probabilities, labels: Labels) -> Calibration:
    """Return the calibration with the least log loss on probabilities (n, 3) that did not see their labels.

    `temperature` has one power for all classes. `vector` (Guo et al. 2017, "On Calibration of Modern Neural Networks")
    has one power for the answers, one for ties, and a bias of ties. `isotonic` fits scikit-learn's to each class
    against the others (Zadrozny and Elkan 2002) and renormalizes.
    """
    if method == "none":
        return UNCALIBRATED
    if method == "isotonic":
        return _fit_isotonic(probabilities, labels)
    from scipy.optimize import minimize

    logs = np.log(clip_to_simplex(probabilities))
    rows = np.arange(len(labels))
    votes = np.eye(3)[labels]

    def powers_and_bias(values: Doubles) -> tuple[float, float, float]:
        return (values[0], values[0], 0.0) if method == "temperature" else (values[0], values[1], values[2])

    def loss(values: Doubles) -> tuple[float, Doubles]:
        answer, tie, bias = powers_and_bias(values)
        shares = softmax(logs * [answer, answer, tie] + [0.0, 0.0, bias])
        errors = shares - votes
        slopes = (errors * logs).mean(axis=0)
        by_power, by_tie = slopes[0] + slopes[1], slopes[2]
        gradient = [by_power + by_tie] if method == "temperature" else [by_power, by_tie, errors[:, 2].mean()]
        return float(-np.log(np.maximum(shares[rows, labels], EPSILON)).mean()), np.array(gradient)

    # A power below 0 would reverse the order of the predictions.
    start, least = ([1.0], [0.0]) if method == "temperature" else ([1.0, 1.0, 0.0], [0.0, 0.0, -np.inf])
    optimum = minimize(loss, np.array(start), jac=True, method="L-BFGS-B", bounds=[(low, None) for low in least])
    answer, tie, bias = powers_and_bias(optimum.x)
    return Calibration(method, float(answer), float(tie), float(bias))


def _fit_isotonic(probabilities: Probabilities, labels: Labels) -> Calibration:
    """Fit the curves of answers and ties. Their ends stay off 0 and 1 by what one more vote would change."""
    from sklearn.isotonic import IsotonicRegression

    def curve(raw: Doubles, hits: Mask) -> CalibrationCurve:
        edge = 1 / (len(hits) + 2)
        fitted = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(raw, hits)
        return tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())

    answers = curve(
        np.concatenate([probabilities[:, 0], probabilities[:, 1]]), np.concatenate([labels == 0, labels == 1])
    )
    return Calibration("isotonic", curve_answer=answers, curve_tie=curve(probabilities[:, 2], labels == 2))


def cross_calibrate(method: CalibrationMethod, probabilities: Probabilities, votes: Votes) -> Probabilities:
    """Return calibrated probabilities (n, 3). The calibration of each fold is fitted on the other folds."""
    calibrated = np.empty_like(probabilities)
    for fold in np.unique(votes.folds):
        held_out = votes.folds == fold
        calibration = fit_calibration(method, probabilities[~held_out], votes.labels[~held_out])
        calibrated[held_out] = calibration.apply(probabilities[held_out])
    return calibrated


@dataclass(frozen=True)
class MethodScore:
    """The mean log loss of a method, and the standard error of its difference from the best method's."""

    log_loss: float
    standard_error: float


def compare_methods(
    losses: Mapping[CalibrationMethod, Doubles], groups: Groups
) -> dict[CalibrationMethod, MethodScore]:
    """Return the scores of methods from their records' held-out losses (n,); records of one group are dependent."""
    best = min(losses, key=lambda method: float(losses[method].mean()))
    return {
        method: MethodScore(float(values.mean()), standard_error(values - losses[best], groups))
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
