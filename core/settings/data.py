"""Settings of the votes: input, folds, shards."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from core.registry import FORMATS
from core.settings.base import Name, PositiveInt, StrictModel, check_unique, member_of


def _path(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def winner_column(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return the settings of a column that is given by its name alone."""
    return {"column": value} if isinstance(value, str | list) else value


def _outcomes(values: Any) -> Any:  # noqa: ANN401 - raw YAML
    names = ["a", "b", "tie", "both_bad"]
    if isinstance(values, list) and (len(values) < 2 or values != names[: len(values)]):
        raise ValueError("write [a, b], [a, b, tie] or [a, b, tie, both_bad]")
    return values


Outcome = Literal["a", "b", "tie", "both_bad"]
Outcomes = Annotated[list[Outcome], BeforeValidator(_outcomes)]


class Synthetic(StrictModel):
    """Made-up pairs, used when `data.train` is not given."""

    train_rows: PositiveInt = Field(2000, description="Made-up pairs with votes.")
    test_rows: PositiveInt = Field(500, description="Made-up pairs to score.")
    outcomes: Outcomes = Field(
        ["a", "b", "tie"], description="Outcomes of the made-up votes: the first two, three or four of these."
    )


class Source(StrictModel):
    """Votes from one place. The first of several sources is the primary one: only its records are held out."""

    name: Name = Field(description="Name of the source, unique among the sources.")
    path: Annotated[str, Field(min_length=1)] = Field(description="File, folder, glob or URI with votes.")
    weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of each of its records in training; 0 leaves the source out."
    )


ColumnPath = Annotated[tuple[str | int, ...], BeforeValidator(_path)]


class WinnerColumn(StrictModel):
    """The column of the vote, and what its values mean."""

    column: ColumnPath = Field(description="Column, or path as for the texts.")
    map: dict[str, Outcome] = Field({}, description="Outcome of each value, such as `{1: a, 2: b, 0: tie}`.")


class Columns(StrictModel):
    """Where a table of no known format holds what: a column, or a list of a column and keys or positions inside it."""

    prompt: ColumnPath = Field(description="Prompt, such as `question`, or `[messages, 0, content]`.")
    response_a: ColumnPath = Field(description="First answer.")
    response_b: ColumnPath = Field(description="Second answer.")
    winner: Annotated[WinnerColumn, BeforeValidator(winner_column)] | None = Field(
        None, description="Vote: a column with A, B, tie and so on, or `{column: label, map: {1: a, 2: b, 0: tie}}`."
    )
    id: ColumnPath | None = Field(
        None, description="Id of the row. Default: a digest of the texts; of pairs to score, the row's number."
    )
    pair_id: ColumnPath | None = Field(None, description="Id of the pair, where several rows have votes on it.")
    voter: ColumnPath | None = Field(None, description="Who has voted.")
    time: ColumnPath | None = Field(None, description="When.")
    model_a: ColumnPath | None = Field(None, description="Model of the first answer.")
    model_b: ColumnPath | None = Field(None, description="Model of the second answer.")
    language: ColumnPath | None = Field(None, description="Language of the prompt.")

    def paths(self) -> dict[str, tuple[str | int, ...]]:
        """Return the paths that are given, by our own names."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        if self.winner is not None:
            named["winner"] = self.winner.column
        return {name: path for name, path in named.items() if path is not None}

    @property
    def winner_map(self) -> dict[str, Outcome]:
        """Outcomes by the winner's values; empty for the usual names."""
        return {} if self.winner is None else self.winner.map


class Voters(StrictModel):
    """How votes of several people are weighed."""

    model: Literal["none", "reliability"] = Field(
        "none",
        description="`none` weighs all voters alike. `reliability` weighs a vote in training by what a fitted model of "
        "its voter says of it; scores count all votes alike. The model is fitted to all votes once; the report lists "
        "it among what has seen held-out votes.",
    )


class Data(StrictModel):
    """Input and its division into folds and shards."""

    renamed_values: ClassVar[dict[str, dict[str, str]]] = {"sources": {"chosen": "select"}}

    train: str | list[Source] | None = Field(
        None, description="Votes: a file, folder, glob or URI, or a list of sources; the first one is primary."
    )
    sources: Literal["select", "all"] = Field(
        "select",
        description="How folds use the other sources. `select` trains on sources that lower the loss of records "
        "outside the fold. `all` trains on all sources.",
    )
    test: str | None = Field(None, description="Pairs to score: a file, folder, glob or URI.")
    synthetic: Synthetic | None = Field(None, description="Made-up pairs, used while `data.train` is not given.")
    format: Annotated[str, member_of(FORMATS)] | None = Field(
        None, description="Format of the votes, such as kaggle or arena. Default: recognized by the columns."
    )
    columns: Columns | None = Field(None, description="Names of the columns of a table of no known format.")
    pairs: Literal["all", "adjacent", "best_worst"] = Field(
        "all", description="Pairs of a ranked list: each two answers, neighbors by rank, or the two ends."
    )
    outcomes: Outcomes | None = Field(
        None,
        description="Outcomes to predict, in the order a, b, tie, both_bad. Default: a, b, and tie if there are ties; "
        "both_bad is a tie.",
    )
    weights: Annotated[str, Field(pattern=r"^(per_vote|per_pair|column:.+)$")] = Field(
        "per_vote",
        description="Weight of a pair in training and scores: its votes (per_vote), 1 (per_pair), or the sum of "
        "a column over its votes (column:NAME), whose mean becomes 1.",
    )
    voters: Voters = Field(Voters(), description="How votes of several people are weighed.")
    encoding: str | None = Field(
        None, description="Encoding of CSV and JSON. Default: UTF-8, or what a byte order mark says."
    )
    text_format: Literal["auto", "json", "plain"] = Field(
        "auto",
        description="Texts of the formats kaggle and winner, and of `columns`, as lists of turns (json) or as plain "
        "text. `auto` is what most rows of a file have.",
    )
    folds: Annotated[int, Field(ge=2, le=100)] = Field(10, description="Folds of the training records.")
    shard_rows: PositiveInt = Field(2048, description="Rows of one shard: the unit of work and of resume.")

    @property
    def weight_column(self) -> str | None:
        """Column with the weights of votes, if any."""
        return self.weights.partition(":")[2] or None

    @property
    def primary(self) -> str | None:
        """Path of the votes that are divided into folds, if given."""
        return self.train[0].path if isinstance(self.train, list) else self.train

    @property
    def others(self) -> list[Source]:
        """Further sources, which are trained on but never held out."""
        return self.train[1:] if isinstance(self.train, list) else []

    @model_validator(mode="after")
    def _format_or_columns(self) -> "Data":
        if self.format is not None and self.columns is not None:
            raise ValueError("format and columns cannot both be given")
        return self

    @model_validator(mode="after")
    def _sources_differ(self) -> "Data":
        if isinstance(self.train, list):
            if not self.train:
                raise ValueError("a list of sources needs at least one")
            check_unique([source.name for source in self.train], "sources")
            if self.train[0].weight != 1:
                raise ValueError("the first source is the primary one and has a weight of 1; set the others' weights")
        return self
