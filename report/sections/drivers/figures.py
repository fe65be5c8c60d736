"""The figure of feature families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from report.figures import escape_text, join_sentences
from report.numbers import Key, marked_number
from report.svg import Axis, FigureRow, Mark, row_figure

if TYPE_CHECKING:
    from report.section import Metrics


def family_figure(metrics: Metrics, booster: str) -> Markup:
    """Return the shares of SHAP values and of gain by family of features."""
    families = metrics["importance"][booster]["families"]
    most = max(max(entry["gain_share"], entry["shap_share"]) for entry in families)
    rows, texts = [], []
    for n, entry in enumerate(families):
        keys: tuple[Key, ...] = ("importance", booster, "families", n)
        marks = [Mark("actual", (0, entry["shap_share"])), Mark("light", (0, entry["gain_share"]))]
        rows.append(FigureRow(entry["family"], marks, marked_number(metrics, ".1%", *keys, "shap_share", tag="tspan")))
        shares = [marked_number(metrics, ".1%", *keys, f"{measure}_share") for measure in ("shap", "gain")]
        texts.append(Markup("{}: SHAP {}, gain {}").format(escape_text(entry["family"]), *shares))
    title = f"Importance of each family of features to {booster}"
    axis = Axis(0, max(most, 1e-3) * 1.02, "share of mean |SHAP| and of gain", percent=True)
    return row_figure(f"families-{booster}", title, join_sentences(texts), rows, axis)
