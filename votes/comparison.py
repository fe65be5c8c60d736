"""One comparison as a format reads it from a row: texts, votes, models. Ingest turns comparisons into records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.settings.data import Outcome

TurnTexts = list[str | None]  # a null turn stays null, so that features can tell it from an empty one

OUTCOMES: Final[tuple[Outcome, ...]] = ("a", "b", "tie", "both_bad")
EXCHANGED: Final[Mapping[str, Outcome]] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad"}


class InvalidRow(Exception):
    """A row is invalid for this reason. Both go to quarantine."""


@dataclass(frozen=True)
class Vote:
    """One person's vote. `shares` sum to 1: a hard vote has one outcome, a soft vote several."""

    shares: Mapping[Outcome, float]
    voter: str | None = None
    time: str | None = None
    weight: float = 1.0

    def exchanged(self) -> Vote:
        """Return the vote on the same answers in the other order."""
        shares = {EXCHANGED[outcome]: share for outcome, share in self.shares.items()}
        return Vote(shares, self.voter, self.time, self.weight)


@dataclass(frozen=True)
class Comparison:
    """A prompt, two answers and the votes on them.

    `id` names the row, `pair` names the pair of answers where several rows have votes on it. `attachments` counts
    images and files that are left out. `group` is the prompt by which folds are divided, if it is not the whole one:
    votes on several turns of one conversation belong together.
    """

    prompt: TurnTexts
    response_a: TurnTexts
    response_b: TurnTexts
    votes: Sequence[Vote] = ()
    id: str | None = None
    pair: str | None = None
    model_a: str | None = None
    model_b: str | None = None
    language: str | None = None
    attachments: int = 0
    group: TurnTexts | None = None

    def exchanged(self) -> Comparison:
        """Return the comparison with the answers, their models and the votes in the other order."""
        return replace(
            self,
            response_a=self.response_b,
            response_b=self.response_a,
            votes=[vote.exchanged() for vote in self.votes],
            model_a=self.model_b,
            model_b=self.model_a,
        )


def one_vote(outcome: Outcome) -> tuple[Vote]:
    """Return one hard vote, as the votes of a comparison."""
    return (Vote({outcome: 1.0}),)


def soft_vote(shares: Mapping[Outcome, float]) -> tuple[Vote]:
    """Return one vote with the shares scaled to a sum of 1. Raises InvalidRow if they are no shares."""
    if any(not share >= 0 for share in shares.values()):
        raise InvalidRow("a share of the vote is negative or not a number")
    total = sum(shares.values())
    if not total > 0:
        raise InvalidRow("no winner")
    return (Vote({outcome: share / total for outcome, share in shares.items() if share}),)


def graded_vote(strength: float, strongest: float) -> tuple[Vote]:
    """Return the vote of a graded preference: negative for A, positive for B, 0 for a tie.

    The share of the preferred side grows evenly from 1/2 at 0 to 1 at `strongest`; the rest is a tie. So a strength of
    1 on a scale of 3 is 2/3 for the side and 1/3 for a tie.
    """
    if not -strongest <= strength <= strongest:
        raise InvalidRow(f"a preference of {strength:g} is outside -{strongest:g} to {strongest:g}")
    if strength == 0:
        return one_vote("tie")
    side: Outcome = "a" if strength < 0 else "b"
    share = (1 + abs(strength) / strongest) / 2
    return soft_vote({side: share, "tie": 1 - share})
