"""Define the interface of exports: records written in a shape that other tools read."""

from __future__ import annotations

import csv
import io
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from votes.comparison import OUTCOMES, TurnTexts

if TYPE_CHECKING:
    from core.settings.data import Outcome

_ROWS_AT_ONCE: Final = 1000  # of a Parquet file's row group


class Ballot(NamedTuple):
    """One person's vote: shares by at least three outcomes."""

    voter: str | None
    time: str | None
    shares: Sequence[float]

    @property
    def outcome(self) -> int:
        """The outcome's number. Raises NotHeldError for a soft vote."""
        if max(self.shares) != 1:
            raise NotHeldError("a soft vote")
        return list(self.shares).index(1)


class NotHeldError(Exception):
    """The shape cannot hold a record, for this reason. Such records are counted, not written."""


@dataclass(frozen=True)
class ExportedRecord:
    """A record to write: texts, votes by outcome, who voted, and a margin if a run predicts it."""

    id: str
    prompt: TurnTexts
    response_a: TurnTexts
    response_b: TurnTexts
    votes: Sequence[float]  # counts by the first outcomes of OUTCOMES
    ballots: Sequence[Mapping[str, Any]] = ()  # rows of votes.schema.BALLOTS, if voters are known
    model_a: str | None = None
    model_b: str | None = None
    language: str | None = None
    margin: float | None = None  # ln P(A) / P(B) of a run
    both_bad_as_tie: float = 0.0  # votes for both_bad among the ties, because the shape does not name both_bad

    @property
    def winner(self) -> str:
        """The outcome with most votes. Raises NotHeldError if several have as many."""
        most = max(self.votes)
        best = [OUTCOMES[n] for n, count in enumerate(self.votes) if count > most - 1e-9]
        if len(best) > 1:
            raise NotHeldError("as many votes for one outcome as for another")
        return best[0]

    @property
    def sides(self) -> tuple[TurnTexts, TurnTexts]:
        """The better answer and the worse. Raises NotHeldError for a tie."""
        winner = self.winner
        if winner not in ("a", "b"):
            raise NotHeldError("a tie" if winner == "tie" else "both are bad")
        return (self.response_a, self.response_b) if winner == "a" else (self.response_b, self.response_a)

    @property
    def context(self) -> list[dict[str, str | None]]:
        """The messages before the last answer. Raises NotHeldError if the answers differ before the last round."""
        rounds = len(self.prompt)
        if not len(self.response_a) == len(self.response_b) == rounds:
            raise NotHeldError("prompt and answers have other numbers of turns")
        if self.response_a[:-1] != self.response_b[:-1]:
            raise NotHeldError("the answers differ before the last round")
        return to_messages(self.prompt, self.response_a)[:-1]


class VoteExport(ABC):
    """One shape of files to write."""

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for the documentation
    ending: ClassVar[str]  # of the file's name
    outcomes: ClassVar[Sequence[Outcome]] = OUTCOMES  # that the shape names; without both_bad it is written as a tie
    has_margin: ClassVar[bool] = False
    one_winner: ClassVar[bool] = False  # a pair's votes become its winner: other votes and voters are left out

    @abstractmethod
    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the rows of a record. Raises NotHeldError with the reason if the shape cannot hold it."""

    @abstractmethod
    def encode(self, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
        """Yield the bytes of a file with these rows."""


def to_messages(prompt: TurnTexts, answer: TurnTexts) -> list[dict[str, str | None]]:
    """Return the messages of a conversation. Raises NotHeldError if a turn has no counterpart."""
    if len(prompt) != len(answer):
        raise NotHeldError("prompt and answers have other numbers of turns")
    messages: list[dict[str, str | None]] = []
    for asked, said in zip(prompt, answer, strict=True):
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return messages


def single_turn(record: ExportedRecord) -> tuple[str, str, str]:
    """Return the three texts of a record of one turn. Raises NotHeldError for others."""
    texts = [turns[0] if len(turns) == 1 else None for turns in (record.prompt, record.response_a, record.response_b)]
    prompt, a, b = texts
    if prompt is None or a is None or b is None:
        raise NotHeldError("several turns, or a missing one")
    return prompt, a, b


def ballots_of(record: ExportedRecord) -> list[Ballot]:
    """Return the votes on a record. Votes of unknown voters that are no counts are one soft vote."""
    if record.ballots:
        return [Ballot(ballot["voter"], ballot["time"], _shares(ballot["votes"])) for ballot in record.ballots]
    if all(count == int(count) for count in record.votes):
        hard = [
            [float(m == n) for m in range(len(record.votes))]
            for n, count in enumerate(record.votes)
            for _ in range(int(count))
        ]
        return [Ballot(None, None, _shares(votes)) for votes in hard]
    return [Ballot(None, None, _shares(record.votes))]


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield rows as JSON Lines."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def csv_lines(rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield rows as CSV, with texts in quotes. The first row has the columns of all."""
    first = next(rows, None)
    if first is None:
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(first), lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    for row in itertools.chain([first], rows):
        writer.writerow(row)
        yield text.getvalue().encode("utf-8", "replace")
        text.seek(0)
        text.truncate()


def parquet_file(rows: Iterator[Mapping[str, Any]], names: Sequence[str]) -> Iterator[bytes]:
    """Yield rows of texts as a Parquet file."""
    schema = pa.schema([(name, pa.string()) for name in names])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema) as writer:
        while part := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([dict(row) for row in part], schema))
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


def _shares(votes: Sequence[float]) -> list[float]:
    """Return shares by at least three outcomes."""
    total = sum(votes)
    return [*(count / total for count in votes), *[0.0] * (3 - len(votes))]
