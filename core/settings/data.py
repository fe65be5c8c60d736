"""The part of the schema of settings that is about the votes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.settings.base import Name, PositiveInt, Strict, refuse_twice


class Synthetic(Strict):
    """Pairs that the generator makes when `data.train` is not given."""

    train_rows: PositiveInt = 2000
    test_rows: PositiveInt = 500


class Source(Strict):
    """Votes from one place. Of several, the first is the primary one: only its records are held out and scored."""

    name: Name
    path: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(ge=0)] = 1.0  # of each of its records in training; 0 leaves them out


class Data(Strict):
    """Input and its division into folds and shards."""

    train: str | list[Source] | None = None
    # Of the other sources, whether a fold trains on those that lower the loss of records outside it, or on all.
    sources: Literal["chosen", "all"] = "chosen"
    test: str | None = None
    synthetic: Synthetic | None = None
    text_format: Literal["auto", "json", "plain"] = "auto"
    folds: Annotated[int, Field(ge=2, le=100)] = 10
    shard_rows: PositiveInt = 2048

    @property
    def primary(self) -> str | None:
        """Where the votes are that folds are made of, if they are given."""
        return self.train[0].path if isinstance(self.train, list) else self.train

    @property
    def others(self) -> list[Source]:
        """Further sources, which are trained on but never held out."""
        return self.train[1:] if isinstance(self.train, list) else []

    @model_validator(mode="after")
    def _sources_differ(self) -> "Data":
        if isinstance(self.train, list):
            if not self.train:
                raise ValueError("a list of sources needs at least one")
            refuse_twice([source.name for source in self.train], "sources")
            if self.train[0].weight != 1:
                raise ValueError("the first source is the primary one, against whose weight of 1 the others are set")
        return self
