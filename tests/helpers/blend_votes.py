"""Votes drawn from known probabilities, and predictors of known worth."""

import numpy as np

from core.arrays import Folds, Groups, Labels, Probabilities
from demo.generator import generate_pairs
from infer.ensemble.fit import BlendInputs, nested_parts
from infer.ensemble.pools import clip_to_simplex
from infer.ensemble.record_facts import RecordFacts
from votes.arrays import Votes


def single_votes(labels: Labels, folds: Folds, groups: Groups, classes: int = 3) -> Votes:
    """One vote on each record."""
    return Votes(labels, folds, groups, np.ones(len(labels)), np.arange(len(labels)), classes)


def on(labels: Labels, folds: Folds | None = None) -> Votes:
    """One vote on each record, in ten folds unless given, each with a prompt of its own."""
    rows = np.arange(len(labels))
    return single_votes(labels, (rows % 10).astype(np.int16) if folds is None else folds, rows)


def draw(truth: Probabilities, rng: np.random.Generator) -> Labels:
    """A vote from each row of probabilities (n, 3)."""
    labels: Labels = (rng.random(len(truth))[:, None] > truth.cumsum(axis=1)[:, :2]).sum(axis=1).astype(np.int8)
    return labels


def votes(rows: int, seed: int = 0) -> tuple[Probabilities, Labels, Probabilities]:
    """True probabilities, votes drawn from them, and three predictors: near the truth, blurred, and pure noise."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet([1.5, 1.5, 1.0], size=rows)
    blurred = 0.5 * truth + 0.5 * rng.dirichlet([3, 3, 3], size=rows)
    noise = rng.dirichlet([1, 1, 1], size=rows)
    near = 0.9 * truth + 0.1 * rng.dirichlet([3, 3, 3], size=rows)
    return truth, draw(truth, rng), np.stack([near, blurred, noise])


def demo_votes(rows: int, seed: int) -> tuple[Probabilities, Labels]:
    """True probabilities and votes of the demo's generator."""
    pairs = generate_pairs(rows, seed)
    return pairs.probabilities, pairs.labels


def sharpened(probabilities: Probabilities, power: float) -> Probabilities:
    """Probabilities to a power, renormalized: mis-scaled by a temperature of 1 / power."""
    powers = probabilities**power
    return clip_to_simplex(powers / powers.sum(axis=1, keepdims=True))


def training(predictions: Probabilities, labels: Labels, seed: int = 0, degenerate: int = 0) -> BlendInputs:
    """Training records with these out-of-fold predictions of ten folds; the first `degenerate` have cases 1 to 4."""
    rows = len(labels)
    rng = np.random.default_rng(seed)
    groups = np.arange(rows)
    cases = np.where(groups < degenerate, groups // 10 % 4 + 1, 0).astype(np.int8)
    names = tuple(f"m{n}" for n in range(len(predictions)))
    parts = nested_parts((groups % 10).astype(np.int16), groups)
    facts = RecordFacts(cases, rng.uniform(-1, 1, rows))
    return BlendInputs(names, predictions, single_votes(labels, parts, groups), facts)
