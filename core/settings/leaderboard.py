"""Settings of the leaderboard: how models are rated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.registry import RATING_MODELS
from core.settings.base import Count, Name, NotNegative, StrictModel, check_unique, member_of


class Leaderboard(StrictModel):
    """How models are rated, from votes on their answers and from predictions."""

    model: Annotated[str, member_of(RATING_MODELS)] = Field(
        default="bradley_terry",
        description="Rating model: `bradley_terry` counts a tie as half a win; `davidson` and `rao_kupper` have a "
        "parameter for ties.",
    )
    method: Literal["auto", "votes", "powered", "hierarchical"] = Field(
        default="auto",
        description="What ratings come from. `votes` are votes alone. `powered` corrects predictions by votes "
        "(prediction-powered inference). `hierarchical` takes predictions as a prior that votes update. `auto` is the "
        "one that predicts held-out votes best.",
    )
    predictions: Name | Literal["auto"] | None = Field(
        default="auto",
        description="Model or judge whose predictions are used, or `blend`. `auto` is the blend if it is finished. "
        "null uses votes alone.",
    )
    weights: Literal["votes", "pairs"] = Field(
        default="votes",
        description="What counts alike: `votes`, or `pairs` of models, whatever their number of votes. `pairs` is for "
        "ratings from votes alone.",
    )
    clusters: Literal["prompts", "votes"] = Field(
        default="prompts",
        description="What is independent, for intervals: `prompts`, or `votes` as in the arena's leaderboard.",
    )
    intervals: Literal["sandwich", "bootstrap"] = Field(
        default="sandwich",
        description="Intervals of ratings: by the `sandwich` formula, or by a `bootstrap` of prompts for votes alone.",
    )
    repetitions: Annotated[int, Field(ge=100)] = Field(default=1000, description="Draws of the bootstrap.")
    shrinkage: NotNegative | Literal["auto"] = Field(
        default="auto",
        description="How strongly ratings are pulled to the mean: the inverse variance of their prior, in log-odds. "
        "`auto` learns it from the votes, so few votes are shrunken. 0 is maximum likelihood.",
    )
    style: list[str] = Field(
        default=[],
        description="Differences of style that ratings are controlled for: length, headers, lists and bold, as in the "
        "arena's style control, or columns of the tables in `features`. It is for ratings from votes alone.",
    )
    style_penalty: NotNegative = Field(
        default=0.0, description="Penalty on half the squared coefficients of style, for the mean loss of a vote."
    )
    slices: bool = Field(default=True, description="Whether to rate each slice as well: language, turns and code.")
    least_votes: Count = Field(default=200, description="Fewest votes of a slice that is rated.")

    @model_validator(mode="after")
    def _votes_alone(self) -> Leaderboard:
        check_unique(self.style, "style")
        if self.for_votes_alone and self.method in ("powered", "hierarchical"):
            raise ValueError(
                f"{self.for_votes_alone[0]} is for ratings from votes alone; set method to votes, or leave it out"
            )
        return self

    @property
    def for_votes_alone(self) -> list[str]:
        """Return the settings that ratings with predictions do not know."""
        given = {
            "style": bool(self.style),
            "weights=pairs": self.weights == "pairs",
            "intervals=bootstrap": self.intervals == "bootstrap",
        }
        return [name for name, is_set in given.items() if is_set]
