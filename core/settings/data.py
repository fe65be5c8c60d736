"""Settings of the votes: input, folds, shards."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from core.settings.base import Name, PositiveInt, StrictModel, check_unique


class Synthetic(StrictModel):
    """Made-up pairs, used when `data.train` is not given."""

    train_rows: PositiveInt = Field(2000, description="Made-up pairs with votes.")
    test_rows: PositiveInt = Field(500, description="Made-up pairs to score.")


class Source(StrictModel):
    """Votes from one place. The first of several sources is the primary one: only its records are held out."""

    name: Name = Field(description="Name of the source, unique among the sources.")
    path: Annotated[str, Field(min_length=1)] = Field(description="File, folder, glob or URI with votes.")
    weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of each of its records in training; 0 leaves the source out."
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
    text_format: Literal["auto", "json", "plain"] = Field(
        "auto",
        description="Texts as JSON lists of turns, as plain text, or `auto`: lists if all three texts of a row parse.",
    )
    folds: Annotated[int, Field(ge=2, le=100)] = Field(10, description="Folds of the training records.")
    shard_rows: PositiveInt = Field(2048, description="Rows of one shard: the unit of work and of resume.")

    @property
    def primary(self) -> str | None:
        """Path of the votes that are divided into folds, if given."""
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
            check_unique([source.name for source in self.train], "sources")
            if self.train[0].weight != 1:
                raise ValueError("the first source is the primary one and has a weight of 1; set the others' weights")
        return self
