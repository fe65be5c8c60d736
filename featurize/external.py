"""The stage external/: numbers from the tables in `features`, joined to the records by id."""

from __future__ import annotations

import collections
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from core import logs
from core.errors import InputError
from core.filesystems import list_input_files
from core.fingerprints import table_digest
from core.ray_session import run_on_worker
from core.run import StageResult
from core.settings.features import EXTERNAL, feature_columns
from core.stage import Stage, require_stage
from votes.comparison import InvalidRow
from votes.format import ID_COLUMNS, identifier
from votes.ingest import file_digest
from votes.readers.files import ENDINGS, read_head, read_rows
from votes.readers.rows import BrokenRow, ReadOptions
from votes.verdicts.join import NO_RECORD, RecordIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.filesystems import InputFile
    from core.run import Run
    from core.settings.features import FeatureTable
    from votes.format import Row
    from votes.readers.rows import FileHead
    from votes.records import Records
    from votes.verdicts.join import Trained

# Part of the fingerprint. Raise it when the same tables give other numbers.
VERSION: Final = 1
QUARANTINED_ROWS: Final = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("id", pa.string()), ("raw", pa.string())]
)
_MODELS: Final = ("model_a", "model_b")
_EXCHANGED_VIEWS: Final = {"a": "b", "b": "a"}
_IDS_SHOWN: Final = 5
_NAMES_SHOWN: Final = 5


ViewColumns = Mapping[str, Mapping[str, str]]  # of a table, by feature and view


@dataclass(frozen=True)
class ExternalFile:
    """A file of a table: the column of its ids, and the columns of its features by view."""

    file: InputFile
    table: FeatureTable
    id: str
    columns: ViewColumns
    options: ReadOptions


def make_external(
    run: Run, records: Records, trained: Trained | None = None, columns: ViewColumns | None = None
) -> StageResult:
    """Read the tables and join their numbers to the records, unless it is done.

    For new pairs, `trained` and `columns` are of the run that predicts them; tables have its columns by default.
    """
    encoding = run.settings.data.encoding
    files = [
        find_external_file(file, table, ReadOptions(encoding), columns)
        for table in run.settings.features
        for file in list_input_files(table.path, ENDINGS)
    ]
    stage = Stage(
        EXTERNAL,
        run.folder / EXTERNAL,
        settings={
            "version": VERSION,
            "tables": _table_settings(run),
            "columns": [{"id": file.id, "columns": file.columns} for file in files],
        },
        inputs={
            "records": records.fingerprint,
            **{f"tables/{n}": file_digest(file.file) for n, file in enumerate(files)},
            **({} if trained is None else {"trained": trained.fingerprint}),
        },
    )
    manifest = None if run.force else stage.manifest()
    cached = manifest is not None
    if manifest is None:
        stage.begin()
        metrics = run_on_worker(run, _join_files, files, records, stage, trained)
        rows = {**metrics["rows"], "quarantine": sum(metrics["quarantine"].values())}
        manifest = stage.commit(rows=rows, metrics=metrics)
    return StageResult(EXTERNAL, cached, manifest, _notes(stage, records, manifest))


def read_external(run: Run, split: str, rows: int) -> pa.Table | None:
    """Return the numbers (n rows) of a split's records, null where missing; None if nothing is joined to the split."""
    name = f"{split}.parquet"
    folder = run.folder / EXTERNAL
    if not folder.exists(name):
        return None
    table = folder.read_table(name)
    if not table.num_columns:
        return None
    assert len(table) == rows
    return table


def require_external(run: Run) -> dict[str, Any]:
    """Return the manifest of a run's numbers. Raises InputError if they are not finished with these settings."""
    return require_stage(run.folder / EXTERNAL, "featurize", settings={"tables": _table_settings(run)})


def _table_settings(run: Run) -> list[dict[str, Any]]:
    """Return the settings that the numbers depend on, besides what is in the tables."""
    return [table.model_dump(mode="json", exclude={"path"}) for table in run.settings.features]


