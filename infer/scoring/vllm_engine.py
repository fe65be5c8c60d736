"""vLLM under Ray Data: the only module that knows either's settings."""

import contextlib
import dataclasses
import difflib
import functools
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import ray.data
from ray.util.placement_group import PlacementGroup

from core.errors import InputError
from infer.scoring.engine_dirs import own_temporary_folder
from infer.scoring.engine_settings import LlmSettings, bundles, effective_dtype
from votes.schema import LABELS, PROBABILITIES


def engine(
    settings: LlmSettings, carried: tuple[str, ...], groups: list[PlacementGroup]
) -> Callable[[ray.data.Dataset], ray.data.Dataset]:
    """A function from requests to answers that starts engines when the answers are read.

    Requests have the token ids in `tokenized_prompt`, and the columns named in `carried`. A request whose
    `__inference_error__` is not empty passes by the engine. Answers have the carried columns, the probabilities and
    `__inference_error__`; failed ones have other columns besides, and no probabilities.
    An engine on several GPUs has a placement group, which ray.data.llm makes and keeps to the job's end: it is added to
    `groups`, for the caller to remove once the answers are read.
    """
    with _quiet():
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    config = vLLMEngineProcessorConfig(
        model_source=settings.checkpoint,
        task_type="classify" if settings.mode == "classify" else "generate",
        engine_kwargs=engine_options(settings),
        runtime_env={"env_vars": engine_environment(settings)},
        placement_group_config={"bundles": bundles(settings)},
        concurrency=settings.replicas,
        batch_size=settings.batch_size,
        max_concurrent_batches=settings.batches,
        # One by one, the next is sent when the answer before is there: what kills the engine takes fewer with it.
        max_tasks_in_flight_per_actor=1 if settings.batches == 1 else None,
        should_continue_on_error=True,
        log_engine_metrics=False,
        # Requests come as token ids and answers as probabilities.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
    sampling = sampling_options(settings)

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        return row if sampling is None else {**row, "sampling_params": sampling}

    def postprocess(row: dict[str, Any]) -> dict[str, Any]:
        # ray.data.llm gives whatever a pooling model returns, class probabilities too, in the column embeddings.
        found = row["embeddings"] if sampling is None else _next_token(row["logprobs"], settings.answers)
        if len(found) != len(LABELS):
            raise ValueError(f"the model gave {len(found)} probabilities")
        return {name: row[name] for name in carried} | {
            name: float(value) for name, value in zip(PROBABILITIES, found, strict=True)
        }

    # The steps around the engine ask for no CPU: where the engine takes them all, they would wait for ever.
    light = {"num_cpus": 0, "concurrency": settings.replicas[1]}
    # Here, too, ray.data.llm reads the model's tokenizer, from wherever it is.
    with _quiet(), _environment(settings.environment):
        processor = build_processor(
            config,
            preprocess=preprocess,
            postprocess=postprocess,
            preprocess_map_kwargs=light,
            postprocess_map_kwargs=light,
        )
    stage = processor.get_stage_by_name("vLLMEngineStage")
    # A copy, since assigning to a stage makes ray.data.llm ask for a GPU again, which an engine on CPUs has not.
    stage = stage.model_copy(update={"fn": _in_own_folder(stage.fn)})
    processor.stages["vLLMEngineStage"] = stage
    # Ray Data's default is to start an actor again for ever, whatever kills it.
    options = stage.map_batches_kwargs
    options["max_restarts"] = settings.restarts
    if "ray_remote_args_fn" in options:
        options["ray_remote_args_fn"] = functools.partial(_noted, options["ray_remote_args_fn"], groups)
    return cast(Callable[[ray.data.Dataset], ray.data.Dataset], processor)


def sampling_options(settings: LlmSettings) -> dict[str, Any] | None:
    """vLLM's sampling parameters for a judge; None for a model with a head.

    Exactly the answers' tokens can be next and exactly theirs are the log-probabilities that come back, so that none
    is ever missing: the most probable few of the vocabulary may leave out the very ones that are asked for.
    """
    if settings.mode == "classify":
        return None
    answers = list(settings.answers)
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "allowed_token_ids": answers,
        "logprob_token_ids": answers,
        "detokenize": False,
    }


