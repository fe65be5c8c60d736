"""Measure what judges' verdicts add to a run: nested losses, gains, penalties, and verdicts that were shuffled.

Run as: python -m benchmarks.judges --votes votes.csv --judges verdicts.csv [--judges scores.csv] --config FILE

It runs the pipeline of the config with the judges. It prints the nested log loss and accuracy of the blend, and the
gain of each judge and of all of them. Then it fits the panel with other penalties, over several divisions into folds.
Then it compares the judges alone with all models. Last it gives each judge's verdicts to other records, many times:
such judges must gain nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.featurize import ROOT
from core.ray_session import connect
from core.run import Run
from core.settings.loader import load_settings
from core.settings.schema import PANEL
from infer.ensemble.fit import BlendRecipe, predict_nested
from infer.ensemble.record_facts import read_record_facts
from infer.ensemble.stage import blend_recipes, read_training
from infer.judges.models import judge_models, out_of_fold
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import accuracy, log_loss, record_log_loss
from votes.folds import assign_folds
from votes.records import open_records
from votes.verdicts.evidence import Scale, evidence_by_judge, panel_evidence
from votes.verdicts.joined import open_verdicts, with_judges

if TYPE_CHECKING:
    from infer.ensemble.fit import BlendInputs
    from votes.records import Records
    from votes.verdicts.joined import Verdicts


def main() -> None:
    """Run the pipeline and print the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", required=True)
    parser.add_argument("--judges", required=True, action="append", help="a table of verdicts; may be repeated")
    parser.add_argument("--config", default=str(ROOT / "configs/best.yaml"))
    parser.add_argument("--run", help="folder of the run, which is kept; by default it is removed")
    parser.add_argument("--penalties", type=float, nargs="*", default=[0.3, 1, 3, 10, 30])
    parser.add_argument("--divisions", type=int, default=5, help="divisions into folds for the penalties")
    parser.add_argument("--shuffles", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.run or f"{name}/run")
        tables = ", ".join(f"{{path: {table}}}" for table in options.judges)
        overrides = [f"run={folder}", f"data.train={options.votes}", "data.test=null", f"judges=[{tables}]"]
        line = [sys.executable, "-m", "ray_jobs.pipeline", "--config", options.config, "--quiet"]
        subprocess.run([*line, *(part for each in overrides for part in ("--set", each))], check=True, cwd=ROOT)
        _print_gains(folder)
        run = Run(load_settings((folder / "settings.json").read_text(), str(folder)))
        records = open_records(run)
        verdicts = open_verdicts(run, records)
        assert verdicts is not None
        _print_penalties(records, verdicts, options.penalties, options.divisions)
        connect(run)
        run = with_judges(run, records)
        training = read_training(run, records, read_record_facts(records, ["train"])["train"])
        recipe = blend_recipes(run.settings)[run.settings.blend.submission]
        _print_gain_of_texts(training, recipe)
        _print_shuffles(records, verdicts, training, recipe, options.shuffles)


def _print_gains(folder: Path) -> None:
    analysis = json.loads((folder / "blend/analysis.json").read_text())
    metrics = json.loads((folder / "report/metrics.json").read_text())
    blend = metrics["blend"]["variants"][metrics["blend"]["submission"]]
    print("out-of-fold log loss with 95% interval, and accuracy; the blend's is nested:")
    for name, model in {"blend": blend, **metrics["models"]}.items():
        print(f"  {name:20} {model['oof_log_loss']:.4f} {_text(model['ci95'])}, {model['accuracy']:.4f}")
    print("gain of each model in the blend:")
    for name, score in analysis["without"].items():
        print(f"  {name:20} {score['gain']:+.4f} {_text(score['gain_ci95'])}, without {score['oof_log_loss']:.4f}")


def _print_penalties(records: Records, verdicts: Verdicts, penalties: list[float], divisions: int) -> None:
    """Print the panel's out-of-fold loss by penalty, as the mean over divisions into folds."""
    evidence = _evidence(verdicts.read("train"), records, verdicts)
    votes = records.votes()
    groups = votes.groups[votes.first]
    labels = records.vote_counts().argmax(axis=1).astype(np.int8)
    print(f"panel by penalty, mean of {divisions} divisions into folds:")
    for penalty in penalties:
        losses = []
        for seed in range(divisions):
            folds = assign_folds(labels, groups, min(10, len(np.unique(groups))), seed)
            divided = dataclasses.replace(votes, folds=folds[votes.records])
            predicted = out_of_fold(evidence, divided, folds, penalty)[votes.records]
            rows = ~np.isnan(predicted[:, 0])
            losses.append(log_loss(predicted[rows], votes.labels[rows], votes.weights[rows]))
        print(f"  {penalty:5g}: {np.mean(losses):.4f}")


