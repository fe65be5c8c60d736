"""What decides how a language model scores records."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

Mode = Literal["classify", "judge"]
Dtype = Literal["auto", "float32", "bfloat16"]


def effective_dtype(dtype: Dtype, gpus_per_replica: int) -> Dtype:
    """The precision that vLLM is asked for: `auto` is the checkpoint's own on GPUs, and float32 on CPUs."""
    return "float32" if dtype == "auto" and gpus_per_replica == 0 else dtype


@dataclasses.dataclass(frozen=True)
class LlmSettings:
    """One language model, and the engines that run it.

    `mode="classify"` is a model with a head for A, B and tie; `mode="judge"` one that is asked, whose probabilities are
    those of the tokens `answers` (A, B, tie) as the next one, among these three. For `dtype` see
    `effective_dtype`. `gpus_per_replica=0` runs on CPUs; more than one splits the model over them (tensor
    parallelism). `replicas` are the fewest and the most engines, between which Ray Data scales. `batch_size` is in
    requests; an engine works on `batches` of them at a time. `tokens_per_step` are read in one forward pass at most
    (if None: 16,384 on GPUs, vLLM's default on CPUs). An engine that dies is started again `restarts` times. After
    `patience` seconds without an answer the work is given up. `engine` holds further arguments of vLLM's engine, passed
    on as they are, and `environment` further variables of its processes.
    """

    checkpoint: str
    max_tokens: int = 2048
    mode: Mode = "classify"
    answers: tuple[int, ...] = ()
    dtype: Dtype = "auto"
    replicas: tuple[int, int] = (1, 1)
    cpus_per_replica: int = 1
    gpus_per_replica: int = 0
    batch_size: int = 32
    batches: int = 8
    restarts: int = 3
    tokens_per_step: int | None = None
    patience: float = 1800
    engine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seed: int = 0


def bundles(settings: LlmSettings) -> list[dict[str, float]]:
    """What one engine asks of the cluster: a part for each GPU, or one of CPUs alone.

    A part has a whole CPU at least: the process that Ray starts there takes one.
    """
    if settings.gpus_per_replica == 0:
        return [{"CPU": settings.cpus_per_replica}]
    cpus = max(1, math.ceil(settings.cpus_per_replica / settings.gpus_per_replica))
    return [{"CPU": cpus, "GPU": 1} for _ in range(settings.gpus_per_replica)]


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to ask: with these settings, and the first `reach` of the unanswered requests at a time (None: all)."""

    settings: LlmSettings
    reach: int | None


_FEW = 8  # answers that are lost with an engine, as far as was seen


def ways(settings: LlmSettings) -> tuple[Way, ...]:
    """From the usual way to ask to the most careful one, each for when engines die in the one before.

    Engines die because machines go away, which costs a start, and because of a request (one for which there is not
    enough memory, say), which would go on for ever. So what may have been under way when one died is asked one request
    at a time, on all engines; if that kills one, the first few of these on a single engine, since a dying engine takes
    answers with it that have not come back; and last, one request on an engine of its own.
    """
    one_by_one = dataclasses.replace(settings, batch_size=1, batches=1, restarts=0)
    single = dataclasses.replace(one_by_one, replicas=(1, 1))
    engines = settings.replicas[1]
    # Ray Data sends twice as many batches to an actor as it works on at a time.
    careful = [Way(one_by_one, 2 * engines * settings.batches * settings.batch_size)]
    if engines > 1:
        careful.append(Way(single, _FEW * engines))
    return Way(settings, None), *careful, Way(single, _FEW), Way(single, 1)
