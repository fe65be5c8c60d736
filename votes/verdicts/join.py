"""Join verdicts to the records of a run: judges/verdicts.parquet, and judges/quarantine.parquet for what does not."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from core.errors import InputError
from core.shards import map_shards
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
            names = ["id", "model_a", "model_b"] if split == "train" else ["id"]
            digests = iter(_digests(records, split) if with_texts else ())
            for number, row in enumerate(records.read(split, names).to_pylist()):
                digest, exchanged = next(digests, (None, False))
                place = Place(split, number, exchanged, (row.get("model_a"), row.get("model_b")))
                by_id[row["id"]].append(place)
                if digest is not None:
                    by_digest[digest].append(place)
        return cls(by_id, by_digest)

    def join(self, verdict: Verdict) -> list[tuple[Place, Verdict]]:
        """Return the records of a verdict, each with the verdict by the record's A and B. Raises InvalidRow.

        Texts decide where a table has them, because its ids may be its own. They may be those of several records.
        """
        if verdict.digest is not None and verdict.digest in self.by_digest:
            return [
                (place, verdict.swapped() if place.exchanged != verdict.exchanged else verdict)
                for place in self.by_digest[verdict.digest]
            ]
        places = self.by_id.get(verdict.id or "", ())
        if not places:
            raise InvalidRow(NO_RECORD)
        if len(places) > 1:
            raise InvalidRow("a training record and a test record have this id")
        (place,) = places
        return [(place, verdict.swapped() if _names_the_other_way(verdict, place) else verdict)]


def _names_the_other_way(verdict: Verdict, place: Place) -> bool:
    """Return whether a table has the record's models in the other order. Raises InvalidRow if it has other models."""
    own, given = place.models, (verdict.model_a, verdict.model_b)
    pairs = [(name, other) for name, other in zip(given, own, strict=True) if name is not None and other is not None]
    if all(name == other for name, other in pairs):
        return False
    crossed = [(name, other) for name, other in zip(given, own[::-1], strict=True) if name and other]
    if all(name == other for name, other in crossed):
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
    known: set[tuple[str, str, int, str | None]] = field(default_factory=set)  # judge, split, record, order

    def add_file(self, file: VerdictFile, table: JudgeTable, index: RecordIndex) -> None:
        """Join the verdicts of a file. Raises InputError if the judge's name is missing, or one too many."""
        rejected: list[dict[str, Any]] = []
        named: set[str] = set()
        for number, verdict in file.verdicts():
            if isinstance(verdict, InvalidRow):
                rejected.append({"row": number, "reason": str(verdict)})
                continue
            judge = _judge(file, table, verdict, named)
            try:
                self._add(index.join(verdict), judge)
            except InvalidRow as error:
                rejected.append({"row": number, "reason": str(error), "id": verdict.id, "judge": judge})
        raw = file.raw_rows({row["row"] for row in rejected}) if rejected else {}
        self.quarantined += [{**row, "file": file.file.name, "raw": raw.get(row["row"], "")} for row in rejected]

    def _add(self, joined: Iterable[tuple[Place, Verdict]], judge: str) -> None:
        """Add a verdict on each of its records. Raises InvalidRow if the judge has another one there."""
        for place, verdict in joined:
            key = (judge, place.split, place.record, verdict.order)
            if key in self.known:
                raise InvalidRow("another verdict of this judge on this pair, in this order")
            self.known.add(key)
            self.verdicts.append(_row(place, judge, verdict))

    def write(self, folder: Folder, fingerprint: str) -> None:
        """Write both tables."""
        for name, rows, schema in (
            ("verdicts", self.verdicts, VERDICTS),
            ("quarantine", self.quarantined, QUARANTINED_VERDICTS),
        ):
            folder.write_table(f"{name}.parquet", pa.Table.from_pylist(rows, schema), fingerprint)

    def metrics(self) -> dict[str, Any]:
        """Return what the manifest says: by judge, how many verdicts on which split; reasons of quarantine."""
        judges: dict[str, collections.Counter[str]] = {}
        for row in self.verdicts:
            judges.setdefault(row["judge"], collections.Counter())[row["split"]] += 1
        reasons = collections.Counter(row["reason"] for row in self.quarantined)
        unknown = [row["id"] for row in self.quarantined if row["reason"] == NO_RECORD and row["id"]]
        return {
            "judges": {name: dict(counts) for name, counts in judges.items()},
            "quarantine": dict(reasons.most_common()),
            "unknown_ids": unknown[:5],
        }


def _judge(file: VerdictFile, table: JudgeTable, verdict: Verdict, named: set[str]) -> str:
    """Return the name of a verdict's judge: the settings', else the table's. `named` collects the table's own.

    Raises InputError if there is none, or the settings name one judge and the table several.
    """
    if verdict.judge is not None:
        named.add(verdict.judge)
    if table.name is None and verdict.judge is None:
        raise InputError("the table names no judge", file.file.name, "name the judge with judges.N.name.")
    if table.name is not None and len(named) > 1:
        raise InputError(
            f"judges.name is {table.name!r}, but the table names several judges: {', '.join(sorted(named))}",
            where=file.file.name,
            fix="leave out judges.name, or choose one of them with judges.only.",
        )
    return table.name or str(verdict.judge)


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
    files: Iterable[tuple[JudgeTable, Sequence[VerdictFile]]], records: Records, target: Folder, fingerprint: str
) -> dict[str, Any]:
    """Join the verdicts of all tables and write them. Return the manifest's metrics, and the seconds it took."""
    started = time.monotonic()
    tables = list(files)
    with_texts = any(file.has_texts for _, of_table in tables for file in of_table)
    index = RecordIndex.read(records, with_texts)
    joined = JoinedVerdicts()
    for table, of_table in tables:
        for file in of_table:
            joined.add_file(file, table, index)
    joined.write(target, fingerprint)
    return {**joined.metrics(), "seconds": time.monotonic() - started}