def _print_gain_of_texts(training: BlendInputs, recipe: BlendRecipe) -> None:
    """Print the nested loss of judges alone, and what the other models add to them."""
    if set(training.models) == set(training.judges):
        return
    rated = np.asarray(~np.isnan(training.only(training.judges).predictions[:, :, 0]).all(axis=0))
    rated_only = training.take(rated)
    votes = rated_only.votes
    alone = record_log_loss(predict_nested(rated_only.only(training.judges), recipe).blend, votes.labels)
    together = record_log_loss(predict_nested(training, recipe).blend[rated], votes.labels)
    gain = alone - together
    interval = percentile_interval(bootstrap_means(gain[:, None], votes.groups, votes.weights)[:, 0])
    print(f"judges alone: {votes.mean(alone):.4f}; with all models on the same votes: {votes.mean(together):.4f}")
    print(f"  gain of the other models {votes.mean(gain):+.4f} ({interval[0]:+.4f} to {interval[1]:+.4f})")


def _print_shuffles(
    records: Records, verdicts: Verdicts, training: BlendInputs, recipe: BlendRecipe, draws: int
) -> None:
    """Print the gain of judges whose verdicts were given to other records."""
    others = tuple(name for name in training.models if name not in training.judges)
    if not others:
        print("no model without judges: nothing to compare shuffled verdicts with")
        return
    votes = training.votes
    alone = predict_nested(training.only(others), recipe).blend
    before = record_log_loss(alone, votes.labels)
    print(f"without judges: {votes.mean(before):.4f}, accuracy {accuracy(alone, votes.labels, votes.weights):.4f}")
    excluding = 0
    for draw in range(draws):
        shuffled = _shuffled(verdicts.read("train"), records.rows("train"), np.random.default_rng(draw))
        after = record_log_loss(_nested_with(training, records, verdicts, shuffled, recipe), votes.labels)
        samples = bootstrap_means((before - after)[:, None], votes.groups, votes.weights, seed=draw)
        low, high = percentile_interval(samples[:, 0])
        excluding += low > 0
        print(f"  shuffled {draw:2}: gain {votes.mean(before - after):+.4f} ({low:+.4f} to {high:+.4f})", flush=True)
    print(f"{excluding} of {draws} intervals of shuffled verdicts are above 0")


def _shuffled(verdicts: pa.Table, records: int, rng: np.random.Generator) -> pa.Table:
    """Return each judge's verdicts on other records; those on one record stay together."""
    parts = []
    for judge in verdicts["judge"].unique().to_pylist():
        own = verdicts.filter(pc.equal(verdicts["judge"], judge))
        places = rng.permutation(records)
        column = own.column_names.index("record")
        parts.append(own.set_column(column, "record", pa.array(places[own["record"].to_numpy()])))
    return pa.concat_tables(parts)


def _nested_with(
    training: BlendInputs, records: Records, verdicts: Verdicts, table: pa.Table, recipe: BlendRecipe
) -> Any:  # noqa: ANN401
    """Return the nested blend (m, k) with other verdicts in place of the judges' own."""
    scales = {judge: Scale.of(table.filter(pc.equal(table["judge"], judge))) for judge in verdicts.judges.values()}
    by_judge = evidence_by_judge(table, records.rows("train"), scales)
    votes, folds = records.training_votes(), records.folds()
    predictions = training.predictions.copy()
    for model in judge_models(verdicts):
        predicted = out_of_fold(model.evidence(by_judge), votes, folds)
        predictions[training.models.index(model.name)] = predicted[training.votes.records]
    return predict_nested(dataclasses.replace(training, predictions=predictions, panels={}), recipe).blend


def _evidence(table: pa.Table, records: Records, verdicts: Verdicts) -> Any:  # noqa: ANN401 - Evidence
    scales = {judge: Scale.of(table.filter(pc.equal(table["judge"], judge))) for judge in verdicts.judges.values()}
    by_judge = evidence_by_judge(table, records.rows("train"), scales)
    judges = list(by_judge.values())
    return panel_evidence(judges) if PANEL in {model.name for model in judge_models(verdicts)} else judges[0]


def _text(interval: list[float]) -> str:
    return f"({interval[0]:.4f} to {interval[1]:.4f})"


if __name__ == "__main__":
    main()
