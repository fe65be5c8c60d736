"""Argilla's exports of ranking questions: a list of ranks for each user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import FORMATS
from votes.cells import decode_cell
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
        return labeled and super().fits(names, rows, labeled) and any(_questions(row) for row in rows)

    def decide(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the question whose ranks are votes. Raises InvalidRow if there are several: they ask other things."""
        names = sorted({name for row in rows for name in _questions(row)})
        if len(names) > 1:
            raise InvalidRow(f"there are several ranking questions: {', '.join(names)}")
        return {"question": names[0]} if names else {}

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparisons of a row's answers."""
        name = reading.outer.get("question")
        if name not in _questions(row):
            raise InvalidRow("no user has ranked the answers")
        rankings = cell(row, f"{name}{_RESPONSES}")
        users = decode_cell(row.get(f"{name}{_RESPONSES}.users")) or [None] * len(rankings)
        statuses = decode_cell(row.get(f"{name}{_RESPONSES}.status")) or ["submitted"] * len(rankings)
        ranks = [
            (user, {item["value"]: item["rank"] for item in ranking})
            for ranking, user, status in zip(rankings, users, statuses, strict=True)
            if ranking and status in ("submitted", None)
        ]
        answers = sorted({answer for _, ranking in ranks for answer in ranking})
        if len(answers) < 2:
            raise InvalidRow("no user has ranked two answers")
        several, compared = len(answers) > 2, 0
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
                compared += 1
                yield compare_answers(text(row, "prompt"), text(row, a), text(row, b), votes, id=identity)
        if not compared:
            raise InvalidRow("no user has ranked both answers of a pair")


def _questions(row: Row) -> list[str]:
    """Return the names of the questions that somebody has answered with ranks."""
    names = []
    for name, value in row.items():
        if not name.endswith(_RESPONSES) or not value:
            continue
        responses: Any = cell(row, name)
        for ranking in responses if isinstance(responses, list) else []:  # a user may have left it empty
            first = ranking[0] if isinstance(ranking, list) and ranking else None
            if isinstance(first, dict) and {"rank", "value"} <= first.keys():
                names.append(name.removesuffix(_RESPONSES))
                break
    return names


def _outcome(rank_a: float, rank_b: float) -> Outcome:
    return "a" if rank_a < rank_b else "b" if rank_b < rank_a else "tie"
