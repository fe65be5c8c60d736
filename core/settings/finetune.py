"""The part of the schema of settings that is about fine-tuning."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from core.settings.base import Count, Name, NotNegative, Positive, PositiveInt, Strict
from featurize.tokens.packing import Layout
from featurize.tokens.truncation import Truncation
from train.finetune import settings as domain

Rate = Annotated[float, Field(ge=0, lt=1)]


class TrainingStage(Strict):
    """Epochs that train the head, the head and the backbone's last so many layers, or everything."""

    train: Literal["head", "all"] | PositiveInt = "all"
    epochs: PositiveInt = 1
    learning_rate: Positive
    warm_up: Rate = (
        domain.TrainingStage.warm_up
    )  # share of the stage's steps over which the learning rate rises; then it falls in a line to 0
    weight_decay: NotNegative = domain.TrainingStage.weight_decay
    clip: Positive = domain.TrainingStage.clip  # of the gradient's norm


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

    r: PositiveInt = domain.Lora.r
    alpha: PositiveInt = domain.Lora.alpha
    dropout: Rate = domain.Lora.dropout


class Teacher(Strict):
    """A model of this run whose out-of-fold predictions are learnt from beside the votes."""

    model: Name
    # Of the teacher; the votes have the rest.
    weight: Annotated[float, Field(gt=0, le=1)] = domain.Distillation.weight
    temperature: Positive = domain.Distillation.temperature


class FineTuned(Strict):
    """A pre-trained model that is fine-tuned on the records, by folds."""

    layout: ClassVar[Layout]  # how the ids of a record are framed
    name: Name
    max_tokens: Annotated[int, Field(ge=64)]
    truncation: Truncation = "right"  # what of a record that is too long is left out
    stages: Annotated[list[TrainingStage], Field(min_length=1)]
    folds: Annotated[list[Count], Field(min_length=1)] | None = None  # which are trained; all if not given
    folds_at_once: PositiveInt | None = None  # as many as the cluster has room for if not given
    records_per_step: PositiveInt = domain.FineTuning.records_per_step  # of all workers together
    # Of one forward and backward pass, padding included. A record in its orders is the least, however long it is.
    tokens_per_batch: PositiveInt = domain.FineTuning.tokens_per_batch
    # Both orders of a record in the same step; else one of them, drawn anew each epoch.
    both_orders: bool = domain.FineTuning.both_orders
    label_smoothing: Rate = domain.FineTuning.label_smoothing
    precision: Literal["float32", "bfloat16"] = domain.FineTuning.precision
    gradient_checkpointing: bool = domain.FineTuning.gradient_checkpointing
    teacher: Teacher | None = None
    workers: PositiveInt = domain.FineTuning.workers
    cpus_per_worker: PositiveInt = domain.FineTuning.cpus_per_worker
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = domain.FineTuning.gpus_per_worker


class Encoder(FineTuned):
    """An encoder for sequence classification; the defaults are the published schedule on DeBERTaV3."""

    layout: ClassVar[Layout] = "encoder"
    model: Annotated[str, Field(min_length=1)] | None = None  # a folder, URI or hub id; microsoft/deberta-v3-base
    scratch: Scratch | None = None
    # `classifier` is the architecture's own, on the first token; `answers` compares the answers' mean states, which
    # needs fewer votes: see train/finetune/answers_model.py.
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
            raise ValueError("give either model (a folder, URI or hub id) or scratch (random weights)")
        return self


class TrainedLlm(FineTuned):
    """A language model that is fine-tuned with LoRA."""

    layout: ClassVar[Layout] = "decoder"
    model: Annotated[str, Field(min_length=1)] = "google/gemma-2-9b-it"
    lora: Lora = Lora()
    base_4bit: bool = domain.FineTuning.base_4bit  # the frozen weights in 4 bits, by bitsandbytes; GPUs only
    max_tokens: Annotated[int, Field(ge=64)] = 2048
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    gradient_checkpointing: bool = True
    stages: Annotated[list[TrainingStage], Field(min_length=1)] = [TrainingStage(learning_rate=1e-4)]

    @model_validator(mode="after")
    def _adapters_and_head_are_trained(self) -> "TrainedLlm":
        for stage in self.stages:
            if stage.train != "all":
                raise ValueError(
                    f"a stage asks to train {stage.train!r}, but LoRA trains its adapters and the head in every stage; "
                    "leave `train` out"
                )
        return self

    @model_validator(mode="after")
    def _four_bits_have_a_gpu(self) -> "TrainedLlm":
        if self.base_4bit and not self.gpus_per_worker:
            raise ValueError("base_4bit works on GPUs only; add gpus_per_worker: 1")
        return self
