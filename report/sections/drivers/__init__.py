"""What drives the boosters: the importance of features and of their families."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from core.registry import SECTIONS
from report.section import ReportSection
from report.sections.drivers.figures import family_figure
from train.boosters.data import EXPLAIN_ROWS
from train.boosters.fold_files import IMPORTANCE_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.run import Run
    from report.context import ReportContext
    from report.section import Metrics

    Importances = Mapping[str, Mapping[str, list[dict[str, Any]]]]

TOP_FEATURES = 20
MIN_FAMILIES = 6  # with fewer than twice as many families as claims, chance would confirm most claims
# The families that drive the boosters according to the authors of the published notebook.
CLAIMED_FAMILIES = ("length", "vocabulary", "entities")


@SECTIONS.register
class DriversSection(ReportSection):
    """What drives the boosters."""

    name, title, order = "drivers", "Importance", 60
    summary = "Importance of feature families and features, by gain and SHAP, for each booster."
    figures = MappingProxyType({"families": family_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return importances by booster, and whether published claims about them hold here."""
        importance = _importances(context.run)
        return {"importance": importance, "drivers": check_claims(importance), "explained_rows": EXPLAIN_ROWS}


def _importances(run: Run) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return by booster its families, and its most important features, with their shares of gain and SHAP values."""
    importances = {}
    for booster in run.settings.boosters:
        folder = run.folder / f"models/{booster.name}"
        if not folder.exists(IMPORTANCE_FILE):
            continue
        table = folder.read_table(IMPORTANCE_FILE)
        total = max(pc.sum(table["shap"]).as_py(), 1e-12)
        table = table.append_column("shap_share", pc.divide(table["shap"], total))
        by_family = table.group_by("family").aggregate([("gain_share", "sum"), ("shap_share", "sum")])
        by_family = by_family.rename_columns(["family", "gain_share", "shap_share"])
        order = [("shap_share", "descending")]
        importances[booster.name] = {
            "families": by_family.sort_by(order).to_pylist(),
            "features": table.sort_by(order).slice(0, TOP_FEATURES).drop_columns(["shap"]).to_pylist(),
        }
    return importances


def check_claims(importances: Importances) -> dict[str, Any] | None:
    """Return whether the families of CLAIMED_FAMILIES drive the boosters.

    Boosters count if they see all of these families and at least MIN_FAMILIES; None if no booster counts. The share of
    a family is the mean of its shares of SHAP values over these boosters. A claim is confirmed if the family is among
    the first len(CLAIMED_FAMILIES), and has more than an equal share.
    """
    shares = [
        {entry["family"]: entry["shap_share"] for entry in importance["families"]}
        for importance in importances.values()
    ]
    shares = [share for share in shares if set(CLAIMED_FAMILIES) <= set(share) and len(share) >= MIN_FAMILIES]
    if not shares:
        return None
    families = {family for share in shares for family in share}
    means = {family: sum(share.get(family, 0.0) for share in shares) / len(shares) for family in families}
    ordered = sorted(means, key=lambda family: (-means[family], family))
    claims = [
        {
            "family": family,
            "shap_share": means[family],
            "rank": ordered.index(family) + 1,
            "confirmed": ordered.index(family) < len(CLAIMED_FAMILIES) and means[family] > 1 / len(ordered),
        }
        for family in CLAIMED_FAMILIES
    ]
    return {"families": len(ordered), "first": ordered[0], "first_shap_share": means[ordered[0]], "claims": claims}
