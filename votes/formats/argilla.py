"""Argilla's exports of ranking questions: a list of ranks for each user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow, Vote
from votes.format import Reading, Row, VoteFormat, cell, compare_answers, ranked_pairs, text

if TYPE_CHECKING:
    from core.settings.data import Outcome

_RESPONSES = ".responses"


@FORMATS.register
class ArgillaFormat(VoteFormat):
    """The question's name is the user's: its answers lie in NAME.responses, its users in NAME.responses.users."""

    name = "argilla"
    summary = "Argilla ranking question: prompt, two answers, NAME.responses with ranks, NAME.responses.users"
    texts = frozenset({"prompt"})
    pairs = ()

    @property
    def columns(self) -> frozenset[str]:
        """All columns, since the names of question and answers are the user's."""
        return frozenset()

    def fits(self, names: frozenset[str], rows: Sequence[Row], labeled: bool) -> bool:
        """Return whether a question has ranks."""
        return labeled and super().fits(names, rows, labeled) and any(_question(row) for row in rows)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparisons of a row's answers."""
        name = _question(row)
        if name is None:
            raise InvalidRow("no user has ranked the answers")
        rankings = cell(row, f"{name}{_RESPONSES}")
        users = row.get(f"{name}{_RESPONSES}.users") or [None] * len(rankings)
        statuses = row.get(f"{name}{_RESPONSES}.status") or ["submitted"] * len(rankings)
        ranks = [
            (user, {item["value"]: item["rank"] for item in ranking})
            for ranking, user, status in zip(rankings, users, statuses, strict=True)
            if ranking and status in ("submitted", None)
        ]
        answers = sorted({answer for _, ranking in ranks for answer in ranking})
        if len(answers) < 2:
            raise InvalidRow("no user has ranked two answers")
        several = len(answers) > 2
        mean_ranks = [
            float(np.mean([ranking[answer] for _, ranking in ranks if answer in ranking])) for answer in answers
        ]
        for i, j in ranked_pairs(mean_ranks, reading.pairs):
            a, b = answers[i], answers[j]
            votes = [
                Vote({_outcome(ranking[a], ranking[b]): 1.0}, None if user is None else str(user))
                for user, ranking in ranks
                if a in ranking and b in ranking
            ]
            identity = f"{row.get('id')}-{a}-{b}" if several and row.get("id") else None
            if votes:
                yield compare_answers(text(row, "prompt"), text(row, a), text(row, b), votes, id=identity)


def _question(row: Row) -> str | None:
    for name, value in row.items():
        if not name.endswith(_RESPONSES) or not value:
            continue
        responses: Any = cell(row, name)
        for ranking in responses if isinstance(responses, list) else []:  # a user may have left it empty
            first = ranking[0] if isinstance(ranking, list) and ranking else None
            if isinstance(first, dict) and {"rank", "value"} <= first.keys():
                return name.removesuffix(_RESPONSES)
    return None


def _outcome(rank_a: float, rank_b: float) -> Outcome:
    return "a" if rank_a < rank_b else "b" if rank_b < rank_a else "tie"
