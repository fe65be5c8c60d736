"""Define scoring modes: how to prompt a language model with a record, and how to read its reply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

    from core.settings.llm import Llm


@dataclass(frozen=True)
class PromptFrame:
    """The texts before and behind a record, control tokens written out, as a model's chat template sets them."""

    before: str
    behind: str


class ScoringMode(ABC):
    """A way to get the outcomes' probabilities of a record from a language model.

    Register a subclass with `core.registry.MODES.register`. Its module is imported when settings are loaded, so it
    imports torch, transformers and vLLM inside its methods only. Instances hold no state.
    """

    name: ClassVar[str]
    """The mode's name in the settings."""

    summary: ClassVar[str]
    """One line for the documentation."""

    task_type: ClassVar[Literal["classify", "generate"]]
    """The task that ray.data.llm starts vLLM for."""

    architecture: ClassVar[str]
    """How the name of the checkpoint's architecture in transformers ends."""

    fixed_packing: ClassVar[bool]
    """Whether the checkpoint has a packing.json, which describes the packing of its training records."""

    hangs_at_max_model_len: ClassVar[bool]
    """Whether vLLM 0.29 hangs on requests of exactly `max_model_len` tokens that it reads in two steps."""

    def check_settings(self, llm: Llm) -> None:  # noqa: B027 - most modes work with all settings
        """Raise ValueError for settings that this mode cannot work with."""

    @abstractmethod
    def check_config(self, config: Mapping[str, Any], where: str, classes: int | None = 3) -> None:
        """Raise InputError unless a checkpoint with this config.json can score `classes` outcomes.

        `where` names the checkpoint. `classes` is None where the votes are not known yet.
        """

    def check_weights(  # noqa: B027
        self, shapes: Mapping[str, Sequence[int]], folder: Path, classes: int | None = 3
    ) -> None:
        """Raise InputError unless weights of these shapes, by the tensors' names, can score."""

    def frame(self, tokenizer: Any, classes: int = 3) -> PromptFrame | None:  # noqa: ANN401 - of transformers, untyped
        """Return the texts around a record in a request; None for the plain packing that train_llm trains on.

        Raises InputError if the tokenizer cannot frame a record.
        """
        return None

    def answer_ids(self, tokenizer: Any, frame: PromptFrame | None, classes: int = 3) -> tuple[int, ...]:  # noqa: ANN401
        """Return the token ids of the outcomes' answers after a framed record; empty for classifiers.

        Raises InputError if the tokenizer has none.
        """
        return ()

    def sampling_options(self, answer_ids: Sequence[int]) -> dict[str, Any] | None:
        """Return vLLM's sampling parameters; None if the model does not write."""
        return None

    @abstractmethod
    def probabilities(self, reply: Mapping[str, Any], answer_ids: Sequence[int]) -> Sequence[float]:
        """Return the weights of the outcomes, of any sum above 0, from a row that ray.data.llm returns."""

    @abstractmethod
    def load_model(self, checkpoint: str, classes: int = 3) -> PreTrainedModel:
        """Load a checkpoint at its own precision, to merge an adapter into it. Raises InputError if that fails."""

    @abstractmethod
    def new_model(self, config: Any) -> PreTrainedModel:  # noqa: ANN401 - a configuration of transformers
        """Make a model of this configuration without loading weights, to count its parameters."""
