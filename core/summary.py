"""Tables at the end of a job: its stages, and the scores of the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.run import Run, StageResult


def print_summary(run: Run, results: Sequence[StageResult]) -> None:
    """Print stages, models with their out-of-fold log loss, and paths of outputs to standard output."""
    stages = [
        [
            result.stage,
            ", ".join(f"{count:,} {name}" for name, count in result.manifest["rows"].items()),
            f"{result.manifest['seconds']:.1f}",
            "cached" if result.cached else "run",
        ]
        for result in results
    ]
    if stages:
        print(_table(["stage", "rows", "seconds", ""], stages))
    for note in dict.fromkeys(f"  {result.stage}: {note}" for result in results for note in result.notes):
        print(note)
    report = next((result for result in results if result.stage == "report"), None)
    if report is not None:
        print()
        print(_table(["model", "out-of-fold log loss", "95% interval"], _scores(report)))
    print()
    for what, where in _outputs(results):
        rows = _rows_left_out(results) if what == "submission" else ""
        print(f"{what + ':':<12}{run.folder / where}{rows}")


def _scores(report: StageResult) -> list[list[str]]:
    metrics = report.manifest["metrics"]
    rows = [(name, metrics["baselines"][name]) for name in metrics["baselines"]]
    rows += list(metrics["models"].items())
    rows += [(f"blend: {name}", values) for name, values in metrics["blend"]["variants"].items()]
    return [
        [
            name + _only(values),
            f"{values['oof_log_loss']:.4f}",
            f"{values['ci95'][0]:.4f} to {values['ci95'][1]:.4f}",
        ]
        for name, values in rows
    ]


def _only(values: dict[str, Any]) -> str:
    """Return the records that a model's score covers, unless it covers all."""
    if "folds" in values:
        return f" (folds {', '.join(map(str, values['folds']))} only)"
    return f" ({values['records']:,} records)" if "records" in values else ""


def _outputs(results: Sequence[StageResult]) -> list[tuple[str, str]]:
    """Return names and paths of the outputs that a user opens next."""
    stages = {result.stage: result.manifest for result in results}
    outputs = []
    if "test" in stages.get("blend", {}).get("rows", {}):
        outputs.append(("submission", "blend/submission.csv"))
    if "predict" in stages:
        folder = f"predict/{stages['predict']['name']}"
        outputs += [("predicted", f"{folder}/predictions.parquet"), ("submission", f"{folder}/submission.csv")]
    if "report" in stages:
        outputs += [("report", "report/index.html"), ("metrics", "report/metrics.json")]
    return outputs or [("outputs", "")]


def _rows_left_out(results: Sequence[StageResult]) -> str:
    """Return how many of the rows to score have a line in the submission, if some are in quarantine."""
    for result in results:
        left_out = result.manifest["metrics"].get("quarantined", {}).get("test", 0) if result.stage == "ingest" else 0
        if left_out:
            rows = result.manifest["rows"]["test"]
            return f" ({rows:,} of {rows + left_out:,} rows)"
    return ""


def _table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)
