"""Votes drawn from known probabilities, and predictors of known worth."""

import numpy as np

from demo.generator import generate
from infer.ensemble.fit import Training, blend_parts
from infer.ensemble.pools import Floats, Labels, open_simplex


def draw(truth: Floats, rng: np.random.Generator) -> Labels:
    """A vote from each row of probabilities (n, 3)."""
    labels: Labels = (rng.random(len(truth))[:, None] > truth.cumsum(axis=1)[:, :2]).sum(axis=1).astype(np.int8)
    return labels


def votes(rows: int, seed: int = 0) -> tuple[Floats, Labels, Floats]:
    """True probabilities, votes drawn from them, and three predictors: near the truth, blurred, and pure noise."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet([1.5, 1.5, 1.0], size=rows)
    blurred = 0.5 * truth + 0.5 * rng.dirichlet([3, 3, 3], size=rows)
    noise = rng.dirichlet([1, 1, 1], size=rows)
    near = 0.9 * truth + 0.1 * rng.dirichlet([3, 3, 3], size=rows)
    return truth, draw(truth, rng), np.stack([near, blurred, noise])


def demo_votes(rows: int, seed: int) -> tuple[Floats, Labels]:
    """True probabilities and votes of the demo's generator."""
    pairs = generate(rows, seed)
    return pairs.probabilities, pairs.labels


def sharpened(probabilities: Floats, power: float) -> Floats:
    """Probabilities to a power, renormalised: mis-scaled by a temperature of 1 / power."""
    powers = probabilities**power
    return open_simplex(powers / powers.sum(axis=1, keepdims=True))


def training(predictions: Floats, labels: Labels, seed: int = 0, degenerate: int = 0) -> Training:
    """The predictions as out-of-fold ones of ten folds; the first `degenerate` records are of cases 1 to 4 in turn."""
    rows = len(labels)
    rng = np.random.default_rng(seed)
    groups = np.arange(rows)
    cases = np.where(groups < degenerate, groups // 10 % 4 + 1, 0).astype(np.int8)
    names = tuple(f"m{n}" for n in range(len(predictions)))
    parts = blend_parts((groups % 10).astype(np.int16), groups)
    return Training(names, predictions, labels, parts, groups, cases, rng.uniform(-1, 1, rows))
