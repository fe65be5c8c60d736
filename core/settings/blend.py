"""Settings of the blend."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from core.settings.base import Name, StrictModel, check_unique


class Blend(StrictModel):
    """How predictions are combined into the submission."""

    renamed_values: ClassVar[dict[str, dict[str, str]]] = {"submission": {"learnt": "learned"}}

    models: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None, description="Models to blend. Default: all models that predict every fold."
    )
    submission: Literal["learned", "linear", "log", "greedy", "equal", "preset"] = Field(
        default="learned",
        description="Blend that the submission file holds. `linear` is a weighted mean, `log` a weighted geometric "
        "mean. `learned` is the one of these two with the lower out-of-fold log loss. `greedy` is ensemble selection. "
        "`equal` gives all models the same weight. `preset` has the weights of `preset`.",
    )
    submission_format: Literal["auto", "probabilities", "winner"] = Field(
        default="auto",
        description="Columns of the submission file. `probabilities` has one for each outcome, as the LMSYS "
        "competition asks. `winner` names the most probable outcome, as the WSDM Cup asks. `auto` is `winner` for two "
        "outcomes.",
    )
    calibration: Literal["auto", "none", "temperature", "vector", "isotonic"] = Field(
        default="auto",
        description="Calibration of the blend. `auto` is the simplest method within one standard error of the best "
        "out-of-fold log loss. With fewer than 20 prompts it is `none` or `temperature`.",
    )
    length_debias: bool = Field(default=False, description="Whether to predict as if both answers had the same length.")
    preset: dict[Name, Annotated[float, Field(ge=0)]] = Field(
        default={"gemma": 50.0, "llama": 42.0, "lightgbm": 0.5},
        description="Weights of the blend `preset`, by model. Default: the weights of the published Kaggle solution.",
    )

    @model_validator(mode="after")
    def _check_preset_and_models(self) -> Blend:
        check_unique(self.models or [], "models of the blend")
        if self.submission == "preset" and (self.length_debias or self.calibration not in ("auto", "none")):
            key = "length_debias" if self.length_debias else "calibration"
            raise ValueError(f"the preset is submitted as published, so {key} cannot change it")
        return self
