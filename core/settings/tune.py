"""The part of the schema of settings that is about the search for boosters' settings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.settings.base import Name, PositiveInt, Strict


class Dimension(Strict):
    """Values of one parameter between `low` and `high`, both included."""

    low: float
    high: float
    log: bool = False  # drawn evenly in the logarithm
    whole: bool = False  # whole numbers

    @model_validator(mode="after")
    def _is_a_range(self) -> "Dimension":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithm needs low above 0")
        if self.whole and (self.low % 1 or self.high % 1 or (self.log and self.low < 1)):
            raise ValueError("whole numbers lie between whole numbers, on a logarithm from 1 up")
        return self


class Search(Strict):
    """The search for one booster's settings; train_boosters then trains with the best ones found."""

    booster: Name
    trials: PositiveInt = 30
    sampler: Literal["random", "tpe"] = "random"
    # `published` is the notebook's for XGBoost; a mapping names parameters, and rounds, with their ranges.
    space: Literal["ours", "published"] | dict[str, Dimension] = "ours"
    folds: Annotated[int, Field(ge=2, le=100)] = 5  # of a trial: the data's folds, put together into so many
    grace_rounds: PositiveInt = 100  # before which ASHA stops no trial
    reduction: Annotated[int, Field(ge=2)] = 3  # one trial in so many goes on at each of ASHA's rungs

    @model_validator(mode="after")
    def _space_is_sound(self) -> "Search":
        if isinstance(self.space, dict):
            if not self.space:
                raise ValueError("an empty space has nothing to search")
            rounds = self.space.get("rounds")
            if rounds is not None and not (rounds.whole and rounds.low >= 1):
                raise ValueError("rounds are whole numbers from 1 up: add `whole: true`")
        return self