def find_external_file(
    file: InputFile, table: FeatureTable, options: ReadOptions, trained: ViewColumns | None = None
) -> ExternalFile:
    """Return a file with its columns. Raises InputError if a column that the settings name is not there."""
    head = read_head(file, options)
    names = [table.id] if table.id is not None else [name for name in ID_COLUMNS if name in head.names]
    columns: ViewColumns
    if table.columns is not None:
        columns = {name: dict(by_view.items()) for name, by_view in table.columns.items()}
    elif trained is not None:
        columns = {name: by_view for name, by_view in trained.items() if head.names >= set(by_view.values())}
    else:
        columns = feature_columns(_numeric_columns(head, names))
    named = {*names, *(column for by_view in columns.values() for column in by_view.values())}
    absent = sorted(named - head.names)
    if absent or not names or not columns:
        what = f"no column {', '.join(map(repr, absent))}" if absent else "no column with an id" if not names else None
        raise InputError(
            what or "no column with numbers",
            where=file.name,
            fix=f"name them with features.N.id and features.N.columns; the columns are "
            f"{', '.join(map(repr, sorted(head.names)))[:300]}.",
        )
    return ExternalFile(file, table, names[0], columns, options)


def _numeric_columns(head: FileHead, ids: Sequence[str]) -> list[str]:
    """Return the columns of which most first cells are numbers, in the table's order; empty cells do not count."""
    names = dict.fromkeys(name for row in head.rows for name in row)
    numeric = []
    for name in names:
        cells = [row.get(name) for row in head.rows]
        given = [cell for cell in cells if cell not in (None, "")]
        if name not in (*ID_COLUMNS, *_MODELS, *ids) and sum(map(_is_number, given)) > len(given) / 2:
            numeric.append(name)
    return numeric


def _is_number(cell: Any) -> bool:  # noqa: ANN401 - a cell
    try:
        _number({"": cell}, "")
    except InvalidRow:
        return False
    return True


def _number(row: Row, name: str) -> float:
    """Return a cell's number, nan if it is empty. Raises InvalidRow if it holds something else."""
    value = row.get(name)
    if value is None or value == "":
        return math.nan
    try:
        number = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise InvalidRow(f"{name} is not a finite number: {str(value)[:40]!r}")
    return number


@dataclass
class _Joined:
    """Numbers by split, feature and record, and rows that were not joined."""

    numbers: dict[str, dict[str, list[float]]]
    known: set[tuple[str, str, int]] = field(default_factory=set)  # feature, split, record
    joined: set[tuple[str, int]] = field(default_factory=set)
    quarantined: list[dict[str, Any]] = field(default_factory=list)

    def add_file(self, file: ExternalFile, index: RecordIndex) -> None:
        """Join the rows of a file."""
        for number, row in read_rows(file.file, file.options):
            record_id = None
            try:
                if isinstance(row, BrokenRow):
                    raise InvalidRow(row.reason)
                record_id = identifier(row.get(file.id))
                if record_id is None:
                    raise InvalidRow("missing id")
                self._add(row, record_id, file, index)
            except InvalidRow as error:
                raw = row.raw if isinstance(row, BrokenRow) else json.dumps(row, default=str)
                reason = str(error)
                self.quarantined.append(
                    {"file": file.file.name, "row": number, "reason": reason, "id": record_id, "raw": raw}
                )

    def _add(self, row: Row, record_id: str, file: ExternalFile, index: RecordIndex) -> None:
        """Add a row's numbers. Raises InvalidRow if a cell is no number, or if the record has a row already."""
        models = [None if row.get(name) is None else str(row[name]) for name in _MODELS]
        place, is_swapped = index.place(record_id, (models[0], models[1]))
        values = {
            (name, view): _number(row, column)
            for name, by_view in file.columns.items()
            for view, column in by_view.items()
        }
        keys = {(name, place.split, place.record) for name in file.columns}
        if keys & self.known:
            raise InvalidRow("another row has this id")
        self.known |= keys
        self.joined.add((place.split, place.record))
        for (name, view), value in values.items():
            target = _EXCHANGED_VIEWS.get(view, view) if is_swapped else view
            signed = -value if is_swapped and view == "difference" else value
            self.numbers[place.split][f"{name}_{target}"][place.record] = signed


