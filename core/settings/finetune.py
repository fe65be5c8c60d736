"""Settings of fine-tuning: encoders, and language models with LoRA."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from core.settings.base import Count, Name, NotNegative, Positive, PositiveInt, StrictModel
from core.settings.packing import TokenLayout, Truncation

Rate = Annotated[float, Field(ge=0, lt=1)]
TrainedPart = Literal["head", "all"] | PositiveInt
FinetuneDtype = Literal["float32", "bfloat16"]

_MODEL = "A pre-trained model: a folder, URI or hub id."
_MAX_TOKENS = "Tokens per record. Longer records are truncated."
_STAGES = "Training stages, in order. Each has an optimizer of its own."
_LABEL_SMOOTHING = "Share of each vote that is spread over all outcomes."
_DTYPE = "Type of activations, and of frozen weights under LoRA. Trained parameters are always float32."
_GRADIENT_CHECKPOINTING = "Recompute activations in the backward pass: less memory, one more forward pass."


class TrainingStage(StrictModel):
    """Epochs that train the same parameters with one optimizer."""

    renamed: ClassVar[dict[str, str]] = {"warm_up": "warmup_ratio", "clip": "max_grad_norm"}

    train: TrainedPart = Field(
        default="all",
        description="Trained parameters: `head`, `all`, or the head and this many of the backbone's last layers. "
        "LoRA always trains its adapters and the head.",
    )
    epochs: PositiveInt = Field(default=1, description="Passes over the training records.")
    learning_rate: Positive = Field(description="Peak learning rate of AdamW. It falls linearly to 0.")
    warmup_ratio: Rate = Field(default=0.1, description="Share of the steps over which the learning rate rises.")
    weight_decay: NotNegative = Field(default=0.01, description="AdamW's weight decay. Biases and norms have none.")
    max_grad_norm: Positive = Field(default=1.0, description="Norm to which the gradient is clipped.")


class Scratch(StrictModel):
    """An encoder with random weights, and a tokenizer trained on the training records."""

    architecture: Literal["deberta-v2", "bert"] = Field(default="deberta-v2", description="Its name in transformers.")
    layers: PositiveInt = Field(default=2, description="Number of layers.")
    hidden: PositiveInt = Field(default=64, description="Dimensions of the hidden states.")
    heads: PositiveInt = Field(default=2, description="Attention heads. They divide `hidden` evenly.")
    vocabulary: Annotated[int, Field(ge=500)] = Field(default=4000, description="Tokens in the vocabulary, at most.")

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> Scratch:
        if self.hidden % self.heads:
            raise ValueError(f"{self.heads} heads cannot share {self.hidden} dimensions evenly")
        return self


class Lora(StrictModel):
    """Low-rank adapters on all linear layers of the backbone (Hu et al. 2021)."""

    r: PositiveInt = Field(default=64, description="Rank of the adapters.")
    alpha: PositiveInt = Field(default=16, description="The adapters' output is scaled by alpha / r.")
    dropout: Rate = Field(default=0.05, description="Dropout on the adapters' input.")


class Teacher(StrictModel):
    """A model of this run whose out-of-fold predictions are learned from, in addition to the votes."""

    model: Name = Field(description="Name of the teacher.")
    weight: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="The teacher's share of the loss. The votes have the remainder."
    )
    temperature: Positive = Field(
        default=1.0, description="Temperature at which student and teacher are compared (Hinton et al. 2015)."
    )


class FinetunedModel(StrictModel):
    """A pre-trained model that is fine-tuned on the records, fold by fold."""

    renamed: ClassVar[dict[str, str]] = {
        "records_per_step": "global_batch_size",
        "tokens_per_batch": "max_tokens_per_microbatch",
        "both_orders": "swap: `both` for true, `random` for false",
        "precision": "dtype",
        "workers": "num_workers",
    }
    layout: ClassVar[TokenLayout]

    name: Name = Field(description="The model's name. It names folders and columns of the run.")
    max_tokens: Annotated[int, Field(ge=64)] = Field(description=_MAX_TOKENS)
    truncation: Truncation = Field(
        default="right",
        description="Rounds that a long record keeps: the first (`right`), the last (`left`), both ends (`middle`), "
        "or the first two and last two (`first-2-last-2`).",
    )
    stages: Annotated[list[TrainingStage], Field(min_length=1)] = Field(description=_STAGES)
    folds: Annotated[list[Count], Field(min_length=1)] | None = Field(
        default=None, description="Folds to train. All if not given; only models of all folds join the blend."
    )
    folds_at_once: PositiveInt | None = Field(
        default=None, description="Folds trained at the same time. As many as the cluster has room for if not given."
    )
    global_batch_size: PositiveInt = Field(
        default=16,
        description="Records in one optimizer step, over all workers together.",
    )
    max_tokens_per_microbatch: PositiveInt = Field(
        default=8192,
        description="Tokens in one forward and backward pass, padding included. A microbatch has at least one record.",
    )
    swap: Literal["both", "random"] = Field(
        default="both",
        description="Orders of the answers in a step. `both` has A, B and B, A of each record. `random` draws one "
        "order for each record and epoch.",
    )
    label_smoothing: Rate = Field(default=0.0, description=_LABEL_SMOOTHING)
    dtype: FinetuneDtype = Field(default="float32", description=_DTYPE)
    gradient_checkpointing: bool = Field(default=False, description=_GRADIENT_CHECKPOINTING)
    teacher: Teacher | None = Field(default=None, description="A model to learn from, in addition to the votes.")
    num_workers: PositiveInt = Field(
        default=1, description="Processes of a fold. Their number does not change the model."
    )
    cpus_per_worker: PositiveInt = Field(default=1, description="CPUs of each worker.")
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = Field(default=0, description="GPUs of each worker: 0 or 1.")

    @property
    def orders(self) -> int:
        """Sequences of each record in a step."""
        return 2 if self.swap == "both" else 1

    @property
    def adapters(self) -> Lora | None:
        """The adapters that are trained in place of the backbone; None if the backbone is trained."""
        return None

    @property
    def is_4bit(self) -> bool:
        """Whether the frozen weights have 4 bits."""
        return False

    @property
    def compares_answers(self) -> bool:
        """Whether the head is that of train.finetune.answers_model."""
        return False


class FinetunedEncoder(FinetunedModel):
    """An encoder with a head for the outcomes. The default stages are the published ones for DeBERTaV3."""

    layout: ClassVar[TokenLayout] = "encoder"

    model: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description=f"{_MODEL} microsoft/deberta-v3-base if neither this nor `scratch` is given."
    )
    scratch: Scratch | None = Field(default=None, description="Random weights in place of a pre-trained model.")
    head: Literal["classifier", "answers"] = Field(
        default="classifier",
        description="`classifier` is the architecture's own, on the first token. `answers` compares the mean states of "
        "both answers, and needs fewer votes.",
    )
    max_tokens: Annotated[int, Field(ge=64)] = Field(default=512, description=_MAX_TOKENS)
    label_smoothing: Rate = Field(default=0.02, description=_LABEL_SMOOTHING)
    stages: Annotated[list[TrainingStage], Field(min_length=1)] = Field(
        default=[
            TrainingStage(train="head", epochs=4, learning_rate=1e-3),
            TrainingStage(train=2, epochs=1, learning_rate=5e-6),
            TrainingStage(train="all", epochs=4, learning_rate=1e-6),
        ],
        description=_STAGES,
    )

    @property
    def base(self) -> str:
        """The pre-trained model."""
        return self.model or "microsoft/deberta-v3-base"

    @property
    def compares_answers(self) -> bool:
        """Whether the head is that of train.finetune.answers_model."""
        return self.head == "answers"

    @model_validator(mode="after")
    def _one_origin(self) -> FinetunedEncoder:
        if self.model is not None and self.scratch is not None:
            raise ValueError("give either model (a folder, URI or hub id) or scratch (random weights)")
        return self


class FinetunedLlm(FinetunedModel):
    """A language model with LoRA adapters and a head for the outcomes."""

    layout: ClassVar[TokenLayout] = "decoder"

    model: Annotated[str, Field(min_length=1)] = Field(default="google/gemma-2-9b-it", description=_MODEL)
    lora: Lora = Field(default=Lora(), description="The adapters.")
    base_4bit: bool = Field(default=False, description="Load frozen weights in 4 bits with bitsandbytes. GPUs only.")
    max_tokens: Annotated[int, Field(ge=64)] = Field(default=2048, description=_MAX_TOKENS)
    dtype: FinetuneDtype = Field(default="bfloat16", description=_DTYPE)
    gradient_checkpointing: bool = Field(default=True, description=_GRADIENT_CHECKPOINTING)
    stages: Annotated[list[TrainingStage], Field(min_length=1)] = Field(
        default=[TrainingStage(learning_rate=1e-4)], description=_STAGES
    )

    @property
    def adapters(self) -> Lora | None:
        """The adapters that are trained in place of the backbone."""
        return self.lora

    @property
    def is_4bit(self) -> bool:
        """Whether the frozen weights have 4 bits."""
        return self.base_4bit

    @model_validator(mode="after")
    def _adapters_and_head_are_trained(self) -> FinetunedLlm:
        for stage in self.stages:
            if stage.train != "all":
                raise ValueError(
                    f"a stage trains {stage.train!r}, but LoRA trains its adapters and the head in every stage; "
                    "leave `train` out"
                )
        return self

    @model_validator(mode="after")
    def _four_bits_have_a_gpu(self) -> FinetunedLlm:
        if self.base_4bit and not self.gpus_per_worker:
            raise ValueError("base_4bit works on GPUs only; add gpus_per_worker: 1")
        return self


class Finetune(StrictModel):
    """Models to fine-tune."""

    encoders: list[FinetunedEncoder] = Field(default=[], description="Encoders: fine-tuned, and predicted with.")
    llms: list[FinetunedLlm] = Field(
        default=[],
        description="Language models: fine-tuned with LoRA. Entries of `llms` at the top level use them.",
    )

    @property
    def models(self) -> list[FinetunedModel]:
        """All models, encoders first."""
        return [*self.encoders, *self.llms]
