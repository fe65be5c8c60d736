"""Settings of boosters: models on features."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from core.registry import ENGINES
from core.settings.base import Name, PositiveInt, StrictModel, member_of

ROUNDS_PARAMETER: Final = "rounds"  # the one name in a search space that is no parameter of the engine


class Booster(StrictModel):
    """One model on features: an engine and the engine's own parameters."""

    renamed: ClassVar[dict[str, str]] = {
        "actors_per_fold": "num_workers",
        "cpus_per_fold": "cpus_per_worker",
        "both_orders": "swap: both (was true) or swap: none (was false)",
    }
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {"engine": {"two_part": "linear"}}

    name: Name = Field(description="Name of the model in files, in the blend and in the report.")
    engine: Annotated[str, member_of(ENGINES)] = Field(
        description="Name of the booster engine: lightgbm, xgboost, linear or a plugin's."
    )
    features: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None, description="Feature families and n-gram blocks that the model sees; null takes all."
    )
    rounds: PositiveInt = Field(
        default=300, description="Boosting rounds at most; each grows one tree per outcome. A linear model has none."
    )
    early_stopping_rounds: PositiveInt | None = Field(
        default=30, description="Rounds without a lower held-out log loss after which training stops; null never stops."
    )
    params: dict[str, bool | int | float | str] = Field(
        default={}, description="Parameters of the engine's library under the library's own names."
    )
    swap: Literal["both", "none"] = Field(
        default="both",
        description="`both` trains on A/B and B/A, and averages the predictions over both orders. `none` uses the "
        "order as given.",
    )
    fold_weights: Literal["equal", "inverse_loss"] = Field(
        default="equal",
        description="Weights of the folds' models in test predictions; inverse_loss uses 1 / held-out log loss.",
    )
    checkpoint_every: PositiveInt = Field(
        default=100,
        description="Rounds between checkpoints, which is what a killed worker costs at most. "
        "Another value gives another model: random numbers are drawn again after each checkpoint.",
    )
    cpus_per_worker: PositiveInt = Field(
        default=1, description="CPUs, and threads, of each training process of a fold."
    )
    num_workers: PositiveInt = Field(
        default=1,
        description="Training processes that share one fold, for folds that are too large for one machine. "
        "Many folds on one CPU each are faster than one fold on many.",
    )

    @property
    def swaps(self) -> bool:
        """Whether the model trains on and predicts both orders of the answers."""
        return self.swap == "both"

    @property
    def fold_cpus(self) -> int:
        """CPUs that a fold takes in all its workers."""
        return self.cpus_per_worker * self.num_workers

    def key(self, path: str) -> str:
        """Return the name of one of these settings as --set takes it."""
        return f"boosters.{self.name}.{path}"

    def with_parameters(self, parameters: Mapping[str, Any] | None) -> "Booster":
        """Return the settings with the parameters of a candidate, or of the best one, in place of their own."""
        if parameters is None:
            return self
        own = {name: value for name, value in parameters.items() if name != ROUNDS_PARAMETER}
        rounds = int(parameters.get(ROUNDS_PARAMETER, self.rounds))
        return self.model_copy(update={"params": {**self.params, **own}, "rounds": rounds})

    @model_validator(mode="after")
    def _engine_takes_them(self) -> "Booster":
        ENGINES.get(self.engine).check_settings(self)
        return self