def _join_files(
    files: Sequence[ExternalFile], records: Records, stage: Stage, trained: Trained | None
) -> dict[str, Any]:
    """Join all files and write the numbers. Return the manifest's metrics."""
    columns = _merged_columns(files)
    names = [f"{name}_{view}" for name, by_view in columns.items() for view in by_view]
    empty = {split: {name: [math.nan] * records.rows(split) for name in names} for split in records.splits}
    joined = _Joined(empty)
    index = RecordIndex.read(records, with_texts=False)
    for file in files:
        joined.add_file(file, index.for_table(file.table, trained))
    tables = {
        split: pa.table({name: pa.array(values, pa.float64(), from_pandas=True) for name, values in by_column.items()})
        for split, by_column in joined.numbers.items()
    }
    for split, table in tables.items():
        stage.folder.write_table(f"{split}.parquet", table, stage.fingerprint)
    quarantine = pa.Table.from_pylist(joined.quarantined, QUARANTINED_ROWS)
    stage.folder.write_table("quarantine.parquet", quarantine, stage.fingerprint)
    reasons = collections.Counter(_kind(row["reason"]) for row in joined.quarantined)
    unknown = [row["id"] for row in joined.quarantined if row["reason"] == NO_RECORD]
    return {
        "columns": columns,
        "rows": {split: sum(1 for where, _ in joined.joined if where == split) for split in records.splits},
        "quarantine": dict(reasons.most_common()),
        "unknown_ids": unknown[:_IDS_SHOWN],
        "digests": {
            **{split: table_digest(table) for split, table in tables.items()},
            **({} if trained is None else {"train": trained.digest}),
        },
    }


def _merged_columns(files: Sequence[ExternalFile]) -> dict[str, Mapping[str, str]]:
    """Return the columns of each feature by view. Raises InputError if files have a feature with other views."""
    columns: dict[str, Mapping[str, str]] = {}
    for file in files:
        for name, by_view in file.columns.items():
            if columns.setdefault(name, by_view).keys() != by_view.keys():
                raise InputError(
                    f"the feature {name!r} has other sides than in another table",
                    where=file.file.name,
                    fix="give it another name with features.N.columns.",
                )
    return columns


def _kind(reason: str) -> str:
    """Return a reason without the cell."""
    return reason.partition(": ")[0]


def _notes(stage: Stage, records: Records, manifest: Mapping[str, Any]) -> list[str]:
    """Return how many records have numbers, and what did not join."""
    rows, metrics = manifest["rows"], manifest["metrics"]
    joined = ", ".join(f"{rows[split]:,} of {records.rows(split):,} {split} records" for split in records.splits)
    names = list(metrics["columns"])
    shown = ", ".join(names[:_NAMES_SHOWN]) + (" and others" if len(names) > _NAMES_SHOWN else "")
    notes = [f"{shown or 'numbers'} for {joined}"]
    if "train" in records.splits and not rows["train"]:
        logs.warning(EXTERNAL, "no training record has a row in the tables of `features`")
    if "train" not in records.splits and rows["test"] < records.rows("test"):
        notes.append("models see missing numbers as they were in training; give those of the new pairs with `features`")
    if metrics["quarantine"] and "train" in records.splits:  # new pairs: the table may be that of the training records
        reasons = ", ".join(f"{count:,} x {reason}" for reason, count in metrics["quarantine"].items())
        notes.append(f"{rows['quarantine']:,} rows quarantined ({reasons}): see {stage.folder}")
        if metrics["unknown_ids"]:
            notes.append(f"ids of no record, such as {', '.join(metrics['unknown_ids'])}")
    return notes
