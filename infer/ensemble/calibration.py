"""Bringing probabilities in line with how often votes fall as predicted.

Every method treats A and B alike, as if it were fitted on each record in both orders: exchanging the answers of a
calibrated record exchanges its P(A) and P(B).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from infer.ensemble.pools import Floats, Labels, open_simplex, softmax
from metrics.intervals import standard_error
from metrics.scores import EPSILON

Method = Literal["none", "temperature", "vector", "isotonic"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)  # from the simplest on
Curve = tuple[tuple[float, ...], tuple[float, ...]]  # calibrated values (second) at raw ones (first), lines between


@dataclass(frozen=True)
class Calibration:
    """A fitted map of probabilities.

    The scaling methods set the scores of A, B and tie to `power_answer` ln P(A), `power_answer` ln P(B) and
    `power_tie` ln P(tie) + `bias_tie`; isotonic reads each probability off the curve of its class.
    """

    method: Method = "none"
    power_answer: float = 1.0
    power_tie: float = 1.0
    bias_tie: float = 0.0
    curve_answer: Curve | None = None
    curve_tie: Curve | None = None

    def apply(self, probabilities: Floats) -> Floats:
        """Calibrated probabilities (n, 3), none of them 0 or 1."""
        if self.method == "none":
            return open_simplex(probabilities)
        if self.curve_answer is not None and self.curve_tie is not None:
            curves = (self.curve_answer, self.curve_answer, self.curve_tie)
            read = np.stack([np.interp(probabilities[:, n], *curve) for n, curve in enumerate(curves)], axis=1)
            renormalised: Floats = read / read.sum(axis=1, keepdims=True)
            return renormalised
        powers = np.array([self.power_answer, self.power_answer, self.power_tie])
        return open_simplex(softmax(np.log(open_simplex(probabilities)) * powers + [0.0, 0.0, self.bias_tie]))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Calibration":
        """The calibration whose fields JSON holds."""
        curves = {
            name: None if values[name] is None else tuple(map(tuple, values[name]))
            for name in ("curve_answer", "curve_tie")
        }
        return cls(**{**values, **curves})


UNCALIBRATED: Final = Calibration()


def fit_calibration(method: Method, probabilities: Floats, labels: Labels) -> Calibration:
    """The calibration with the least log loss on probabilities (n, 3) that did not see their labels.

    `temperature` has one power for all classes, `vector` (Guo et al. 2017, "On Calibration of Modern Neural Networks")
    one for the answers, one for ties, and a bias of ties; `isotonic` fits scikit-learn's to each class against the rest
    (Zadrozny and Elkan 2002) and renormalises.
    """
    if method == "none":
        return UNCALIBRATED
    if method == "isotonic":
        return _fit_isotonic(probabilities, labels)
    from scipy.optimize import minimize

    logs = np.log(open_simplex(probabilities))
    rows = np.arange(len(labels))
    votes = np.eye(3)[labels]

    def powers_and_bias(values: Floats) -> tuple[float, float, float]:
        return (values[0], values[0], 0.0) if method == "temperature" else (values[0], values[1], values[2])

    def loss(values: Floats) -> tuple[float, Floats]:
        answer, tie, bias = powers_and_bias(values)
        shares = softmax(logs * [answer, answer, tie] + [0.0, 0.0, bias])
        errors = shares - votes
        slopes = (errors * logs).mean(axis=0)
        by_power, by_tie = slopes[0] + slopes[1], slopes[2]
        gradient = [by_power + by_tie] if method == "temperature" else [by_power, by_tie, errors[:, 2].mean()]
        return float(-np.log(np.maximum(shares[rows, labels], EPSILON)).mean()), np.array(gradient)

    # A power below 0 would reverse the order of predictions.
    start, least = ([1.0], [0.0]) if method == "temperature" else ([1.0, 1.0, 0.0], [0.0, 0.0, -np.inf])
    found = minimize(loss, np.array(start), jac=True, method="L-BFGS-B", bounds=[(low, None) for low in least])
    answer, tie, bias = powers_and_bias(found.x)
    return Calibration(method, float(answer), float(tie), float(bias))


def _fit_isotonic(probabilities: Floats, labels: Labels) -> Calibration:
    """The curves of answers and ties; their ends stay as far from 0 and 1 as one more vote to either side would."""
    from sklearn.isotonic import IsotonicRegression

    def curve(raw: Floats, hits: npt.NDArray[np.bool_]) -> Curve:
        edge = 1 / (len(hits) + 2)
        fitted = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(raw, hits)
        return tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())

    answers = curve(
        np.concatenate([probabilities[:, 0], probabilities[:, 1]]), np.concatenate([labels == 0, labels == 1])
    )
    return Calibration("isotonic", curve_answer=answers, curve_tie=curve(probabilities[:, 2], labels == 2))


def cross_calibrate(method: Method, probabilities: Floats, labels: Labels, parts: npt.NDArray[np.int16]) -> Floats:
    """Calibrated probabilities (n, 3), each part's by a calibration fitted on the other parts."""
    calibrated = np.empty_like(probabilities)
    for part in np.unique(parts):
        held_out = parts == part
        calibrated[held_out] = fit_calibration(method, probabilities[~held_out], labels[~held_out]).apply(
            probabilities[held_out]
        )
    return calibrated


@dataclass(frozen=True)
class Score:
    """How well a method does: its mean log loss, and the standard error of its difference from the best method's."""

    log_loss: float
    standard_error: float


def compare(losses: Mapping[Method, Floats], groups: npt.NDArray[np.int64]) -> dict[Method, Score]:
    """Scores of methods by their records' held-out losses (n,); records of one group are not independent."""
    best = min(losses, key=lambda method: float(losses[method].mean()))
    return {
        method: Score(float(values.mean()), standard_error(values - losses[best], groups))
        for method, values in losses.items()
    }


def choose(scores: Mapping[Method, Score]) -> Method:
    """The simplest method whose loss is within one standard error of the best (Breiman et al. 1984, section 3.4.3).

    The standard error is that of the difference: losses of single records differ far more than those of two methods
    on the same record, and with theirs no calibration would ever be chosen.
    """
    least = min(score.log_loss for score in scores.values())
    return next(
        name for name in METHODS if name in scores and scores[name].log_loss - least <= scores[name].standard_error
    )
