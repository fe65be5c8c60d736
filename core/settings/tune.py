"""Settings of the search for boosters' parameters."""

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.errors import InputError
from core.registry import ENGINES
from core.settings.base import Name, PositiveInt, StrictModel
from core.settings.boosters import ROUNDS_PARAMETER, Booster


class Dimension(StrictModel):
    """Values of one parameter between `low` and `high`, both included."""

    renamed: ClassVar[dict[str, str]] = {"whole": "integer"}

    low: float = Field(description="Smallest value.")
    high: float = Field(description="Largest value.")
    log: bool = Field(default=False, description="Draw uniformly in the logarithm.")
    integer: bool = Field(default=False, description="Draw integers only.")

    @model_validator(mode="after")
    def _is_a_range(self) -> "Dimension":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithm needs low above 0")
        if self.integer and (self.low % 1 or self.high % 1 or (self.log and self.low < 1)):
            raise ValueError("low and high of integers must be integers, from 1 up on a logarithm")
        return self


Space = Mapping[str, Dimension]


class Search(StrictModel):
    """The search for one booster's parameters; train_boosters then trains with the best ones."""

    renamed: ClassVar[dict[str, str]] = {"reduction": "reduction_factor"}
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {"space": {"ours": "default"}}

    booster: Name = Field(description="Name of the booster whose parameters are searched.")
    trials: PositiveInt = Field(default=30, description="Number of candidates.")
    sampler: Literal["random", "tpe"] = Field(
        default="random", description="random draws candidates independently; tpe learns from finished trials (Optuna)."
    )
    space: str | dict[str, Dimension] = Field(
        default="default",
        description="Name of a search space of the engine (default; xgboost also has published). Or a mapping of "
        "parameters, and of rounds, to ranges.",
    )
    folds: Annotated[int, Field(ge=2, le=100)] = Field(
        default=5, description="Folds of a trial, into which the folds of data.folds are merged."
    )
    grace_rounds: PositiveInt = Field(default=100, description="Rounds before which ASHA stops no trial.")
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        default=3, description="One trial in this many continues at each rung of ASHA."
    )

    @field_validator("space")
    @classmethod
    def _is_known(cls, space: str | dict[str, Dimension]) -> str | dict[str, Dimension]:
        names = {name for engine in ENGINES for name in engine.search_spaces}
        if isinstance(space, str) and space not in names:
            raise ValueError(f"no engine has this search space; known names: {', '.join(sorted(names))}")
        return space

    @model_validator(mode="after")
    def _space_is_sound(self) -> "Search":
        if isinstance(self.space, dict):
            if not self.space:
                raise ValueError("an empty space has nothing to search")
            rounds = self.space.get(ROUNDS_PARAMETER)
            if rounds is not None and not (rounds.integer and rounds.low >= 1):
                raise ValueError("rounds are integers from 1 up: add `integer: true`")
        return self

    def key(self, path: str) -> str:
        """Return the name of one of these settings in messages."""
        return f"tune.{self.booster}.{path}"

    def space_of(self, engine: str) -> Space:
        """Return the ranges to search for a booster of this engine.

        Raises InputError if the engine has no space of this name.
        """
        if isinstance(self.space, dict):
            return self.space
        spaces: Mapping[str, Space] = ENGINES.get(engine).search_spaces
        if self.space not in spaces:
            names = ", ".join(repr(name) for name in spaces)
            fix = f"use {names}, or a mapping." if spaces else "give a mapping of parameters to their ranges."
            raise InputError(f"engine {engine!r} has no search space {self.space!r}", self.key("space"), fix)
        return spaces[self.space]

    def check_booster(self, booster: Booster) -> None:
        """Raise InputError if this booster's engine cannot search the space, or the booster sets what is searched."""
        space = self.space_of(booster.engine)
        highest = {name: dimension.high for name, dimension in space.items() if name != ROUNDS_PARAMETER}
        ENGINES.get(booster.engine).check_parameters(highest, self.key("space"))
        check_searchable(highest, booster, self.key("space"))


def check_searchable(names: Iterable[str], booster: Booster, where: str) -> None:
    """Raise InputError for a parameter that no search can vary, or that the booster sets under another name.

    `names` are the parameters to search, `where` names their setting.
    """
    engine = ENGINES.get(booster.engine)
    searched = {engine.main_name(name): name for name in names if name != ROUNDS_PARAMETER}
    for name in booster.params:
        other = searched.get(engine.main_name(name), name)
        if other != name:
            raise InputError(
                f"{name} and the search's {other} are one parameter",
                booster.key(f"params.{name}"),
                "leave it out, or search it under that name.",
            )
    for name in searched.values():
        if engine.fixed_by_data(name):
            raise InputError(
                "all trials share one binned matrix, which fixes this parameter",
                f"{where}.{name}",
                "set it in the booster's params.",
            )
