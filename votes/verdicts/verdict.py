"""Define a verdict, and the interface of verdict formats: one class in one file of votes/verdicts/formats, or a plugin.

A format recognizes a table by the names of its columns or keys, never by the file's name.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from votes.comparison import EXCHANGED, InvalidRow, graded_vote
from votes.format import winner_outcome

if TYPE_CHECKING:
    from core.settings.data import Outcome
    from votes.format import Row

Order = Literal["ab", "ba"]
_ORDERS: Final[Mapping[str, Order]] = {
    **dict.fromkeys(("ab", "a,b", "a_first", "original", "forward"), "ab"),
    **dict.fromkeys(("ba", "b,a", "b_first", "swapped", "reversed"), "ba"),
}
# Arena-Hard's five steps, from -2 (A is much better) to 2.
_FIVE_STEPS: Final[Mapping[str, int]] = {
    **{"A>>B": -2, "A>B": -1, "A=B": 0, "B>A": 1, "B>>A": 2},
    **{"B<<A": -2, "B<A": -1, "B=A": 0, "A<B": 1, "A<<B": 2},
}


@dataclass(frozen=True)
class Verdict:
    """What a judge says of two answers: shares of the outcomes, or a score of each answer.

    Both name the answers by the table's own A and B, in whichever order the judge saw them. `digest` and `exchanged`
    identify the texts: see votes.digests.pair_digest.
    """

    judge: str | None
    shares: Mapping[Outcome, float] | None = None
    scores: tuple[float, float] | None = None
    order: Order | None = None  # in which the judge saw the answers, if known
    id: str | None = None
    digest: int | None = None
    exchanged: bool = False
    model_a: str | None = None
    model_b: str | None = None
    cost: float | None = None  # dollars
    seconds: float | None = None

    def swapped(self) -> Verdict:
        """Return the verdict with A and B exchanged."""
        return replace(
            self,
            shares=None if self.shares is None else {EXCHANGED[name]: share for name, share in self.shares.items()},
            scores=None if self.scores is None else (self.scores[1], self.scores[0]),
            order=None if self.order is None else "ba" if self.order == "ab" else "ab",
            model_a=self.model_b,
            model_b=self.model_a,
        )


class VerdictFormat(ABC):
    """One shape in which people hold judges' verdicts."""

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for the documentation
    has_texts: ClassVar[bool] = False  # whether its rows have the texts, by which verdicts join

    @abstractmethod
    def fits(self, names: frozenset[str], rows: Sequence[Row]) -> bool:
        """Return whether a table with these columns, and these first rows, has the format."""

    @abstractmethod
    def read(self, rows: Iterator[tuple[int, Row]], outer: Mapping[str, Any]) -> Iterator[NumberedVerdict]:
        """Yield the verdicts of numbered rows, each with its row's number. A row that has none yields an InvalidRow.

        `outer` is what surrounds the rows in a JSON object.
        """


NumberedVerdict = tuple[int, Verdict | InvalidRow]


class RowVerdictFormat(VerdictFormat):
    """A format whose rows can be read one by one."""

    @abstractmethod
    def verdicts(self, row: Row) -> Sequence[Verdict]:
        """Return the verdicts of a row. Raises InvalidRow."""

    def read(self, rows: Iterator[tuple[int, Row]], outer: Mapping[str, Any]) -> Iterator[NumberedVerdict]:
        """Yield the verdicts of each row."""
        for number, row in rows:
            try:
                verdicts = self.verdicts(row)
            except InvalidRow as error:
                yield number, error
            except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
                yield number, InvalidRow(f"the row is not as the format {self.name} has it: {error!r}")
            else:
                yield from ((number, verdict) for verdict in verdicts)


def verdict_shares(value: Any, row: Row | None = None) -> Mapping[Outcome, float]:  # noqa: ANN401 - a cell
    """Return the shares that a verdict stands for: a winner's name, or one of five steps such as `A>>B`.

    Five steps are read as votes of a graded preference are: `A>B` is 3/4 for A and 1/4 for a tie. Raises InvalidRow.
    """
    if value is None or not str(value).strip():
        raise InvalidRow("no verdict")
    text = re.sub(r"[\s\[\]]", "", str(value)).upper()
    if text in _FIVE_STEPS:
        (vote,) = graded_vote(_FIVE_STEPS[text], 2)
        return vote.shares
    try:
        return {winner_outcome(value, row): 1.0}
    except InvalidRow as error:
        raise InvalidRow(str(error).replace("winner", "verdict")) from None


def verdict_order(value: Any) -> Order | None:  # noqa: ANN401 - a cell of any format
    """Return the order in which the judge saw the answers; None if the cell is empty. Raises InvalidRow."""
    if value is None or not str(value).strip():
        return None
    order = _ORDERS.get(str(value).strip().lower().replace(" ", "").replace("-", "_"))
    if order is None:
        raise InvalidRow(f"unknown order {str(value)[:40]!r}; write ab or ba")
    return order
