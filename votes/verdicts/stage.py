"""The stage judges/: verdicts of judges, joined to the records. Each judge is a model of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from core import logs
from core.errors import InputError
from core.ray_session import run_on_worker
from core.run import StageResult
from core.stage import Stage
from votes.ingest import file_digest
from votes.verdicts.join import join_verdicts
from votes.verdicts.joined import table_settings
from votes.verdicts.tables import VerdictFile, find_verdict_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.run import Run
    from core.settings.judges import JudgeTable
    from votes.records import Records
    from votes.verdicts.join import Trained

# Part of the fingerprint. Raise it when the same tables give other verdicts.
VERSION: Final = 1


def make_verdicts(run: Run, records: Records, trained: Trained | None = None) -> StageResult:
    """Read the tables of judges and join them to the records, unless it is done.

    `trained` is of the run that predicts new pairs. Raises InputError if no verdict is on a
    training record, or if the settings name an unknown judge.
    """
    tables = run.settings.judges
    if not tables and trained is None:
        raise InputError("no tables of verdicts", "judges", "name them: judges=[{path: verdicts.csv}].")
    files = [(table, find_verdict_files(table, run.settings.data)) for table in tables]
    stage = _stage(run, records, files, trained)
    manifest = None if run.force else stage.manifest()
    cached = manifest is not None
    if manifest is None:
        for table, of_table in files:
            logs.info("judges", f"{table.path}: format {', '.join(sorted({file.format for file in of_table}))}")
        stage.begin()
        metrics = run_on_worker(run, join_verdicts, files, records, stage.folder, stage.fingerprint, trained)
        seconds = metrics.pop("seconds")
        rows = {split: sum(counts.get(split, 0) for counts in metrics["judges"].values()) for split in records.splits}
        manifest = stage.commit(
            rows={**rows, "quarantine": sum(metrics["quarantine"].values())}, metrics=metrics, seconds=seconds
        )
    if trained is not None:
        return StageResult("judges", cached, manifest, _notes_on_new_pairs(records, manifest, trained.judges))
    _require_priced_judges(tables, list(manifest["metrics"]["judges"]))
    return StageResult("judges", cached, manifest, _notes(stage, manifest))


def _require_priced_judges(tables: Sequence[JudgeTable], judges: Sequence[str]) -> None:
    """Raise InputError if a price is that of an unknown judge."""
    priced = [name for table in tables if isinstance(table.cost_per_1000, dict) for name in table.cost_per_1000]
    unknown = [name for name in priced if name not in judges]
    if unknown:
        fix = f"the judges are {', '.join(judges)}."
        raise InputError(f"a price of {unknown[0]!r}, which has no verdict", "judges.cost_per_1000", fix)


def _stage(
    run: Run,
    records: Records,
    files: Sequence[tuple[JudgeTable, Sequence[VerdictFile]]],
    trained: Trained | None,
) -> Stage:
    digests = {
        f"tables/{table}/{n}": file_digest(file.file)
        for table, (_, of_table) in enumerate(files)
        for n, file in enumerate(of_table)
    }
    return Stage(
        "judges",
        run.folder / "judges",
        settings={"version": VERSION, "tables": table_settings(run)},
        inputs={
            "records": records.fingerprint,
            **digests,
            **({} if trained is None else {"trained": trained.fingerprint}),
        },
    )


def _notes(stage: Stage, manifest: Mapping[str, Any]) -> list[str]:
    """Return how many verdicts each judge has, and what did not join."""
    metrics = manifest["metrics"]
    counted = ", ".join(f"{name} {sum(counts.values()):,}" for name, counts in metrics["judges"].items())
    notes = [f"verdicts: {counted}"]
    untrained = [name for name, counts in metrics["judges"].items() if not counts.get("train")]
    if untrained:
        notes.append(f"no model of {', '.join(untrained)}: no verdict on a training record")
    if metrics["quarantine"]:
        reasons = ", ".join(f"{count:,} x {reason}" for reason, count in metrics["quarantine"].items())
        notes.append(f"{sum(metrics['quarantine'].values()):,} rows quarantined ({reasons}): see {stage.folder}")
    if metrics["unknown_ids"]:
        notes.append(f"ids of no record, such as {', '.join(metrics['unknown_ids'])}")
    return notes


def _notes_on_new_pairs(records: Records, manifest: Mapping[str, Any], judges: Sequence[str]) -> list[str]:
    """Return how many of the new pairs each judge of the run has judged, and which judges the run does not know.

    Rows that did not join are not told: the tables may be those of the training records.
    """
    pairs, rows = manifest["metrics"]["pairs"], records.rows("test")
    notes = [f"of {rows:,} new pairs judged: {', '.join(f'{name} {pairs.get(name, 0):,}' for name in judges)}"]
    unknown = [name for name in pairs if name not in judges]
    if unknown:
        notes.append(f"not used: {', '.join(unknown)}; the run knows no such judge")
    return notes
