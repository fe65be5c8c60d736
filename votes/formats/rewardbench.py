"""RewardBench's pairs: a prompt, a chosen and a rejected answer, and the models that wrote them."""

from __future__ import annotations

from collections.abc import Iterable

from core.registry import FORMATS
from votes.comparison import Comparison, one_vote
from votes.format import Reading, Row, VoteFormat, compare_answers, text


@FORMATS.register
class RewardBenchFormat(VoteFormat):
    """Ids are numbers within the whole bench."""

    name = "rewardbench"
    summary = "RewardBench: prompt, chosen, chosen_model, rejected, rejected_model"
    ranked = True
    texts = frozenset({"prompt", "chosen", "rejected", "chosen_model", "rejected_model"})
    models_a = ("chosen_model",)
    models_b = ("rejected_model",)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row, with the chosen answer as A."""
        votes = one_vote("a") if reading.labeled else ()
        yield compare_answers(text(row, "prompt"), text(row, "chosen"), text(row, "rejected"), votes)
