"""What decides how a pre-trained model is fine-tuned."""

from dataclasses import dataclass
from typing import Literal

Trained = Literal["head", "all"] | int
Head = Literal["classifier", "answers"]  # the architecture's own on the first token, or train.finetune.answers_model's


@dataclass(frozen=True)
class TrainingStage:
    """Epochs with the same parameters trained and an optimizer of their own.

    `train` is "head", "all", or the number of the backbone's last layers that are trained as well as the head. The
    learning rate rises over the share `warm_up` of the stage's steps and then falls in a line to 0. `clip` bounds the
    norm of the gradient. A model with LoRA trains its adapters and its head, whatever `train` says.
    """

    train: Trained
    epochs: int
    learning_rate: float
    warm_up: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on all linear layers of the backbone (Hu et al. 2021); what they add is scaled by alpha / r."""

    r: int = 64
    alpha: int = 16
    dropout: float = 0.05


@dataclass(frozen=True)
class Distillation:
    """A teacher's share of the loss, and the temperature at which the two are compared (Hinton et al. 2015)."""

    weight: float = 0.5
    temperature: float = 1.0


@dataclass(frozen=True)
class FineTuning:
    """All that decides what comes out of fine-tuning, apart from the data, and the workers it runs on.

    A step of the optimizer is over `records_per_step` records of all workers together, so that the number of workers
    changes the time and not the model. The records of a step are cut into micro-batches of at most `tokens_per_batch`
    tokens, padding included, and the workers share these out: with fewer micro-batches than workers, some wait.
    """

    stages: tuple[TrainingStage, ...]
    head: Head = "classifier"
    records_per_step: int = 16
    tokens_per_batch: int = 8192
    both_orders: bool = True
    label_smoothing: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    lora: Lora | None = None
    base_4bit: bool = False
    gradient_checkpointing: bool = False
    distillation: Distillation | None = None
    seed: int = 0
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: int = 0

    @property
    def orders(self) -> int:
        """Sequences that a step has of each record."""
        return 2 if self.both_orders else 1
