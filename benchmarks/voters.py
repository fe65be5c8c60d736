"""Compare what votes of several people on a pair are worth: models of voters, the human ceiling, all votes or majority.

Run as: python -m benchmarks.voters --votes votes.parquet
        python -m benchmarks.voters --majority majority.csv --voters voters.csv

The first command takes one vote a row, with a pair_id and a voter. It predicts held-out votes by models of the voters
alone. Then it runs a config on all votes and prints its log loss per vote, the class prior's and the human ceiling.
Then it holds out people: the config trains on the votes of others, with and without `data.voters.model=reliability`,
and is judged by the held-out people's votes on prompts that it has not seen.

The second command takes a file of majorities and one of its voters (id, voter, verdict). It trains on the majorities,
and on all votes. Both are judged by all votes on prompts that they have not seen.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.featurize import ROOT
from metrics.intervals import bootstrap_means, percentile_interval
from votes.reliability import fit_reliability

LABELS = {"model_a": 0, "model_b": 1, "tie": 2}
PROBABILITIES = ["p_a", "p_b", "p_tie"]
Losses = npt.NDArray[np.float64]


def main() -> None:
    """Run the comparisons that the files allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", help="one vote a row: pair_id, voter, prompt, response_a, response_b, winner")
    parser.add_argument("--majority", help="one pair a row, in the Kaggle shape")
    parser.add_argument("--voters", help="votes on the pairs of --majority: id, voter, verdict")
    parser.add_argument("--config", default=str(ROOT / "configs/best.yaml"))
    parser.add_argument("--divisions", type=int, default=3, help="parts into which people are divided")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.votes:
            votes = pd.read_parquet(options.votes)
            _compare_models_of_voters(votes)
            _compare_with_ceiling(Path(name), options)
            _compare_on_held_out_people(Path(name), votes, options)
        if options.majority:
            _compare_votes_with_majority(Path(name), options)


def _compare_models_of_voters(votes: pd.DataFrame) -> None:
    """Print the log loss of predicting held-out votes from the other votes, in five parts."""
    labels = votes["winner"].map(LABELS).to_numpy()
    pairs, voters = (votes[name].astype("category").cat.codes.to_numpy() for name in ("pair_id", "voter"))
    part = np.random.default_rng(0).integers(0, 5, len(votes))
    shared = {f"reliability, {count} shared votes": count for count in (1, 5, 20, 50)}
    names = ["class prior", "majority", *shared, *(["crowd-kit's Dawid-Skene"] if _has_crowd_kit() else [])]
    losses = {name: np.empty(len(votes)) for name in names}
    for number in range(5):
        seen, held_out = part != number, part == number
        prior = np.bincount(labels[seen], minlength=3) / seen.sum()
        counts = np.zeros((pairs.max() + 1, 3))
        np.add.at(counts, (pairs[seen], labels[seen]), 1)
        majority = (counts + 4 * prior) / (counts.sum(axis=1, keepdims=True) + 4)  # 4 is best of 1, 2, 4 and 8
        predicted = {
            "class prior": np.tile(prior, (held_out.sum(), 1)),
            "majority": majority[pairs[held_out]],
        }
        for name, count in shared.items():
            fitted = fit_reliability(pairs[seen], voters[seen], np.eye(3)[labels[seen]], count)
            predicted[name] = fitted.predict(pairs[held_out], voters[held_out])
        if _has_crowd_kit():
            predicted[names[-1]] = _predict_with_crowd_kit(pairs, voters, labels, seen)[held_out]
        for name, values in predicted.items():
            losses[name][held_out] = _loss(values, labels[held_out])
    print("held-out votes, predicted from other votes on the pairs and of the voters:")
    _print_losses(losses, votes["voter"].astype("category").cat.codes.to_numpy(), "majority", "people")


def _has_crowd_kit() -> bool:
    return importlib.util.find_spec("crowdkit") is not None


