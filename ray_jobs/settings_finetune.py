"""The part of the schema of settings that is about fine-tuning."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from preference.truncation import Truncation
from ray_jobs.settings_base import Count, Name, NotNegative, Positive, PositiveInt, Strict

Rate = Annotated[float, Field(ge=0, lt=1)]


class TrainingStage(Strict):
    """Epochs that train the head, the head and the backbone's last so many layers, or everything."""

    train: Literal["head", "all"] | PositiveInt = "all"
    epochs: PositiveInt = 1
    learning_rate: Positive
    warm_up: Rate = 0.1  # share of the stage's steps over which the learning rate rises; then it falls in a line to 0
    weight_decay: NotNegative = 0.01
    clip: Positive = 1.0  # of the gradient's norm


class Scratch(Strict):
    """An encoder of random weights, with a tokenizer made from the training records: for want of a pre-trained one."""

    architecture: Literal["deberta-v2", "bert"] = "deberta-v2"
    layers: PositiveInt = 2
    hidden: PositiveInt = 64
    heads: PositiveInt = 2
    vocabulary: Annotated[int, Field(ge=500)] = 4000

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> "Scratch":
        if self.hidden % self.heads:
            raise ValueError(f"{self.heads} heads cannot share {self.hidden} dimensions evenly")
        return self


class Lora(Strict):
    """Low-rank adapters on all linear layers."""

    r: PositiveInt = 64
    alpha: PositiveInt = 16
    dropout: Rate = 0.05


class Teacher(Strict):
    """A model of this run whose out-of-fold predictions are learnt from beside the votes."""

    model: Name
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5  # of the teacher; the votes have the rest
    temperature: Positive = 1.0


class FineTuned(Strict):
    """A pre-trained model that is fine-tuned on the records, by folds."""

    name: Name
    max_tokens: Annotated[int, Field(ge=64)]
    truncation: Truncation = "right"  # what of a record that is too long is left out
    stages: Annotated[list[TrainingStage], Field(min_length=1)]
    folds: Annotated[list[Count], Field(min_length=1)] | None = None  # which are trained; all if not given
    folds_at_once: PositiveInt | None = None  # as many as the cluster has room for if not given
    records_per_step: PositiveInt = 16  # of all workers together
    tokens_per_batch: PositiveInt = 8192  # of one forward and backward pass, padding included
    both_orders: bool = True  # both orders of a record in the same step; else one of them, drawn anew each epoch
    label_smoothing: Rate = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    teacher: Teacher | None = None
    workers: PositiveInt = 1
    cpus_per_worker: PositiveInt = 1
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0


class Encoder(FineTuned):
    """An encoder for sequence classification; the defaults are the published schedule on DeBERTaV3."""

    model: Annotated[str, Field(min_length=1)] | None = None  # a folder or hub id; microsoft/deberta-v3-base
    scratch: Scratch | None = None
    # `classifier` is the architecture's own, on the first token; `answers` compares the answers' mean states, which
    # needs fewer votes: see preference/answers_model.py.
    head: Literal["classifier", "answers"] = "classifier"
    max_tokens: Annotated[int, Field(ge=64)] = 512
    label_smoothing: Rate = 0.02
    stages: Annotated[list[TrainingStage], Field(min_length=1)] = [
        TrainingStage(train="head", epochs=4, learning_rate=1e-3),
        TrainingStage(train=2, epochs=1, learning_rate=5e-6),
        TrainingStage(train="all", epochs=4, learning_rate=1e-6),
    ]

    @property
    def base(self) -> str:
        """The pre-trained model."""
        return self.model or "microsoft/deberta-v3-base"

    @model_validator(mode="after")
    def _one_origin(self) -> "Encoder":
        if self.model is not None and self.scratch is not None:
            raise ValueError("give either model (a folder or hub id) or scratch (random weights)")
        return self


class TrainedLlm(FineTuned):
    """A language model that is fine-tuned with LoRA."""

    model: Annotated[str, Field(min_length=1)] = "google/gemma-2-9b-it"
    lora: Lora = Lora()
    base_4bit: bool = False  # the frozen weights in 4 bits, by bitsandbytes; GPUs only
    max_tokens: Annotated[int, Field(ge=64)] = 2048
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    gradient_checkpointing: bool = True
    stages: Annotated[list[TrainingStage], Field(min_length=1)] = [TrainingStage(learning_rate=1e-4)]
