"""MT-bench's votes of people and of GPT-4: several judges for each pair, on the first or the second turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.registry import FORMATS
from votes.chat import Rounds
from votes.comparison import Comparison, one_vote
from votes.format import Reading, Row, VoteFormat, compare, conversation, number, winner_outcome

_OF_ARENA = frozenset({"tstamp", "timestamp", "anony", "evaluation_session_id"})


def is_mt_bench(names: frozenset[str]) -> bool:
    """Return whether columns are those of MT-bench: an arena's, with question and turn, without a time."""
    return {"question_id", "turn", "judge"} <= names and not names & _OF_ARENA


@FORMATS.register
class MtBenchFormat(VoteFormat):
    """A vote is on the conversation up to `turn`, so the rest is left out."""

    name = "mt_bench"
    summary = "mt_bench_human_judgments: question_id, turn, judge, conversation_a, conversation_b, winner"
    texts = frozenset({"question_id", "turn", "model_a", "model_b", "conversation_a", "conversation_b"})
    votes = frozenset({"winner"})
    ids = ()  # question_id names the question, which many pairs share
    voters = ("judge",)

    def fits(self, names: frozenset[str], rows: Sequence[Row], labeled: bool) -> bool:
        """Return whether the columns are these, and not those of an arena."""
        return super().fits(names, rows, labeled) and is_mt_bench(names | {"judge"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        turns = int(number(row, "turn"))
        a, b = (_until(conversation(row, name), turns) for name in ("conversation_a", "conversation_b"))
        votes = one_vote(winner_outcome(row.get("winner"))) if reading.labeled else ()
        return [compare(a, b, votes, group=a.prompts[:1])]  # votes on both turns stay in one fold


def _until(rounds: Rounds, turns: int) -> Rounds:
    return Rounds(rounds.prompts[:turns], rounds.answers[:turns], rounds.attachments)
