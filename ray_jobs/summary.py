"""The tables at the end of a job: what was done, and how good the models are."""

from collections.abc import Sequence

from ray_jobs.run import Run, StageResult


def print_summary(run: Run, results: Sequence[StageResult]) -> None:
    """Print stages, models with their out-of-fold log loss, and where the outputs are, on standard output."""
    stages = [
        [
            result.stage,
            ", ".join(f"{count:,} {name}" for name, count in result.manifest["rows"].items()),
            f"{result.manifest['seconds']:.1f}",
            "cached" if result.cached else "run",
        ]
        for result in results
    ]
    print(_table(["stage", "rows", "seconds", ""], stages))
    for result in results:
        for note in result.notes:
            print(f"  {result.stage}: {note}")
    report = next((result for result in results if result.stage == "report"), None)
    if report is not None:
        print()
        print(_table(["model", "out-of-fold log loss", "95% interval"], _scores(report)))
    print(f"\noutputs in {run.settings.run}: {', '.join(_outputs(results))}")


def _scores(report: StageResult) -> list[list[str]]:
    metrics = report.manifest["metrics"]
    rows = [(name, metrics["baselines"][name]) for name in metrics["baselines"]]
    rows += list(metrics["models"].items())
    rows += [(f"blend: {name}", values) for name, values in metrics["blend"]["variants"].items()]
    return [
        [name, f"{values['oof_log_loss']:.4f}", f"{values['ci95'][0]:.4f} to {values['ci95'][1]:.4f}"]
        for name, values in rows
    ]


def _outputs(results: Sequence[StageResult]) -> list[str]:
    places = {"ingest": "records/", "featurize": "features/", "blend": "blend/", "report": "report/index.html"}
    found = [places[result.stage] for result in results if result.stage in places]
    if any(result.stage == "blend" and "test" in result.manifest["rows"] for result in results):
        found.insert(0, "blend/submission.csv")
    return found or [result.manifest["stage"] for result in results]


def _table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)
