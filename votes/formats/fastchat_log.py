"""The log that a FastChat arena writes itself: one line for each vote, with the states of both conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from core.registry import FORMATS
from votes.chat import Message, read_content, to_rounds
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
    ids = ()  # conv_id names the conversation, which may go on after a vote
    times = ("tstamp",)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        outcome = _VOTES.get(str(row.get("type")))
        if reading.labeled and outcome is None:
            raise InvalidRow(f"type {str(row.get('type'))[:40]!r} is no vote")
        states, models = cell(row, "states"), cell(row, "models")
        if not (isinstance(states, list) and isinstance(models, list) and len(states) == len(models) == 2):
            raise InvalidRow("states and models are not lists of two")
        a, b = (to_rounds(_messages(state)) for state in states)
        names = [
            str(model or state.get("model_name") or "") or None for model, state in zip(models, states, strict=True)
        ]
        votes = one_vote(outcome) if reading.labeled and outcome else ()
        return [compare(a, b, votes, group=a.prompts[:1], model_a=names[0], model_b=names[1])]  # it may go on


def _messages(state: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a state. Names of roles differ by model, so the first one asks, the next one answers."""
    turns = (state.get("messages") or [])[state.get("offset") or 0 :]
    if not turns:
        raise InvalidRow("a state has no messages")
    messages = []
    for number, (_, content) in enumerate(turns):
        images = 0
        if isinstance(content, list | tuple) and len(content) == 2 and isinstance(content[1], list):  # text and images
            content, images = content[0], len(content[1])
        text, others = read_content(content)
        text = "\n".join([text or "", *["[image]"] * images]) if images else text
        messages.append(Message("assistant" if number % 2 else "user", text, images + others))
    return messages
