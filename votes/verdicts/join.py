"""Join verdicts to the records of a run: judges/verdicts.parquet, and judges/quarantine.parquet for what does not."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from core.errors import InputError
from core.fingerprints import table_digest
from core.shards import map_shards
from core.stage import fingerprint as fingerprint_of
from votes.comparison import OUTCOMES, InvalidRow
from votes.digests import pair_digest

if TYPE_CHECKING:
    from core.settings.judges import JudgeTable
    from core.shards import Item
    from core.storage import Folder
    from votes.records import Records
    from votes.verdicts.tables import VerdictFile
    from votes.verdicts.verdict import Verdict

VERDICTS: Final = pa.schema(
    [
        ("split", pa.string()),
        ("record", pa.int64()),  # number of the record in its split
        ("judge", pa.string()),
        ("order", pa.string()),  # in which the judge saw the record's A and B: ab, ba; null if it is unknown
        ("shares", pa.list_(pa.float64())),  # by votes.comparison.OUTCOMES; null where there are scores
        ("score_a", pa.float64()),
        ("score_b", pa.float64()),
        ("cost", pa.float64()),  # dollars
        ("seconds", pa.float64()),
    ]
)
QUARANTINED_VERDICTS: Final = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),  # 1-based data row
        ("reason", pa.string()),
        ("id", pa.string()),
        ("judge", pa.string()),
        ("raw", pa.string()),  # the row as read, as JSON
    ]
)
NO_RECORD: Final = "no record has this id or these texts"


@dataclass(frozen=True)
class Place:
    """Where a record is, and whether its A and B are exchanged against the order of its texts' digests."""

    split: str
    record: int
    exchanged: bool = False
    models: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True)
class Trained:
    """What a finished run was trained on: a table that it had may name other records by the ids of new pairs."""

    ids: frozenset[str]  # of its records
    tables: Sequence[Any]  # settings of its tables
    digest: str  # of what was joined to its training records
    judges: Sequence[str] = ()  # that it has models of

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that it changes for new pairs."""
        tables = [table.model_dump(mode="json") for table in self.tables]
        return fingerprint_of([sorted(self.ids), tables, self.digest])

    @classmethod
    def of(
        cls, records: Records, tables: Sequence[Any], manifest: Mapping[str, Any], judges: Sequence[str] = ()
    ) -> Trained:
        """Return this of a finished run; `manifest` is that of the stage that has joined the tables."""
        ids = {name for split in records.splits for name in records.read(split, ["id"])["id"].to_pylist()}
        return cls(frozenset(ids), tables, manifest["metrics"]["digests"]["train"], judges)


@dataclass(frozen=True)
class RecordIndex:
    """The places of all records, by id and by digest of the texts; without digests where no table has texts."""

    by_id: Mapping[str, Sequence[Place]]
    by_digest: Mapping[int, Sequence[Place]]

    @classmethod
    def read(cls, records: Records, with_texts: bool) -> RecordIndex:
        """Read the index of all training and test records."""
        by_id: dict[str, list[Place]] = collections.defaultdict(list)
        by_digest: dict[int, list[Place]] = collections.defaultdict(list)
        for split in records.splits:
            digests = iter(_digests(records, split) if with_texts else ())
            for number, row in enumerate(records.read(split, ["id", "model_a", "model_b"]).to_pylist()):
                digest, exchanged = next(digests, (None, False))
                place = Place(split, number, exchanged, (row["model_a"], row["model_b"]))
                by_id[row["id"]].append(place)
                if digest is not None:
                    by_digest[digest].append(place)
        return cls(by_id, by_digest)

    def for_table(self, table: Any, trained: Trained | None) -> RecordIndex:  # noqa: ANN401 - settings of a table
        """Return the index for a table's rows. Ids of a finished run's records are its own in a table that it had."""
        if trained is None or table not in trained.tables:
            return self
        return RecordIndex({name: at for name, at in self.by_id.items() if name not in trained.ids}, self.by_digest)

    def place(self, record_id: str | None, models: tuple[str | None, str | None]) -> tuple[Place, bool]:
        """Return the record with an id, and whether a row with these models has it the other way round.

        Raises InvalidRow if there is no such record, or two, or if it has other models.
        """
        places = self.by_id.get(record_id or "", ())
        if not places:
            raise InvalidRow(NO_RECORD)
        if len(places) > 1:
            raise InvalidRow("a training record and a test record have this id")
        (place,) = places
        return place, _names_the_other_way(models, place)

    def join(self, verdict: Verdict) -> list[tuple[Place, Verdict]]:
        """Return the records of a verdict, each with the verdict by the record's A and B. Raises InvalidRow.

        Texts decide where a table has them, because its ids may be its own. They may be those of several records.
        """
        if verdict.digest is not None:
            if verdict.digest not in self.by_digest:
                raise InvalidRow(NO_RECORD)
            return [
                (place, verdict.swapped() if place.exchanged != verdict.exchanged else verdict)
                for place in self.by_digest[verdict.digest]
            ]
        place, is_swapped = self.place(verdict.id, (verdict.model_a, verdict.model_b))
        return [(place, verdict.swapped() if is_swapped else verdict)]


def _names_the_other_way(given: tuple[str | None, str | None], place: Place) -> bool:
    """Return whether a table has the record's models in the other order. Raises InvalidRow if it has other models."""
    own = place.models

    def agree(names: tuple[str | None, str | None]) -> bool:
        return all(name == other for name, other in zip(given, names, strict=True) if name and other)

    if agree(own):
        return False
    if agree(own[::-1]):
        return True
    raise InvalidRow("the models are not those of the record with this id")


