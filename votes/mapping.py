"""Read any table whose columns the settings name (`data.columns`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from votes.cells import decode_cell
from votes.comparison import Comparison, InvalidRow, Vote, one_vote
from votes.format import Reading, Row, VoteFormat, mapped_outcome, winner_outcome
from votes.schema import TEXTS
from votes.texts import read_texts

if TYPE_CHECKING:
    from core.settings.data import ColumnPath, Columns

FORMAT_NAME = "columns"


class MappedFormat(VoteFormat):
    """A format made of settings: where prompt, answers, winner and so on lie in a row."""

    name = FORMAT_NAME
    summary = "any table, with data.columns"
    texts = frozenset()
    has_kinds = True

    def __init__(self, paths: Columns) -> None:
        self._paths = paths

    @property
    def columns(self) -> frozenset[str]:
        """The columns that the settings name."""
        return frozenset(str(path[0]) for path in self._paths.paths().values())

    def needs(self, labeled: bool) -> frozenset[str]:
        """Return the columns that the settings name, with the winner's if `labeled`."""
        paths = self._paths.paths()
        return frozenset(str(path[0]) for name, path in paths.items() if labeled or name in (*TEXTS, "id"))

    def cells(self, row: Row) -> Sequence[Any]:
        """Return prompt and answers from where the settings say."""
        paths = self._paths.paths()
        return [lookup(row, paths[name]) for name in TEXTS]

    def has_ids(self, names: frozenset[str]) -> bool:
        """Return whether the settings name a column of ids."""
        return self._paths.id is not None

    def has_voters(self, names: frozenset[str]) -> bool:
        """Return whether the settings name a column of voters."""
        return self._paths.voter is not None

    def comparisons(self, row: Row, reading: Reading) -> Iterator[Comparison]:
        """Yield the comparison of a row, with what the settings name under our own names."""
        values = {name: lookup(row, path) for name, path in self._paths.paths().items()}
        if reading.weight_column is not None:
            values[reading.weight_column] = row.get(reading.weight_column)
        return super().comparisons(values, reading)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row under our own names."""
        votes = self._votes(row) if reading.labeled else ()
        yield dataclasses.replace(read_texts(row, reading), votes=votes)

    def _votes(self, row: Row) -> tuple[Vote]:
        value, names = row.get("winner"), self._paths.winner_map
        if not names:
            return one_vote(winner_outcome(value, row))
        outcome = mapped_outcome(value, names)
        if outcome is None:
            raise InvalidRow(f"the winner {str(value)[:40]!r} is not in the map of data.columns.winner")
        return one_vote(outcome)


def lookup(row: Row, path: ColumnPath) -> Any:  # noqa: ANN401 - a cell of any format
    """Return the value at a path of a column and keys or positions inside it; None if it is not there."""
    value: Any = row.get(str(path[0]))
    for key in path[1:]:
        value = decode_cell(value)
        if isinstance(key, int) and isinstance(value, list | tuple) and -len(value) <= key < len(value):
            value = value[key]
        elif isinstance(key, str) and isinstance(value, Mapping):
            value = value.get(key)
        else:
            return None
    return value
