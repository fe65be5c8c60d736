"""Measure ratings: against arena-rank, their coverage, what predictions are worth, and how time and memory grow.

Run as: python -m benchmarks.leaderboard arena --votes a.csv --votes b.parquet --environment DIR
        python -m benchmarks.leaderboard coverage
        python -m benchmarks.leaderboard draws --votes votes.parquet --judges verdicts.csv
        python -m benchmarks.leaderboard scale --votes-at 1000000 10000000

`arena` installs arena-rank in an environment of its own, and prints the largest differences of ratings and intervals.
`coverage` draws votes from known ratings and counts how often intervals hold the truth. `draws` rates models from a
few of the votes, with predictions by judges and texts that were trained on these votes alone; it compares with the
ratings of all other votes. `scale` rates generated battles.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.featurize import ROOT
from core.registry import RATING_MODELS
from core.run import Run
from core.settings.boosters import Booster
from core.settings.loader import load_settings
from featurize.store import FeatureStore
from infer.ensemble.fit import BlendInputs, BlendRecipe, fit_blend, nested_parts, predict_nested
from infer.ensemble.record_facts import read_record_facts
from infer.judges.calibration import fit_calibration_of_judge
from infer.judges.models import judge_models, out_of_fold
from leaderboard.battles import Battles, battles_from_table, three_outcomes
from leaderboard.fit import Likelihood, fit_ratings, pair_weights
from leaderboard.hierarchical import hierarchical_ratings
from leaderboard.powered import powered_ratings
from leaderboard.ranks import simultaneous_ranks
from leaderboard.rating_model import probabilities_of
from leaderboard.style import standardize
from leaderboard.tables import SCALE, win_rate_intervals
from train.boosters.engines.linear import SwapColumns, TwoPartModel, _dense
from train.boosters.load import load_data
from votes.arrays import Votes
from votes.records import open_records
from votes.verdicts.evidence import Scale, evidence_by_judge
from votes.verdicts.joined import open_verdicts, with_judges

if TYPE_CHECKING:
    import pandas as pd

    from core.arrays import Doubles, Mask, Probabilities
    from leaderboard.fit import RatingFit
    from train.boosters.data import BoosterData
    from votes.records import Records

OUTCOMES = ("model_a", "model_b", "tie")
_ARENA_RIDGE = 1e-5  # of arena-rank on the Hessian of a mean over votes
_STYLE_PENALTY = 1.0  # arena-rank's default
_NORMAL = 1.959963984540054
_BT = RATING_MODELS.get("bradley_terry")


def main() -> None:
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    arena = parts.add_parser("arena")
    arena.add_argument("--votes", action="append", required=True)
    arena.add_argument("--environment", required=True, help="folder of the environment; made if absent")
    coverage = parts.add_parser("coverage")
    coverage.add_argument("--repetitions", type=int, default=1000)
    coverage.add_argument("--votes-at", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    draws = parts.add_parser("draws")
    draws.add_argument("--votes", required=True, help="one vote a row, of several people on a pair")
    draws.add_argument("--judges", required=True)
    draws.add_argument("--config", default=str(ROOT / "configs/best.yaml"))
    draws.add_argument("--draws", type=int, default=50)
    draws.add_argument("--votes-at", type=int, nargs="+", default=[250, 1000])
    draws.add_argument("--run", help="folder of the run, which is kept; by default it is removed")
    scale = parts.add_parser("scale")
    scale.add_argument("--votes-at", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    scale.add_argument("--models", type=int, default=300)
    options = parser.parse_args()
    {"arena": _arena, "coverage": _coverage, "draws": _draws, "scale": _scale}[options.part](options)


def _arena(options: argparse.Namespace) -> None:
    """Print the differences from arena-rank, in rating points."""
    python = Path(options.environment) / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", options.environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "arena-rank==0.1.1"], check=True)
    print("largest differences from arena-rank 0.1.1, in rating points; its Hessian has a ridge, so intervals are")
    print("compared with its ridge and formula, and the last column says what these change in our intervals")
    print(f"{'votes':28} {'weights':8} {'rating':>9} {'interval':>9} {'by ridge':>9} {'ours s':>7} {'theirs s':>8}")
    for path in options.votes:
        battles, table = _vote_table(path)
        with tempfile.TemporaryDirectory() as name:
            given, out = f"{name}/battles.npz", f"{name}/ratings.npz"
            np.savez(given, style=battles.style, reg=_STYLE_PENALTY, **table)
            side = str(ROOT / "benchmarks/arena_rank_side.py")
            subprocess.run([python, side, given, out], check=True)
            theirs = dict(np.load(out))
        for weights in ("votes", "pairs", "style"):
            _compare_with_arena(Path(path).name, battles, weights, theirs)


def _vote_table(path: str) -> tuple[Battles, dict[str, Any]]:
    """Return the battles of a file in the Kaggle shape or with a winner, with one row for each vote."""
    import pandas as pd

    votes = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path)
    if "winner" in votes:
        outcome = votes["winner"].map({name: n for n, name in enumerate(OUTCOMES)}).to_numpy()
    else:
        outcome = votes[[f"winner_{name}" for name in OUTCOMES]].to_numpy().argmax(axis=1)
    kept = (votes["model_a"] != votes["model_b"]).to_numpy()
    votes, outcome = votes[kept], outcome[kept]
    models = sorted({*votes["model_a"], *votes["model_b"]})
    place = {name: n for n, name in enumerate(models)}
    first, second = (votes[name].map(place).to_numpy() for name in ("model_a", "model_b"))
    lengths = [votes[name].str.len().to_numpy().astype(float) for name in ("response_a", "response_b")]
    style = np.stack([(lengths[0] - lengths[1]) / (lengths[0] + lengths[1] + 1), _lines(votes)], axis=1)
    size = len(votes)
    battles = Battles(tuple(models), first, second, np.eye(3)[outcome], np.arange(size), standardize(style))
    # Names that sort as the numbers do.
    names = {"first": [f"{n:06}" for n in first], "second": [f"{n:06}" for n in second]}
    return battles, {**names, "outcome": outcome}


def _lines(votes: pd.DataFrame) -> Doubles:
    a, b = (np.log1p(votes[name].str.count("\n").to_numpy().astype(float)) for name in ("response_a", "response_b"))
    return np.asarray(a - b)


def _compare_with_arena(name: str, battles: Battles, kind: str, theirs: dict[str, Any]) -> None:
    """Print one line: our ratings and intervals less those of arena-rank."""
    styled = kind == "style"
    battles = battles if styled else dataclasses.replace(battles, style=np.empty((len(battles), 0)))
    weights = pair_weights(battles) if kind == "pairs" else None
    started = time.perf_counter()
    penalty = _STYLE_PENALTY if styled else 0.0
    fit = fit_ratings(battles, _BT, shrinkage=0.0, weights=weights, style_penalty=penalty)
    seconds = time.perf_counter() - started
    # arena-rank's sandwich: a ridge on the Hessian, which leaves the penalty on style out, and its own correction.
    given = np.ones(len(battles)) if weights is None else weights
    likelihood = Likelihood(battles.with_counts(battles.counts * given[:, None]), _BT)
    point = np.concatenate([fit.ratings, fit.style])
    hessian, meat = likelihood.hessian(point), likelihood.meat_of_votes(point, given)
    scale = 1.0
    if kind == "pairs":
        pair, low, _ = battles.pair_index()
        counted = np.bincount(pair, battles.votes, len(low))
        scale = float((1 / np.maximum(counted[pair], 50)).mean())  # its weights do not have the mean 1
    if styled:
        pulled = np.concatenate([np.zeros(len(fit.ratings)), fit.style])
        meat = meat - _STYLE_PENALTY**2 * np.outer(pulled, pulled)
    ridge = _ARENA_RIDGE / scale if kind == "pairs" else _ARENA_RIDGE * len(battles)
    inverse = np.linalg.inv(hessian + ridge * np.eye(len(hessian)))
    m = len(fit.ratings)
    ratings = 1000 + SCALE * fit.ratings
    half = _NORMAL * SCALE * np.sqrt(np.diag(inverse @ meat @ inverse))[:m]
    own = _NORMAL * SCALE * np.sqrt(np.diag(fit.rating_covariance))
    differences = (
        np.abs(ratings - theirs[f"{kind}_rating"]).max(),
        max(
            np.abs(ratings - half - theirs[f"{kind}_lower"]).max(),
            np.abs(ratings + half - theirs[f"{kind}_upper"]).max(),
        ),
        np.abs(half - own).max(),
    )
    texts = " ".join(f"{value:9.1e}" for value in differences)
    print(f"{name:28} {kind:8} {texts} {seconds:7.3f} {float(theirs[f'{kind}_seconds']):8.2f}", flush=True)


def _coverage(options: argparse.Namespace) -> None:
    """Print how often 95% intervals hold the truth, for 20 models with known ratings."""
    count = 20
    truth = np.random.default_rng(123).normal(scale=0.6, size=count)
    truth -= truth.mean()
    rank = 1 + (truth[None, :] > truth[:, None]).sum(axis=1)
    upper = np.triu_indices(count, 1)
    leads = truth[:, None] - truth[None, :]
    print(f"{options.repetitions} repetitions, {count} models; the share of intervals that hold the truth:")
    print(
        f"{'model':14} {'shrinkage':9} {'votes':>6} {'ratings':>8} {'differences':>11} {'all ranks':>9} {'width':>10}"
    )
    for name in ("davidson", "rao_kupper"):
        model = RATING_MODELS.get(name)
        for shrinkage in (0.0, None):
            for votes in options.votes_at:
                hits = []
                for repetition in range(options.repetitions):
                    rng = np.random.default_rng(repetition)
                    first = rng.integers(0, count, votes)
                    second = (first + rng.integers(1, count, votes)) % count
                    chances = probabilities_of(model, truth[first] - truth[second], -0.4)
                    outcome = (rng.random(votes)[:, None] > chances.cumsum(axis=1)[:, :2]).sum(axis=1)
                    models = tuple(map(str, range(count)))
                    battles = Battles(models, first, second, np.eye(3)[outcome], np.arange(votes), np.empty((votes, 0)))
                    fit = fit_ratings(battles, model, shrinkage=shrinkage)
                    half = fit.quantile * np.sqrt(np.diag(fit.rating_covariance))
                    lead = fit.ratings[:, None] - fit.ratings[None, :]
                    ranks = simultaneous_ranks(fit)
                    hits.append(
                        (
                            (np.abs(fit.ratings - truth) <= half).mean(),
                            (np.abs(lead - leads) <= fit.quantile * fit.difference_errors())[upper].mean(),
                            ((ranks.lower <= rank) & (rank <= ranks.upper)).all(),
                            (ranks.upper - ranks.lower).mean(),
                        )
                    )
                ratings, differences, together, width = np.mean(hits, axis=0)
                kind = "learned" if shrinkage is None else "none"
                print(
                    f"{name:14} {kind:9} {votes:6} {ratings:8.3f} {differences:11.3f} {together:9.3f} {width:10.1f}",
                    flush=True,
                )


@dataclasses.dataclass(frozen=True)
class _Campaign:
    """All that is known of a campaign but the votes that are drawn: battles, features, verdicts, and every ballot."""

    battles: Battles
    data: BoosterData  # a row for each record
    evidence: dict[str, Any]  # by judge's model
    folds: Any  # (n,)
    facts: Any
    record_of: Any  # (ballots,) record of each ballot
    ballots: Doubles  # (ballots, k)
    classes: int


def _draws(options: argparse.Namespace) -> None:
    """Print how near the ratings of few votes come to those of all other votes, by method."""
    from scipy.stats import spearmanr

    with tempfile.TemporaryDirectory() as name:
        campaign = _read_campaign(options, Path(options.run or f"{name}/run"))
    for size in options.votes_at:
        measured: dict[str, list[tuple[float, ...]]] = {}
        for draw in range(options.draws):
            chosen = np.random.default_rng(draw).permutation(len(campaign.ballots)) < size
            battles, rest = (_with_ballots(campaign, rows) for rows in (chosen, ~chosen))
            predicted = _predict_without(campaign, battles)
            truth = fit_ratings(rest.take(rest.votes > 0), _BT, shrinkage=0.0)
            voted = battles.take(battles.votes > 0)
            fits = {
                "votes, maximum likelihood": fit_ratings(voted, _BT, shrinkage=0.01, clusters="prompts"),
                "votes": fit_ratings(voted, _BT, clusters="prompts"),
                "powered": powered_ratings(battles, predicted, _BT).fit,
                "hierarchical": hierarchical_ratings(battles, predicted, _BT).fit,
                "predictions alone": fit_ratings(battles.with_counts(predicted), _BT, shrinkage=0.0),
            }
            for method, fit in fits.items():
                correlation = float(spearmanr(fit.ratings, truth.ratings).statistic)
                measured.setdefault(method, []).append((correlation, *_intervals_against(fit, truth)))
        print(f"{size} votes, mean of {options.draws} draws (standard deviation):")
        print(f"  {'':26} {'Spearman':>15} {'coverage':>9} {'with its noise':>14} {'width':>7}")
        for method, values in measured.items():
            mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
            numbers = f"{mean[0]:7.3f} ({spread[0]:.3f}) {mean[1]:9.3f} {mean[2]:14.3f} {mean[3]:7.3f}"
            print(f"  {method:26} {numbers}", flush=True)
        widths = {method: float(np.mean(values, axis=0)[3]) for method, values in measured.items()}
        print(f"  intervals of win rates are {1 - widths['hierarchical'] / widths['votes']:.0%} narrower than by votes")


def _read_campaign(options: argparse.Namespace, folder: Path) -> _Campaign:
    """Make the features and verdicts of a run, and read them."""
    overrides = [
        f"run={folder}",
        f"data.train={options.votes}",
        "data.test=null",
        f"judges=[{{path: {options.judges}}}]",
    ]
    sets = [part for override in overrides for part in ("--set", override)]
    for job in ("ingest", "featurize", "train_judges"):
        line = [sys.executable, "-m", f"ray_jobs.{job}", "--config", options.config, "--quiet"]
        subprocess.run([*line, *sets], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    run = Run(load_settings(Path(options.config).read_text(), options.config, overrides))
    records = open_records(run)
    run = with_judges(run, records)
    verdicts = open_verdicts(run, records)
    assert verdicts is not None
    train = verdicts.read("train")
    scales = {judge: Scale.of(train.filter(_equal(train, judge))) for judge in verdicts.judges.values()}
    by_judge = evidence_by_judge(train, records.rows("train"), scales)
    linear = next(booster for booster in run.settings.boosters if booster.engine == "linear")
    ballots = records.ballots()
    assert ballots is not None
    return _Campaign(
        battles=battles_from_table(
            records.read("train", ["model_a", "model_b", "group"]), records.vote_counts()
        ).battles,
        data=_features_of_records(run, records, linear),
        evidence={model.name: model.evidence(by_judge) for model in judge_models(verdicts)},
        folds=records.folds(),
        facts=read_record_facts(records, ["train"])["train"],
        record_of=ballots["record"].to_numpy(),
        ballots=np.array(ballots["votes"].to_pylist()),
        classes=records.classes,
    )


def _equal(table: Any, judge: str) -> Any:  # noqa: ANN401 - Arrow
    import pyarrow.compute as pc

    return pc.equal(table["judge"], judge)


def _features_of_records(run: Run, records: Records, booster: Booster) -> BoosterData:
    data = load_data(FeatureStore.open(run, records), records, booster.features)
    if data.records is None:
        return data
    first = np.flatnonzero(np.diff(data.records, prepend=-1) > 0)
    return dataclasses.replace(
        data, features=data.features.rows(first), folds=data.folds[first], records=None, weights=None
    )


def _with_ballots(campaign: _Campaign, chosen: Mask) -> Battles:
    counts = np.zeros((len(campaign.battles), campaign.classes))
    np.add.at(counts, campaign.record_of[chosen], campaign.ballots[chosen])
    return campaign.battles.with_counts(three_outcomes(counts))


def _predict_without(campaign: _Campaign, battles: Battles) -> Probabilities:
    """Return the outcomes (n, 3) that a blend of texts and judges predicts, trained on the drawn votes alone.

    Predictions of voted records are nested; those of others are by models of all folds, as in a run.
    """
    rows, labels = np.nonzero(battles.counts > 0)
    folds = campaign.folds
    parts = nested_parts(folds[rows], battles.groups[rows])
    votes = Votes(labels.astype(np.int8), folds[rows], battles.groups[rows], battles.counts[rows, labels], rows)
    names = ("linear", *campaign.evidence)
    of_models = [_linear(campaign, votes)]
    for evidence in campaign.evidence.values():
        own = out_of_fold(evidence, votes, folds)
        unvoted = battles.votes == 0
        whole = fit_calibration_of_judge(evidence.take(votes.records), votes)
        own[unvoted] = whole.predict(evidence)[unvoted]
        of_models.append(own)
    stacked = np.stack(of_models)
    inputs = BlendInputs(
        names,
        np.take(stacked, rows, axis=1),
        dataclasses.replace(votes, folds=parts, records=np.unique(rows, return_inverse=True)[1]),
        campaign.facts.take(rows),
        judges=tuple(campaign.evidence),
    )
    recipe = BlendRecipe("learned", "auto")
    predicted = fit_blend(inputs, recipe).blender.predict(stacked, campaign.facts)
    predicted[rows] = predict_nested(inputs, recipe).blend
    return three_outcomes(predicted)


def _linear(campaign: _Campaign, votes: Votes) -> Probabilities:
    """Return the linear model's predictions (n, 3): out-of-fold where there are votes, else the mean of all folds."""
    from train.boosters.data import TrainingRows
    from train.boosters.engines.linear import _DEFAULTS

    data = campaign.data
    columns = SwapColumns.from_exchange(data.permutation, data.signs)
    dense = _dense(data.features)
    total, own = np.zeros((len(dense), 3)), np.full((len(dense), 3), np.nan)
    folds = np.unique(campaign.folds)
    for fold in folds:
        rows = votes.folds != fold
        chosen = votes.records[rows]
        training = TrainingRows(data.features.rows(chosen), votes.labels[rows], votes.weights[rows].astype(np.float32))
        predicted = TwoPartModel.fit(training, 3, columns, _DEFAULTS).predict(dense)
        total += predicted
        own[campaign.folds == fold] = predicted[campaign.folds == fold]
    voted = np.isin(np.arange(len(dense)), votes.records)
    return np.where(voted[:, None], own, total / len(folds))


