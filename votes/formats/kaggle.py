"""The shape of the LMSYS competition on Kaggle, and of the 55k set: one column for each outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from core.registry import FORMATS
from votes.comparison import OUTCOMES, Comparison, InvalidRow, Vote, soft_vote
from votes.format import Reading, Row, VoteFormat
from votes.schema import WINNERS
from votes.texts import read_texts

if TYPE_CHECKING:
    from core.settings.data import Outcome

_OUTCOMES: Final[dict[str, Outcome]] = dict(zip(WINNERS[:3], OUTCOMES, strict=False))
_BOTH_BAD: Final = WINNERS[3]


@FORMATS.register
class KaggleFormat(VoteFormat):
    """Texts as lists of turns, chat messages or plain text; votes as 0 and 1, or as shares."""

    name = "kaggle"
    summary = (
        "LMSYS competition and 55k set: prompt, response_a, response_b, winner_model_a, winner_model_b, winner_tie"
    )
    has_kinds = True
    texts = frozenset({"prompt", "response_a", "response_b"})
    votes = frozenset(_OUTCOMES)
    others = frozenset({_BOTH_BAD})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        comparison = read_texts(row, reading)
        return [dataclasses.replace(comparison, votes=_votes(row)) if reading.labeled else comparison]


def _votes(row: Row) -> tuple[Vote]:
    shares = {outcome: _share(row.get(name), name) for name, outcome in _OUTCOMES.items()}
    if row.get(_BOTH_BAD) not in (None, ""):
        shares["both_bad"] = _share(row[_BOTH_BAD], _BOTH_BAD)
    total = sum(shares.values())
    if set(shares.values()) <= {0.0, 1.0}:
        if total > 1:
            raise InvalidRow("more than one winner")
    elif not 0.98 <= total <= 1.02:  # shares are often rounded to two digits
        raise InvalidRow("the shares of the vote do not sum to 1")
    return soft_vote(shares)


def _share(value: Any, name: str) -> float:  # noqa: ANN401 - a cell of any format
    text = str(value).strip().lower()
    try:
        share = {"true": 1.0, "false": 0.0}.get(text)
        share = float(text) if share is None else share
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidRow(f"{name} is neither 0 nor 1, nor a share between them")
    return share
