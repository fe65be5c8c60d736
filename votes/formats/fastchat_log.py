"""The log that a FastChat arena writes itself: one line for each vote, with the states of both conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from core.registry import FORMATS
from votes.chat import read_messages, to_rounds
from votes.comparison import Comparison, InvalidRow, one_vote
from votes.format import Reading, Row, VoteFormat, cell, compare

if TYPE_CHECKING:
    from core.settings.data import Outcome

_VOTES: Final[Mapping[str, Outcome]] = {
    "leftvote": "a",
    "rightvote": "b",
    "tievote": "tie",
    "bothbad_vote": "both_bad",
}


@FORMATS.register
class FastChatLogFormat(VoteFormat):
    """Lines of other types than votes are no comparisons."""

    name = "fastchat_log"
    summary = "FastChat's own log: type (leftvote and so on), models, states"
    texts = frozenset({"models", "states"})
    votes = frozenset({"type"})
    ids = ()
    times = ("tstamp",)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        outcome = _VOTES.get(str(row.get("type")))
        if reading.labeled and outcome is None:
            raise InvalidRow(f"type {str(row.get('type'))[:40]!r} is no vote")
        states, models = cell(row, "states"), cell(row, "models")
        if not (isinstance(states, list) and isinstance(models, list) and len(states) == len(models) == 2):
            raise InvalidRow("states and models are not lists of two")
        messages = [read_messages(state.get("messages", [])[state.get("offset", 0) :]) for state in states]
        if None in messages:
            raise InvalidRow("a state has no messages")
        a, b = (to_rounds(turns or []) for turns in messages)
        names = [
            str(model or state.get("model_name") or "") or None for model, state in zip(models, states, strict=True)
        ]
        identity = states[0].get("conv_id")
        votes = one_vote(outcome) if reading.labeled and outcome else ()
        return [compare(a, b, votes, id=identity and str(identity), model_a=names[0], model_b=names[1])]