def _digests(records: Records, split: str) -> Iterator[tuple[int, bool]]:
    """Yield the digest of each record's texts, and whether its A is the second of them."""
    items: list[Item] = [{"shard": name} for name in records.shards(split)]

    def describe(item: Item) -> Iterator[Item]:
        yield from _describe_shard(item, records.folder)

    by_shard = {row["shard"]: row for row in map_shards(items, describe)}
    for name in records.shards(split):
        yield from zip(by_shard[name]["digests"], by_shard[name]["exchanged"], strict=True)


def _describe_shard(item: Item, folder: Folder) -> Iterator[Item]:
    table = folder.read_table(item["shard"], ["prompt", "response_a", "response_b"])
    pairs = [pair_digest(*texts) for texts in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    yield {
        "shard": item["shard"],
        "digests": [digest for digest, _ in pairs],
        "exchanged": [exchanged for _, exchanged in pairs],
    }


@dataclass
class JoinedVerdicts:
    """Verdicts that have a record, and rows that have none or are invalid."""

    verdicts: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    judges: set[str] = field(default_factory=set)  # all that the tables name
    tables: dict[str, JudgeTable] = field(default_factory=dict)  # the first one of each judge
    known: set[tuple[str, str, int, str | None]] = field(default_factory=set)  # judge, split, record, order
    named: dict[str, set[str]] = field(default_factory=dict)  # judges that a table names, by the path in the settings

    def add_file(self, file: VerdictFile, table: JudgeTable, index: RecordIndex) -> None:
        """Join the verdicts of a file, those of the judges in `only` where it is given.

        Raises InputError if the judge's name is missing, or one too many.
        """
        rejected: list[dict[str, Any]] = []
        for number, verdict in file.verdicts():
            if isinstance(verdict, InvalidRow):
                rejected.append({"row": number, "reason": str(verdict)})
                continue
            self.judges.add(verdict.judge or str(table.name))
            if table.only is not None and verdict.judge not in (None, *table.only):
                continue
            judge = _judge(file, table, verdict, self.named)
            self.tables.setdefault(judge, table)
            try:
                self._add(index.join(verdict), judge)
            except InvalidRow as error:
                rejected.append({"row": number, "reason": str(error), "id": verdict.id, "judge": judge})
        raw = file.raw_rows({row["row"] for row in rejected}) if rejected else {}
        self.quarantined += [{**row, "file": file.file.name, "raw": raw.get(row["row"], "")} for row in rejected]

    def _add(self, joined: Iterable[tuple[Place, Verdict]], judge: str) -> None:
        """Add a verdict on each of its records. Raises InvalidRow if the judge has another one on one of them."""
        rows = {
            (judge, place.split, place.record, verdict.order): _row(place, judge, verdict) for place, verdict in joined
        }
        if self.known & rows.keys():
            raise InvalidRow("another verdict of this judge on this pair, in this order")
        self.known |= rows.keys()
        self.verdicts += rows.values()

    def write(self, folder: Folder, fingerprint: str) -> None:
        """Write both tables."""
        for name, rows, schema in (
            ("verdicts", self.verdicts, VERDICTS),
            ("quarantine", self.quarantined, QUARANTINED_VERDICTS),
        ):
            folder.write_table(f"{name}.parquet", pa.Table.from_pylist(rows, schema), fingerprint)

    def metrics(self, splits: Sequence[str]) -> dict[str, Any]:
        """Return what the manifest says: by judge, how many verdicts on which split; reasons of quarantine."""
        judges: dict[str, collections.Counter[str]] = {}
        pairs: dict[str, set[tuple[str, int]]] = {}
        for row in self.verdicts:
            judges.setdefault(row["judge"], collections.Counter())[row["split"]] += 1
            pairs.setdefault(row["judge"], set()).add((row["split"], row["record"]))
        reasons = collections.Counter(row["reason"] for row in self.quarantined)
        unknown = [row["id"] for row in self.quarantined if row["reason"] == NO_RECORD and row["id"]]
        return {
            "judges": {name: dict(counts) for name, counts in judges.items()},
            "quarantine": dict(reasons.most_common()),
            "unknown_ids": unknown[:5],
            "pairs": {name: len(numbers) for name, numbers in pairs.items()},  # records with a verdict
            "digests": {split: self._digest(split) for split in splits},
        }

    def _digest(self, split: str) -> str:
        rows = [row for row in self.verdicts if row["split"] == split]
        return table_digest(pa.Table.from_pylist(rows, VERDICTS))


def _judge(file: VerdictFile, table: JudgeTable, verdict: Verdict, named: dict[str, set[str]]) -> str:
    """Return the name of a verdict's judge: the settings', else the table's. `named` collects the table's own names.

    Raises InputError if there is none, or the settings name one judge and the table several.
    """
    if table.name is None:
        if verdict.judge is None:
            fix = f"name the judge: judges=[{{path: {table.path}, name: NAME}}]."
            raise InputError("the table names no judge", file.file.name, fix)
        return verdict.judge
    own = named.setdefault(table.path, set())
    own |= {verdict.judge} if verdict.judge is not None else set()
    if len(own) > 1:
        raise InputError(
            f"judges.name is {table.name!r}, but the table names several judges: {', '.join(sorted(own))}",
            where=file.file.name,
            fix="leave out `name`, or choose one of them with `only`.",
        )
    return table.name


def _row(place: Place, judge: str, verdict: Verdict) -> dict[str, Any]:
    shares, scores = verdict.shares, verdict.scores or (None, None)
    return {
        "split": place.split,
        "record": place.record,
        "judge": judge,
        "order": verdict.order,
        "shares": None if shares is None else [shares.get(outcome, 0.0) for outcome in OUTCOMES],
        "score_a": scores[0],
        "score_b": scores[1],
        "cost": verdict.cost,
        "seconds": verdict.seconds,
    }


def join_verdicts(
    files: Iterable[tuple[JudgeTable, Sequence[VerdictFile]]],
    records: Records,
    target: Folder,
    fingerprint: str,
    trained: Trained | None = None,
) -> dict[str, Any]:
    """Join the verdicts of all tables and write them. Return the manifest's metrics, and the seconds it took.

    `trained` is given for new pairs. Raises InputError if a judge that the settings name is in no table.
    """
    started = time.monotonic()
    tables = list(files)
    with_texts = any(file.has_texts for _, of_table in tables for file in of_table)
    index = RecordIndex.read(records, with_texts)
    joined = JoinedVerdicts()
    for table, of_table in tables:
        for file in of_table:
            joined.add_file(file, table, index.for_table(table, trained))
    if trained is None:  # the tables of new pairs may lack a judge
        _require_judges(joined, [table for table, _ in tables])
    joined.write(target, fingerprint)
    numbers = {judge: [table for table, _ in tables].index(table) for judge, table in joined.tables.items()}
    metrics = joined.metrics(records.splits)
    if trained is not None:
        metrics["digests"]["train"] = trained.digest  # features of new pairs depend on what was fitted on it
    return {**metrics, "tables": numbers, "seconds": time.monotonic() - started}


def _require_judges(joined: JoinedVerdicts, tables: Sequence[JudgeTable]) -> None:
    """Raise InputError if the settings name an unknown judge, or if no verdict is on a training record."""
    known = ", ".join(sorted(joined.judges)) or "none"
    for table in tables:
        for name in table.only or ():
            if name not in joined.judges:
                raise InputError(f"no verdict of {name!r}", "judges.only", f"the judges are {known}.")
    if not any(row["split"] == "train" for row in joined.verdicts):
        reasons = collections.Counter(row["reason"] for row in joined.quarantined).most_common(3)
        counted = ", ".join(f"{count:,} x {reason}" for reason, count in reasons) or "the tables have no row"
        raise InputError(
            f"no verdict on a training record: {counted}",
            where=", ".join(table.path for table in tables),
            fix="check ids and verdicts; `columns` names columns, and its `verdict.map` says what values mean.",
        )
