"""OpenAI's comparisons of summaries: a post, two summaries, the worker's choice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow
from votes.format import Reading, Row, VoteFormat, cell, choice, compare_answers


@FORMATS.register
class SummarizeFromFeedbackFormat(VoteFormat):
    """Posts of Reddit, or articles."""

    name = "summarize_from_feedback"
    summary = "summarize_from_feedback comparisons: info, summaries, choice, worker"
    texts = frozenset({"info", "summaries"})
    votes = frozenset({"choice"})
    ids = ()  # info.id names the post, which many pairs share
    voters = ("worker",)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        info: Any = cell(row, "info")
        summaries: Any = cell(row, "summaries")
        if not isinstance(summaries, list) or len(summaries) != 2:
            raise InvalidRow("summaries is not a list of two")
        post = info.get("post") or info.get("article") if isinstance(info, dict) else None
        if not isinstance(post, str):
            raise InvalidRow("info has neither post nor article")
        votes = choice(row, "choice", {0: "a", 1: "b"}) if reading.labeled else ()
        a, b = summaries
        yield compare_answers(
            post, a.get("text"), b.get("text"), votes, model_a=a.get("policy"), model_b=b.get("policy")
        )