def _predict_with_crowd_kit(
    pairs: npt.NDArray[Any], voters: npt.NDArray[Any], labels: npt.NDArray[Any], seen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return the probabilities (m, 3) of all votes by crowd-kit's Dawid-Skene model, fitted to those seen.

    It gives probabilities of 0, so each voter's matrix gets a tenth of a vote for each outcome.
    """
    from crowdkit.aggregation import DawidSkene

    fitted = DawidSkene(n_iter=100).fit(pd.DataFrame({"task": pairs, "worker": voters, "label": labels})[seen])
    truth = np.tile(fitted.priors_.reindex(range(3)).to_numpy(), (pairs.max() + 1, 1))
    truth[fitted.probas_.index] = fitted.probas_.reindex(columns=range(3), fill_value=0).to_numpy()
    confusion = np.zeros((voters.max() + 1, 3, 3))
    for (voter, vote), row in fitted.errors_.iterrows():
        confusion[int(voter), row.index.astype(int), int(vote)] = row.to_numpy()
    confusion = (confusion + 0.1) / (confusion + 0.1).sum(axis=2, keepdims=True)
    predicted: npt.NDArray[np.float64] = np.einsum("mt,mtv->mv", truth[pairs], confusion[voters])
    return predicted


def _compare_with_ceiling(folder: Path, options: argparse.Namespace) -> None:
    """Print the log loss per vote of the config and the class prior, and the human ceiling, from its report."""
    _run(options.config, folder / "all", options.votes)
    voters = json.loads((folder / "all/report/metrics.json").read_text("utf-8"))["voters"]
    print(f"{voters['shared_votes']} votes on {voters['records']} pairs with several, {voters['voters']} people:")
    for name, score in voters["ceiling"].items():
        print(f"  {name:<16} {score['value']:.4f} ({score['ci95'][0]:.4f} to {score['ci95'][1]:.4f})", flush=True)


def _compare_on_held_out_people(folder: Path, votes: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print log losses on the votes of people whose votes were not trained on, with and without reliability."""
    everyone = np.random.default_rng(0).permutation(votes["voter"].unique())
    parts = []
    for number in range(options.divisions):
        people = everyone[number :: options.divisions]
        held_out = votes["voter"].isin(people)
        train = folder / f"without-{number}.parquet"
        votes[~held_out].to_parquet(train)
        judged = votes[held_out]
        for model in ("none", "reliability"):
            run = folder / f"{model}-{number}"
            _run(options.config, run, str(train), f"data.voters.model={model}")
            judged = judged.merge(_predictions(run, model), on="pair_id")
        parts.append(judged)
    judged = pd.concat(parts)
    # A pair may be shown in either order.
    other = (judged["response_a"] != judged["first_none"]).to_numpy()
    labels = np.where(other, judged["winner"].map({"model_a": 1, "model_b": 0, "tie": 2}), judged["winner"].map(LABELS))
    losses = {
        model: _loss(judged[[f"{name}_{model}" for name in PROBABILITIES]].to_numpy(), labels.astype(int))
        for model in ("none", "reliability")
    }
    print(f"{len(judged)} votes of held-out people, by weights of votes in training:")
    for name in ("voter", "prompt"):
        _print_losses(losses, judged[name].astype("category").cat.codes.to_numpy(), "none", f"{name}s")


def _compare_votes_with_majority(folder: Path, options: argparse.Namespace) -> None:
    """Print log losses on all votes after training on the majorities, and on all votes."""
    majority = pd.read_csv(options.majority, dtype={"id": str})
    voters = pd.read_csv(options.voters, dtype={"id": str})
    texts = majority[["id", "model_a", "model_b", "prompt", "response_a", "response_b"]]
    long = voters.merge(texts, on="id").rename(columns={"verdict": "winner", "id": "pair_id"})
    long.to_parquet(folder / "votes.parquet")
    judged = long
    for name, train in (("majority", options.majority), ("votes", str(folder / "votes.parquet"))):
        _run(options.config, folder / name, train)
        judged = judged.merge(_predictions(folder / name, name), on="pair_id")
    losses = {
        name: _loss(judged[[f"{column}_{name}" for column in PROBABILITIES]].to_numpy(), judged["winner"].map(LABELS))
        for name in ("majority", "votes")
    }
    print(f"{len(judged)} votes on {judged['pair_id'].nunique()} pairs, by what was trained on:")
    _print_losses(losses, judged["prompt"].astype("category").cat.codes.to_numpy(), "majority", "prompts")


def _run(config: str, run: Path, train: str, *overrides: str) -> None:
    """Run a config on some votes. Each record's prediction comes from a fold that has not seen its prompt."""
    line = [sys.executable, "-m", "ray_jobs.pipeline", "--config", config, "--quiet"]
    for override in (f"run={run}", f"data.train={train}", *overrides):
        line += ["--set", override]
    subprocess.run(line, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def _predictions(run: Path, name: str) -> pd.DataFrame:
    """Return the submitted blend's out-of-fold predictions, and the answer that is A, by pair_id."""
    blend = json.loads((run / "blend/weights.json").read_text("utf-8"))["submission"]
    predicted = pq.read_table(run / f"blend/train-{blend}.parquet").to_pandas()
    records = pq.read_table(run / "records/train", columns=["id", "response_a"]).to_pandas()
    records["first"] = records.pop("response_a").str[0]
    both = predicted.merge(records, on="id").rename(columns={"id": "pair_id"})
    names = [*PROBABILITIES, "first"]
    renamed: pd.DataFrame = both[["pair_id", *names]].rename(columns={column: f"{column}_{name}" for column in names})
    return renamed


def _loss(predicted: npt.NDArray[np.float64], labels: npt.ArrayLike) -> Losses:
    losses: Losses = -np.log(np.maximum(predicted[np.arange(len(predicted)), np.asarray(labels, int)], 1e-15))
    return losses


def _print_losses(losses: dict[str, Losses], groups: npt.NDArray[Any], base: str, over: str) -> None:
    """Print mean losses and gains over `base`, with 95% intervals by a bootstrap over groups."""
    for name, values in losses.items():
        columns = np.stack([values, losses[base] - values], axis=1)
        (low, high), (least, most) = (percentile_interval(samples) for samples in bootstrap_means(columns, groups).T)
        gain = float(columns[:, 1].mean())
        print(
            f"  {name:<27} {values.mean():.4f} ({low:.4f} to {high:.4f}), gain over {base} {gain:+.4f} "
            f"({least:+.4f} to {most:+.4f}) over {over}",
            flush=True,
        )


if __name__ == "__main__":
    main()
