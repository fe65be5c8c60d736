"""Settings of judges: tables of verdicts that were made elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from core.registry import VERDICT_FORMATS
from core.settings.base import NotNegative, StrictModel, check_unique, member_of
from core.settings.data import ColumnPath, WinnerColumn, winner_column


class VerdictColumns(StrictModel):
    """Where a table of no known format holds what: a column, or a list of a column and keys or positions inside it."""

    id: ColumnPath = Field(description="Id of the record, or of the pair of answers.")
    verdict: Annotated[WinnerColumn, BeforeValidator(winner_column)] | None = Field(
        None, description="Verdict: a column with A, B, tie and so on, or `{column: label, map: {1: a, 2: b, 0: tie}}`."
    )
    p_a: ColumnPath | None = Field(None, description="Probability of A.")
    p_b: ColumnPath | None = Field(None, description="Probability of B.")
    p_tie: ColumnPath | None = Field(None, description="Probability of a tie.")
    score_a: ColumnPath | None = Field(None, description="Score of answer A on its own.")
    score_b: ColumnPath | None = Field(None, description="Score of answer B on its own.")
    judge: ColumnPath | None = Field(None, description="Name of the judge.")
    order: ColumnPath | None = Field(None, description="Order in which the judge saw the answers: ab or ba.")
    model_a: ColumnPath | None = Field(None, description="Model of answer A, where a table has pairs in either order.")
    model_b: ColumnPath | None = Field(None, description="Model of answer B.")
    cost: ColumnPath | None = Field(None, description="Cost of the verdict in dollars.")
    seconds: ColumnPath | None = Field(None, description="Time that the verdict took, in seconds.")

    @model_validator(mode="after")
    def _some_verdict(self) -> VerdictColumns:
        if self.verdict is None and (self.p_a is None or self.p_b is None) and (self.score_a or self.score_b) is None:
            raise ValueError("name verdict, or p_a and p_b, or score_a and score_b")
        if (self.score_a is None) != (self.score_b is None):
            raise ValueError("score_a and score_b belong together")
        return self

    def paths(self) -> dict[str, tuple[str | int, ...]]:
        """Return the paths that are given, by our own names."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        if self.verdict is not None:
            named["verdict"] = self.verdict.column
        return {name: path for name, path in named.items() if path is not None}


class JudgeTable(StrictModel):
    """A table of verdicts. Each judge in it is a model of the run, under its own name."""

    path: Annotated[str, Field(min_length=1)] = Field(description="File, folder, glob or URI with verdicts.")
    format: Annotated[str, member_of(VERDICT_FORMATS)] | None = Field(
        None, description="Format of the table. Default: recognized by the columns."
    )
    columns: VerdictColumns | None = Field(None, description="Names of the columns of a table of no known format.")
    name: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Name of the judge, for a table that names none."
    )
    only: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Judges of the table to use. Default: all."
    )
    cost_per_1000: NotNegative | dict[str, NotNegative] | None = Field(
        None, description="Dollars for 1,000 pairs, of all judges of the table or by judge, for the report."
    )

    @model_validator(mode="after")
    def _format_or_columns(self) -> JudgeTable:
        if self.format is not None and self.columns is not None:
            raise ValueError("format and columns cannot both be given")
        check_unique(self.only or [], "judges in `only`")
        return self