def _next_token(logprobs: list[dict[Any, dict[str, Any]]], answers: tuple[int, ...]) -> list[float]:
    """Softmax over the answers' log-probabilities of the next token."""
    found = {int(token): float(entry["logprob"]) for token, entry in logprobs[0].items() if entry is not None}
    scores = [found[answer] for answer in answers]
    highest = max(scores)
    return [math.exp(score - highest) for score in scores]


def _in_own_folder(base: Any) -> Any:  # noqa: ANN401 - ray.data.llm's class of an engine's actor
    """The class, with temporary files in a folder of its own."""

    class Engine(base):  # type: ignore[misc]
        def __init__(self, *arguments: object, **more: object) -> None:
            own_temporary_folder()
            super().__init__(*arguments, **more)

    Engine.__name__ = base.__name__  # under which Ray shows the actor
    return Engine


def _noted(make: Callable[[], dict[str, Any]], groups: list[PlacementGroup]) -> dict[str, Any]:
    """An engine's options, once their placement group is among `groups`."""
    options = make()
    groups.append(options["scheduling_strategy"].placement_group)
    return options


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of this process for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what importing vLLM and building the steps say below errors: nothing there is for the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


# vLLM's own for its LLM class on an H100 or larger, where it reached 9 tenths of a matrix product's rate
# (benchmarks.llm_gpu); it takes 8,192 on an A100 and on smaller GPUs. Activations of a model of 9 billion parameters
# take about 1.5 GiB, as reckoned from its shape.
GPU_TOKENS_PER_STEP: Final = 16_384


def engine_options(settings: LlmSettings) -> dict[str, Any]:
    """vLLM's engine arguments: ours, then those of `settings.engine`, which win."""
    options: dict[str, Any] = {
        # One more than the longest request: vLLM 0.29 keeps a place for a sampled token, and a request of exactly
        # max_model_len tokens that it reads in two steps never gets its last token, and spins for ever.
        "max_model_len": settings.max_tokens + 1,
        "dtype": effective_dtype(settings.dtype, settings.gpus_per_replica),
        "seed": settings.seed,
        "load_format": "safetensors",  # the other formats are pickle
        "skip_tokenizer_init": True,  # requests are token ids
        "disable_log_stats": True,
    }
    if settings.tokens_per_step is not None:
        options["max_num_batched_tokens"] = settings.tokens_per_step
    if settings.gpus_per_replica == 0:
        options["enforce_eager"] = True  # compiling needs a C++ compiler, and takes longer than it saves at start-up
    else:
        # Left alone, an engine that Ray Data starts gets 2,048 tokens and 128 requests a step from vLLM 0.29, which
        # knows that a GPU has room for more only of its own LLM class.
        options.setdefault("max_num_batched_tokens", GPU_TOKENS_PER_STEP)
        tokens = settings.engine.get("max_num_batched_tokens", options["max_num_batched_tokens"])
        options["max_num_seqs"] = min(settings.batches * settings.batch_size, tokens)
    if settings.gpus_per_replica > 1:
        options["tensor_parallel_size"] = settings.gpus_per_replica
    return options | dict(settings.engine)


def check_engine_arguments(name: str, given: Sequence[str]) -> None:
    """Raise InputError for an argument that vLLM's engine does not have."""
    with _quiet():
        from vllm.engine.arg_utils import AsyncEngineArgs

    known = [field.name for field in dataclasses.fields(AsyncEngineArgs)]
    for argument in given:
        if argument not in known:
            near = difflib.get_close_matches(argument, known, n=1)
            raise InputError(
                f"llms.{name}.engine: vLLM's engine has no argument {argument!r}",
                fix=f"did you mean {near[0]!r}?" if near else "remove it.",
            )


def engine_environment(settings: LlmSettings) -> dict[str, str]:
    """Environment variables of the engine's processes; the driver's own environment stays as it is."""
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if Path(settings.checkpoint).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if settings.gpus_per_replica == 0:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; classifying keeps a prompt's cache for one step only
            # As many threads as Ray has given us, wherever they run: vLLM would pin one to every core it sees.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(settings.cpus_per_replica),
            # The worker runs inside the engine's process: one process fewer to start, and it binds no threads.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }
    return environment | dict(settings.environment)
