"""The releases of Chatbot Arena since the 33k set: two conversations of messages, and a winner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.registry import FORMATS
from votes.comparison import Comparison, one_vote
from votes.format import Reading, Row, VoteFormat, compare, conversation, winner_outcome
from votes.formats.mt_bench import is_mt_bench


@FORMATS.register
class ArenaFormat(VoteFormat):
    """Arena 33k, 100k and 140k: texts or content blocks, `tie (bothbad)` or `both_bad`."""

    name = "arena"
    summary = "Chatbot Arena 33k, 100k and 140k: conversation_a, conversation_b, winner"
    texts = frozenset({"conversation_a", "conversation_b"})
    votes = frozenset({"winner"})
    ids = ("id", "question_id")
    voters = ("judge", "judge_hash")
    times = ("tstamp", "timestamp")

    def fits(self, names: frozenset[str], rows: Sequence[Row], labeled: bool) -> bool:
        """Return whether the columns are these, and not those of MT-bench."""
        return super().fits(names, rows, labeled) and not is_mt_bench(names)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        votes = one_vote(winner_outcome(row.get("winner"))) if reading.labeled else ()
        return [compare(conversation(row, "conversation_a"), conversation(row, "conversation_b"), votes)]
