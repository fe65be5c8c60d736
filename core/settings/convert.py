"""Settings of the job convert: votes in another tool's shape."""

from typing import Annotated

from pydantic import Field, model_validator

from core.registry import EXPORTS
from core.settings.base import NotNegative, StrictModel, member_of


class Convert(StrictModel):
    """Which shape votes are written in, and where."""

    to: Annotated[str, member_of(EXPORTS)] | None = Field(
        None, description="Shape to write: trl, kaggle, wsdm, arena, openai-dpo, annotated-pairs or a plugin's."
    )
    output: str | None = Field(None, description="File to write: a path or a URI.")
    margins: bool = Field(
        False, description="Whether to add the margin of the run's blend: ln P(chosen) / P(rejected), out-of-fold."
    )
    min_margin: NotNegative = Field(
        0.0,
        description="Least size of ln P(A) / P(B) by the run's blend, whichever side the votes took; records below it "
        "are left out and counted.",
    )

    @property
    def reads_blend(self) -> bool:
        """Whether the run's predictions are needed."""
        return self.margins or self.min_margin > 0

    @model_validator(mode="after")
    def _both_or_none(self) -> "Convert":
        if (self.to is None) != (self.output is None):
            missing = "output" if self.output is None else "to"
            raise ValueError(f"{missing} is missing: a shape and a file belong together")
        return self
