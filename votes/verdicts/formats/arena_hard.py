"""Judgments of Arena-Hard-Auto: two games for each question, the second with the answers exchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.registry import VERDICT_FORMATS
from votes.comparison import InvalidRow
from votes.format import identifier
from votes.verdicts.verdict import RowVerdictFormat, Verdict, verdict_shares

if TYPE_CHECKING:
    from votes.format import Row

_NEEDED = frozenset({"model", "judge", "games"})


@VERDICT_FORMATS.register
class ArenaHardFormat(RowVerdictFormat):
    """In the first game A is the baseline's answer and B the model's, in the second the other way round.

    Source: `gen_judgment.py` and `show_result.py` of lmarena/arena-hard-auto. A game without a score has no verdict.
    """

    name = "arena_hard"
    summary = "Arena-Hard-Auto judgments: question_id or uid, model, judge, games with a score such as A>>B"

    def fits(self, names: frozenset[str], rows: Sequence[Row]) -> bool:
        """Return whether the columns are these."""
        return names >= _NEEDED and bool(names & {"question_id", "uid"})

    def verdicts(self, row: Row) -> Sequence[Verdict]:
        """Return the verdicts of both games, with the baseline as A."""
        record_id = identifier(row.get("uid") or row.get("question_id"))
        games = [game for game in row.get("games") or () if isinstance(game, dict)]
        verdicts = []
        for number, game in enumerate(games[:2]):
            if game.get("score") is None:
                continue
            verdict = Verdict(str(row["judge"]), verdict_shares(game["score"]), order="ab", id=record_id)
            verdicts.append(verdict.swapped() if number else verdict)
        if not verdicts:
            raise InvalidRow("no verdict")
        baseline = str(row.get("baseline") or "") or None
        return [dataclasses.replace(verdict, model_a=baseline, model_b=str(row["model"])) for verdict in verdicts]
