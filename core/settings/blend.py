"""The part of the schema of settings that is about the blend."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.settings.base import Name, Strict, refuse_twice


class Blend(Strict):
    """How predictions are combined; `submission` names the blend that the submission file holds."""

    models: Annotated[list[Name], Field(min_length=1)] | None = None  # all that predict every record if not given
    # learnt is the better one out-of-fold of linear (a weighted mean) and log (a weighted geometric mean); greedy is
    # ensemble selection.
    submission: Literal["learnt", "linear", "log", "greedy", "equal", "preset"] = "learnt"
    # auto is the simplest within one standard error of the best out-of-fold.
    calibration: Literal["auto", "none", "temperature", "vector", "isotonic"] = "auto"
    length_debias: bool = False  # predict as if both answers were equally long
    # The published blend, by model name: Gemma 50, Llama 42, LightGBM 0.5.
    preset: dict[Name, Annotated[float, Field(ge=0)]] = {"gemma": 50.0, "llama": 42.0, "lightgbm": 0.5}

    @model_validator(mode="after")
    def _fits_together(self) -> "Blend":
        refuse_twice(self.models or [], "models of the blend")
        if self.submission == "preset" and (self.length_debias or self.calibration not in ("auto", "none")):
            key = "length_debias" if self.length_debias else "calibration"
            raise ValueError(f"the preset is submitted as published, so {key} cannot change it")
        return self
