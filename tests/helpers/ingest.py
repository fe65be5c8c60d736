"""Ingest of one file without Ray: the same functions, one after the other."""

import json
import types
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import InputError
from core.settings.data import Data
from core.storage import Folder
from votes import ingest
from votes.plan import PlanRequest, plan_records


def ingest_here(folder: Path, path: Path, split: str = "train", **settings: Any) -> tuple[pa.Table, dict[str, Any]]:
    """Return the records of a file, and the metrics of the manifest with the quarantined rows and the format."""
    data = Data.model_validate({"folds": 2, **settings})
    run: Any = types.SimpleNamespace(settings=types.SimpleNamespace(data=data))
    files = {split: ingest.find_vote_files(run, str(path), split)}
    staged, target = Folder(str(folder / "staged")), Folder(str(folder / "records"))
    parts = ingest.read_again_where_kinds_differ(
        files, lambda items, files: [part for item in items for part in ingest.read_file(item, staged, files, 64)]
    )
    for part in parts:
        if part["error"]:
            raise InputError(*json.loads(part["error"]))
    ingest.refuse_empty(str(path), parts)
    names = {split: [part["name"] for part in parts if part["rows"]]}
    planned = plan_records(
        staged,
        PlanRequest(
            split,
            names,
            data.folds,
            0,
            str(path),
            data.outcomes,
            data.weights,
            data.voters.model == "reliability",
        ),
    )
    written = [row for shard in planned["shards"] for row in ingest.write_records(shard, staged, target, "x")]
    rejected = [staged.read_table(f"rejected/{part['name']}") for part in parts if part["quarantined"]]
    quarantine = [row for table in rejected for row in table.to_pylist()]
    voters = [target.read_table(row["voters"]) for row in written if row["voters"]]
    metrics = {**planned["metrics"], "rejected": quarantine, "format": files[split][0].format}
    metrics["ballots"] = [row for table in voters for row in table.to_pylist()]
    return pa.concat_tables([target.read_table(row["file"]) for row in written]), metrics
