"""Check the blend on data with known probabilities: the weight of noise, calibration, and coverage of intervals.

Run as: python -m benchmarks.blend
(about 5 minutes on a free core)

Each repetition draws 2,000 records from the demo's generator, whose true probabilities are known. It makes three
predictors: the truth with noise, the truth mis-scaled (to the power of 2.5 or 0.4, in turn), and pure noise.
The benchmark prints three things:
- the share of the learned blend's weights that noise gets;
- the nested loss of the calibrated mis-scaled predictor, less the loss of the truth;
- how often the 95% interval of the nested loss, drawn by prompts, covers the loss of the blend on 20,000 fresh records.

Blends of a nested loss are learned on nine tenths of the records, and the loss on fresh records varies, too. With
20,000 fresh records an exact interval would cover the loss on their votes in 93.8% of cases. So the benchmark also
prints the coverage of the expected loss on the fresh records, from their true probabilities. It prints the coverage
of the true probabilities as predictions, too. They learn nothing, so they show the effect of random draws.
"""

import argparse
import sys
import time

import numpy as np

from core.arrays import Groups, Probabilities
from demo.generator import SyntheticPairs, decode_turns, generate_pairs
from infer.ensemble.fit import BlendInputs, BlendRecipe, fit_blend, nested_parts, predict_nested
from infer.ensemble.pools import clip_to_simplex
from infer.ensemble.record_facts import RecordFacts
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import log_loss, record_log_loss
from votes.arrays import Votes
from votes.folds import assign_folds, prompt_group

ROWS, FRESH, REPETITIONS, FOLDS = 2000, 20_000, 100, 10
POWERS = (2.5, 0.4)


def main() -> None:
    """Measure and print. Exit 1 if noise keeps weight, or if calibration does not fix the mis-scaled predictor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=0, help="of the first repetition; later ones count up from it")
    options = parser.parse_args()
    start = time.monotonic()
    fresh = generate_pairs(FRESH, seed=0, stream="fresh")
    rows: list[tuple[float, ...]] = []
    for repetition in range(options.seed, options.seed + options.repetitions):
        rows.append(_repeat(repetition, generate_pairs(options.rows, seed=repetition), fresh))
    share, distance, covered, covered_expected, gap, covered_truth = np.array(rows).T
    print(f"{len(rows)} repetitions of {options.rows:,} records, {time.monotonic() - start:.0f} s")
    quantiles = np.quantile(share, [0.5, 0.95, 1])
    print(
        f"weight on noise: mean {share.mean():.2%}, median {quantiles[0]:.2%}, 95% quantile {quantiles[1]:.2%}, "
        f"most {quantiles[2]:.2%}; under 2% in {(share < 0.02).mean():.0%} of repetitions"
    )
    print(
        f"mis-scaled predictor, calibrated: {distance.mean():+.4f} from its best, "
        f"95% quantile {np.quantile(distance, 0.95):+.4f}, most {distance.max():+.4f}; "
        f"within 0.003 in {(distance < 0.003).mean():.0%} of repetitions"
    )
    chance = 1.96 * np.sqrt(0.95 * 0.05 / len(rows))
    print(
        f"95% intervals of the nested loss: {covered.mean():.0%} cover the loss on {FRESH:,} fresh records, "
        f"{covered_expected.mean():.0%} the expected loss there, {covered_truth.mean():.0%} the loss of the truth "
        f"(exact intervals: 95%, plus or minus {chance:.1%} by chance); "
        f"nested less expected {gap.mean():+.4f}, standard error {gap.std(ddof=1) / np.sqrt(len(gap)):.4f}"
    )
    sys.exit(0 if share.mean() < 0.02 and distance.mean() < 0.003 else 1)


def _repeat(repetition: int, pairs: SyntheticPairs, fresh: SyntheticPairs) -> tuple[float, ...]:
    """Return the weight of noise, the distance from the truth's loss, and three coverages of losses.

    The coverages are of the loss, of its expectation and of the truth's loss; before the last, nested less expected.
    """
    rng = np.random.default_rng(repetition)
    power = POWERS[repetition % len(POWERS)]
    data = _training(pairs, _predictors(pairs, power, rng), seed=repetition)
    labels = data.votes.labels
    blender = fit_blend(data, BlendRecipe("learned")).blender
    of_blend = record_log_loss(predict_nested(data, BlendRecipe("learned")).blend, labels)
    of_truth = record_log_loss(pairs.probabilities, labels)
    means = bootstrap_means(np.stack([of_blend, of_truth], axis=1), data.votes.groups, seed=repetition)
    (low, high), (low_truth, high_truth) = (percentile_interval(column) for column in means.T)
    facts = RecordFacts(np.zeros(FRESH, np.int8), np.zeros(FRESH))
    predicted = blender.predict(_predictors(fresh, power, rng), facts)
    # Every repetition draws votes of its own: one draw for all would shift all of them alike.
    votes = (rng.random(FRESH)[:, None] > fresh.probabilities.cumsum(axis=1)[:, :2]).sum(axis=1).astype(np.int8)
    on_votes = log_loss(predicted, votes)
    expected = float(-(fresh.probabilities * np.log(predicted)).sum(axis=1).mean())
    alone = predict_nested(data.only(("mis-scaled",)), BlendRecipe("linear")).blend
    return (
        blender.weights[2] / sum(blender.weights),
        log_loss(alone, labels) - of_truth.mean(),
        float(low <= on_votes <= high),
        float(low <= expected <= high),
        of_blend.mean() - expected,
        float(low_truth <= fresh.best_log_loss <= high_truth),
    )


def _predictors(pairs: SyntheticPairs, power: float, rng: np.random.Generator) -> Probabilities:
    """Return probabilities (3, n, 3): the truth with noise on its logarithms, mis-scaled, and pure noise."""
    truth = pairs.probabilities
    noisy = np.log(truth) + rng.normal(0, 0.5, truth.shape)
    scaled = [np.exp(noisy), truth**power, rng.dirichlet([1, 1, 1], size=len(truth))]
    return np.stack([clip_to_simplex(values / values.sum(axis=1, keepdims=True)) for values in scaled])


def _training(pairs: SyntheticPairs, predictions: Probabilities, seed: int) -> BlendInputs:
    prompts = pairs.table["prompt"].to_pylist()
    groups: Groups = np.array([prompt_group(decode_turns(prompt)) for prompt in prompts])
    rows = len(groups)
    parts = nested_parts(assign_folds(pairs.labels, groups, FOLDS, seed), groups)
    names = ("noisy", "mis-scaled", "noise")
    facts = RecordFacts(np.zeros(rows, np.int8), np.zeros(rows))
    votes = Votes(pairs.labels, parts, groups, np.ones(rows), np.arange(rows))
    return BlendInputs(names, predictions, votes, facts)


if __name__ == "__main__":
    main()
