"""The part of the schema of settings that is about models on features."""

from typing import Annotated, Literal

from pydantic import Field

from core.settings.base import Name, PositiveInt, Strict


class Booster(Strict):
    """One model on features: the engine and its own parameters. `two_part` is linear and has no rounds."""

    name: Name
    engine: Literal["lightgbm", "xgboost", "two_part"]
    # Families and n-gram blocks that it sees; all if not given.
    features: Annotated[list[Name], Field(min_length=1)] | None = None
    rounds: PositiveInt = 300
    early_stopping_rounds: PositiveInt | None = 30  # null trains all rounds
    params: dict[str, bool | int | float | str] = {}
    both_orders: bool = True  # trains on swapped copies too, and averages predictions over both orders
    # How test predictions of the folds' models are averaged; inverse_loss weighs each by 1 / its held-out log loss.
    fold_weights: Literal["equal", "inverse_loss"] = "equal"
    # Rounds that the death of a worker costs at most. Fresh random numbers are drawn after each checkpoint, so this
    # number is part of what makes a model.
    checkpoint_every: PositiveInt = 100
    cpus_per_fold: PositiveInt = 1
    # Training processes that share a fold, each with cpus_per_fold CPUs: for folds too large for one machine's memory
    # or patience. Many folds on one CPU each beat one fold on many.
    actors_per_fold: PositiveInt = 1
