"""Write a blend's outputs: weights, analysis, predictions and the submission."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from infer.ensemble.blender import Blender
from infer.ensemble.fallbacks import DEGENERATE_CASES
from metrics.scores import log_loss
from votes.predictions import predictions_table
from votes.schema import PROBABILITIES, WINNERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Probabilities
    from core.run import Run
    from core.stage import Stage
    from infer.ensemble.analysis import ScoredBlends
    from infer.ensemble.fallbacks import Fallback
    from infer.ensemble.fit import BlendInputs
    from infer.ensemble.record_facts import RecordFacts
    from votes.arrays import Votes
    from votes.records import Records

WEIGHTS, ANALYSIS = "weights.json", "analysis.json"


def blend_metrics(scored: ScoredBlends, training: BlendInputs, prior: Probabilities) -> dict[str, Any]:
    """Return the log loss, weights and pool of each blend, and the log loss of the class prior.

    The prior without sides gives A and B the same probability, as models do that see both orders of the answers.
    """
    votes = training.votes
    without_sides = prior.copy()
    without_sides[:, :2] = prior[:, :2].mean(axis=1, keepdims=True)
    blenders = {name: blend.fitted.blender for name, blend in scored.blends.items()}
    return {
        "oof_log_loss": {
            name: log_loss(blend.nested.blend, votes.labels, votes.weights) for name, blend in scored.blends.items()
        },
        "weights": {
            name: dict(zip(blender.models, blender.weights, strict=True)) for name, blender in blenders.items()
        },
        "pools": {name: blender.pool for name, blender in blenders.items()},
        "class_prior": log_loss(prior, votes.labels, votes.weights),
        "class_prior_without_sides": log_loss(without_sides, votes.labels, votes.weights),
    }


def describe_fallbacks(fallbacks: Sequence[Fallback], test: RecordFacts | None) -> list[dict[str, Any]]:
    """Return the fallbacks in the format of analysis.json, with the number of test records of each case."""
    described = []
    for fallback in fallbacks:
        fields = dataclasses.asdict(fallback)
        train_records = fields.pop("records")
        in_test = 0 if test is None else int((test.cases == DEGENERATE_CASES.index(fallback.case)).sum())
        described.append({"train_records": train_records, "test_records": in_test, **fields})
    return described


def write_oof_predictions(stage: Stage, records: Records, votes: Votes, scored: ScoredBlends) -> set[str]:
    """Write the out-of-fold predictions of each blend. Return the names of the files."""
    ids, folds = records.read("train", ["id"])["id"], records.folds()
    tables = {
        f"train-{name}.parquet": predictions_table(ids, blend.nested.blend[votes.first], folds)
        for name, blend in scored.blends.items()
    }
    for file, table in tables.items():
        stage.folder.write_table(file, table, stage.fingerprint)
    return set(tables)


def write_test_predictions(
    stage: Stage, records: Records, blender: Blender, of_models: Probabilities, facts: RecordFacts, form: str
) -> Probabilities:
    """Write predictions.parquet and submission.csv of the test records. Return the blend (n, k) of the models.

    `form` is blend.submission_format.
    """
    blended = blender.predict(of_models, facts)
    ids = records.read("test", ["id"])["id"]
    by_name = {**dict(zip(blender.models, of_models, strict=True)), "blend": blended}
    stage.folder.write_table("predictions.parquet", _side_by_side(ids, by_name), stage.fingerprint)
    stage.folder.write_bytes("submission.csv", submission(ids, blended, form))
    return blended


def load_blender(run: Run) -> Blender:
    """Return the blender of a finished run. Raises FileNotFoundError if the run has no blend."""
    return Blender.from_json((run.folder / "blend").read_json(WEIGHTS)["blender"])


def _side_by_side(ids: pa.ChunkedArray, by_name: Mapping[str, Probabilities]) -> pa.Table:
    """Return the probabilities of models and blend in one table; null where a model lacks a record."""
    columns = {
        f"{name}_{column}": pa.array(values[:, n], from_pandas=True)
        for name, values in by_name.items()
        for n, column in enumerate(PROBABILITIES[: values.shape[1]])
    }
    return pa.table({"id": ids, **columns})


def submission(ids: pa.ChunkedArray, probabilities: Probabilities, form: str = "auto") -> bytes:
    """Return the competition's file, one line per test record in input order. `form` is blend.submission_format.

    Raises RuntimeError if the values are not probabilities.
    """
    inside = (probabilities > 0) & (probabilities < 1)
    if len(probabilities) != len(ids) or not inside.all() or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-9:
        raise RuntimeError("the blend returned values that are not probabilities")
    classes = probabilities.shape[1]
    header: tuple[str, ...] = WINNERS[:classes]
    rows: list[list[Any]] = probabilities.tolist()
    if form == "winner" or (form == "auto" and classes == 2):
        header = ("winner",)
        rows = [[WINNERS[best].removeprefix("winner_")] for best in probabilities.argmax(axis=1)]
    text = io.StringIO(newline="")
    # Before Python 3.11.9 the csv module does not quote a carriage return alone, which readers take for a line's end.
    odd = any("\r" in record_id for record_id in ids.to_pylist())
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if odd else csv.QUOTE_MINIMAL)
    writer.writerow(("id", *header))
    writer.writerows([record_id, *row] for record_id, row in zip(ids.to_pylist(), rows, strict=True))
    return text.getvalue().encode()
