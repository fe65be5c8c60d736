"""Score with mode `classify`: a model with a trained head for A, B and tie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from core.errors import InputError
from core.registry import MODES
from infer.scoring.mode import ScoringMode
from votes.schema import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

_TRAIN = "train it with the job train_llm."
HEAD_WEIGHT = "score.weight"  # in every ...ForSequenceClassification of a decoder in transformers


@MODES.register
class Classify(ScoringMode):
    """Take the class probabilities of a sequence classifier."""

    name: ClassVar[str] = "classify"
    summary: ClassVar[str] = "A model with a head for A, B and tie, such as one from train_llm."
    task_type: ClassVar[Literal["classify", "generate"]] = "classify"
    architecture: ClassVar[str] = "ForSequenceClassification"
    fixed_packing: ClassVar[bool] = True
    hangs_at_max_model_len: ClassVar[bool] = True

    def check_config(self, config: Mapping[str, Any], where: str, classes: int | None = 3) -> None:
        """Raise InputError unless config.json is a classifier's of as many exclusive classes."""
        architectures = config.get("architectures") or []
        if not any(str(name).endswith(self.architecture) for name in architectures):
            raise InputError(
                f"not a sequence classifier, but {', '.join(map(str, architectures)) or 'no architecture'}",
                where,
                f"{_TRAIN[:-1]}, or ask an instruct model with mode: judge.",
            )
        # transformers omits id2label from config.json for two labels, its default.
        labels = len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))
        if classes is None:
            classes = min(max(labels, 2), len(LABELS))
        if labels != classes:
            names = ", ".join(LABELS[:classes])
            raise InputError(f"the head has {labels} classes, not {classes} ({names})", where, _TRAIN)
        problem = config.get("problem_type")
        if problem not in (None, "single_label_classification"):
            # vLLM would return raw scores, or probabilities that do not sum to 1.
            raise InputError(f"its head is for {problem}, not for one of several classes", where, _TRAIN)

    def check_weights(self, shapes: Mapping[str, Sequence[int]], folder: Path, classes: int | None = 3) -> None:
        """Raise InputError unless the weights have a head with a row for each class."""
        if HEAD_WEIGHT not in shapes:
            raise InputError(f"the weights have no trained head ({HEAD_WEIGHT})", str(folder), _TRAIN)
        if classes is not None and shapes[HEAD_WEIGHT][0] != classes:
            raise InputError(f"{HEAD_WEIGHT} has {shapes[HEAD_WEIGHT][0]} rows, not {classes}", str(folder), _TRAIN)

    def probabilities(self, reply: Mapping[str, Any], answer_ids: Sequence[int]) -> Sequence[float]:
        """Return the class probabilities, which ray.data.llm puts into the column `embeddings`."""
        values: Sequence[float] = reply["embeddings"]
        return values

    def load_model(self, checkpoint: str, classes: int = 3) -> PreTrainedModel:
        """Load a base with a head for the outcomes. An adapter brings the trained head."""
        from train.finetune.networks import load_with_head

        return load_with_head(checkpoint, "auto", classes)

    def new_model(self, config: Any) -> PreTrainedModel:  # noqa: ANN401 - of transformers
        """Make a classifier of the configuration's classes."""
        from transformers import AutoModelForSequenceClassification

        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        return model
