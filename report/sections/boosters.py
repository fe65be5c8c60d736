"""What the report says of boosters: what drives them, and how their settings were searched."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from core.stage import read_manifest
from train.boosters.fold_files import IMPORTANCE
from train.boosters.stages import source_weights
from tune.stage import TRIALS

if TYPE_CHECKING:
    from core.run import Run

TOP_FEATURES = 20
FEWEST_FAMILIES = 6  # among fewer than twice as many as there are claims, most would be "confirmed" by chance
# What the published notebook's authors found to drive their boosters.
CLAIMED = ("length", "vocabulary", "entities")


def importances(run: Run) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By booster: families, and the most important features, each with its share of gain and of SHAP values."""
    found = {}
    for booster in run.settings.boosters:
        folder = run.folder / f"models/{booster.name}"
        if not folder.exists(IMPORTANCE):
            continue
        table = folder.read_table(IMPORTANCE)
        total = max(pc.sum(table["shap"]).as_py(), 1e-12)
        table = table.append_column("shap_share", pc.divide(table["shap"], total))
        by_family = table.group_by("family").aggregate([("gain_share", "sum"), ("shap_share", "sum")])
        by_family = by_family.rename_columns(["family", "gain_share", "shap_share"])
        order = [("shap_share", "descending")]
        found[booster.name] = {
            "families": by_family.sort_by(order).to_pylist(),
            "features": table.sort_by(order).slice(0, TOP_FEATURES).drop_columns(["shap"]).to_pylist(),
        }
    return found


def drivers(importance: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> dict[str, Any] | None:
    """Whether the families of CLAIMED drive the boosters; None if none sees all of these and FEWEST_FAMILIES in all.

    A family's share is the mean of its shares of SHAP values over the boosters that do. A claim is confirmed if the
    family is among as many first ones as there are claims, and has more than an equal share.
    """
    shares = [{each["family"]: each["shap_share"] for each in of["families"]} for of in importance.values()]
    seeing = [share for share in shares if set(CLAIMED) <= set(share) and len(share) >= FEWEST_FAMILIES]
    if not seeing:
        return None
    families = {family for share in seeing for family in share}
    means = {family: sum(share.get(family, 0.0) for share in seeing) / len(seeing) for family in families}
    ordered = sorted(means, key=lambda family: (-means[family], family))
    claims = [
        {
            "family": family,
            "shap_share": means[family],
            "rank": ordered.index(family) + 1,
            "confirmed": ordered.index(family) < len(CLAIMED) and means[family] > 1 / len(ordered),
        }
        for family in CLAIMED
    ]
    return {"families": len(ordered), "first": ordered[0], "first_shap_share": means[ordered[0]], "claims": claims}


def feature_columns(run: Run) -> dict[str, int]:
    """Columns that boosters see by family of features."""
    manifest = read_manifest(run.folder / "features") or {}
    columns: dict[str, int] = {}
    for entry in manifest.get("catalogue", []):
        columns[entry["family"]] = columns.get(entry["family"], 0) + entry.get("columns", 1)
    return columns


def source_study(run: Run) -> dict[str, Any]:
    """By name of each other source of votes: what it is worth."""
    manifest = read_manifest(run.folder / "sources") if source_weights(run) else None
    return {} if manifest is None else dict(manifest["metrics"]["sources"])


def searches(run: Run) -> dict[str, dict[str, Any]]:
    """By booster: the trials in the order of their ends, and the best of them."""
    found = {}
    for wanted in run.settings.tune:
        folder = run.folder / f"tune/{wanted.booster}"
        manifest = read_manifest(folder)
        if manifest is None:
            continue
        rows = list(csv.DictReader(folder.read_bytes(TRIALS).decode().splitlines()))
        trials = [
            {
                "trial": int(row["trial"]),
                "at": float(row["at"]),
                "log_loss": float(row["log_loss"]),
                "rounds": int(row["rounds"]),
                "stopped": row["stopped"] == "1",
            }
            for row in rows
        ]
        ordered = sorted(trials, key=lambda trial: float(trial["at"]))
        found[wanted.booster] = {"count": len(ordered), "trials": ordered, "best": manifest["metrics"]["best"]}
    return found
