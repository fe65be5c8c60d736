"""Votes of ComparIA, the arena of the French state: conversations as JSON text, the chosen model's name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow, Vote, one_vote
from votes.format import Reading, Row, VoteFormat, compare, conversation

if TYPE_CHECKING:
    from core.settings.data import Outcome


@FORMATS.register
class CompariaFormat(VoteFormat):
    """`both_equal` is a tie; else `chosen_model_name` names the winner."""

    name = "comparia"
    summary = "ComparIA votes: model_a_name, model_b_name, chosen_model_name, both_equal"
    texts = frozenset({"model_a_name", "model_b_name", "conversation_a", "conversation_b"})
    votes = frozenset({"chosen_model_name", "both_equal"})
    pairs = ("conversation_pair_id",)
    voters = ("visitor_id", "session_hash")
    models_a = ("model_a_name",)
    models_b = ("model_b_name",)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        votes = _votes(row) if reading.labeled else ()
        return [compare(conversation(row, "conversation_a"), conversation(row, "conversation_b"), votes)]


def _votes(row: Row) -> tuple[Vote]:
    if str(row.get("both_equal")).lower() in ("true", "1", "t"):
        return one_vote("tie")
    models: dict[object, Outcome] = {row.get("model_a_name"): "a", row.get("model_b_name"): "b"}
    chosen = row.get("chosen_model_name")
    if chosen in (None, ""):
        raise InvalidRow("no winner")
    if chosen not in models or len(models) < 2:
        raise InvalidRow("chosen_model_name names none, or both, of the row's models")
    return one_vote(models[chosen])