def _intervals_against(fit: RatingFit, truth: RatingFit) -> tuple[float, float, float]:
    """Return the coverage of win rates between two models, with the noise of the truth, and the mean width."""
    upper = np.triu_indices(len(fit.ratings), 1)
    low, high = win_rate_intervals(fit)
    rates = truth.win_rates()
    inside = ((low <= rates) & (rates <= high))[upper].mean()
    difference = (fit.ratings[:, None] - fit.ratings[None, :]) - (truth.ratings[:, None] - truth.ratings[None, :])
    error = np.sqrt(fit.difference_errors() ** 2 + truth.difference_errors() ** 2)
    return (
        float(inside),
        float((np.abs(difference) <= fit.quantile * error)[upper].mean()),
        float((high - low)[upper].mean()),
    )


def _scale(options: argparse.Namespace) -> None:
    """Print time and memory of ratings with intervals on generated votes, each in a process of its own."""
    for votes in options.votes_at:
        line = [
            sys.executable,
            "-c",
            f"from benchmarks.leaderboard import rate_generated; rate_generated({votes}, {options.models})",
        ]
        subprocess.run(line, check=True, cwd=ROOT)


def rate_generated(votes: int, models: int) -> None:
    """Rate generated battles from a table of records, as the job does; print seconds and peak memory."""
    import pyarrow as pa
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    truth = rng.normal(scale=0.8, size=models)
    first = rng.integers(0, models, votes, np.int32)
    second = (first + rng.integers(1, models, votes, np.int32)) % models
    chances = probabilities_of(RATING_MODELS.get("davidson"), truth[first] - truth[second], -0.5)
    outcome = (rng.random(votes)[:, None] > chances.cumsum(axis=1)[:, :2]).sum(axis=1).astype(np.int8)
    names = pa.array([f"model {n:04}" for n in range(models)])
    table = pa.table(
        {
            "model_a": names.take(pa.array(first)),
            "model_b": names.take(pa.array(second)),
            "group": np.arange(votes) // 2,
        }
    )
    counts = np.zeros((votes, 3))
    counts[np.arange(votes), outcome] = 1
    del chances, first, second
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    battles = battles_from_table(table, counts).battles
    fit = fit_ratings(battles, _BT, clusters="prompts")
    ranks = simultaneous_ranks(fit)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    width = float((ranks.upper - ranks.lower).mean())
    agreement = float(spearmanr(fit.ratings, truth).statistic)
    print(
        f"{votes:12,} votes, {models} models: {seconds:6.1f} s, peak {peak / 2**20:.2f} GiB (the votes themselves "
        f"{made / 2**20:.2f}), Spearman with the truth {agreement:.4f}, ranks' width {width:.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
