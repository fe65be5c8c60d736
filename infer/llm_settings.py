"""What decides how a language model scores records."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class LlmSettings:
    """One language model with a head for A, B and tie, and the engines that run it.

    `swap="both"` scores each record in both orders and averages: twice the work, and exactly antisymmetric.
    `dtype="auto"` is the checkpoint's on GPUs and float32 on CPUs. `gpus_per_replica=0` runs on CPUs; more than one
    splits the model over them (tensor parallelism). `batch_size` is in requests; Ray keeps 8 batches in flight.
    `engine` holds further arguments of vLLM's engine, passed on as they are.
    """

    checkpoint: str
    max_tokens: int = 2048
    swap: Literal["none", "both"] = "both"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    replicas: int = 1
    cpus_per_replica: int = 1
    gpus_per_replica: int = 0
    batch_size: int = 32
    engine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    @property
    def effective_dtype(self) -> str:
        """The precision that vLLM is asked for: `auto` is the checkpoint's own on GPUs, and float32 on CPUs."""
        return "float32" if self.dtype == "auto" and self.gpus_per_replica == 0 else self.dtype
