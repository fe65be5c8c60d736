"""vLLM under Ray Data: the only module that knows the settings of either."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import ray.data

from core.resources import bundles_per_engine
from infer.scoring.engine_dirs import use_own_temporary_folder
from votes.schema import PROBABILITIES

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

    from infer.scoring.job import RetryLevel, ScoringJob

# vLLM's default for its LLM class on an H100 or larger. There it reached 90% of a matrix product's rate
# (benchmarks.llm_gpu). On an A100 and smaller GPUs its default is 8,192. Activations of a model of 9 billion parameters
# take about 1.5 GiB, as estimated from its shape.
GPU_TOKENS_PER_MICROBATCH: Final = 16_384


def vllm_engines(
    job: ScoringJob, level: RetryLevel, carried: tuple[str, ...], groups: list[PlacementGroup]
) -> Callable[[ray.data.Dataset], ray.data.Dataset]:
    """Return a function from requests to replies that starts engines when the replies are read.

    Requests have the token ids in `tokenized_prompt`, and the columns named in `carried`. A request with a text in
    `__inference_error__` bypasses the engine. Replies have the carried columns, the probabilities and
    `__inference_error__`; failed ones have other columns as well, and no probabilities. For an engine on several GPUs,
    ray.data.llm creates a placement group and keeps it to the job's end. It is added to `groups`, and the caller
    removes it once the replies are read.
    """
    with _quiet():
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    llm, mode = job.llm, job.mode
    config = vLLMEngineProcessorConfig(
        model_source=job.source,
        task_type=mode.task_type,
        engine_kwargs=engine_options(job, level),
        runtime_env={"env_vars": engine_environment(job)},
        placement_group_config={"bundles": bundles_per_engine(llm)},
        concurrency=level.num_workers,
        batch_size=level.batch_size,
        max_concurrent_batches=level.concurrent_batches,
        # One at a time, each request waits for the previous reply. So fewer requests are lost with an engine.
        max_tasks_in_flight_per_actor=1 if level.one_by_one else None,
        should_continue_on_error=True,
        log_engine_metrics=False,
        # Requests come as token ids and replies as probabilities.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
    answer_ids = job.answer_ids
    sampling, classes = mode.sampling_options(answer_ids), job.classes

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        return row if sampling is None else {**row, "sampling_params": sampling}

    def postprocess(row: dict[str, Any]) -> dict[str, Any]:
        values = mode.probabilities(row, answer_ids)
        return {name: row[name] for name in carried} | _columns(values, classes)

    # The steps around the engine request no CPU. If the engine takes all CPUs, they would never start.
    light = {"num_cpus": 0, "concurrency": level.num_workers[1]}
    # Here, too, ray.data.llm reads the model's tokenizer, from wherever it is.
    with _quiet(), _environment(job.environment):
        processor = build_processor(
            config,
            preprocess=preprocess,
            postprocess=postprocess,
            preprocess_map_kwargs=light,
            postprocess_map_kwargs=light,
        )
    stage = processor.get_stage_by_name("vLLMEngineStage")
    # A copy, since assigning to a stage makes ray.data.llm request a GPU again, also for engines on CPUs.
    stage = stage.model_copy(update={"fn": _in_own_folder(stage.fn)})
    processor.stages["vLLMEngineStage"] = stage
    # Ray Data's default is to restart an actor without end, whatever kills it.
    options = stage.map_batches_kwargs
    options["max_restarts"] = level.restarts
    if "ray_remote_args_fn" in options:
        options["ray_remote_args_fn"] = functools.partial(_with_group_noted, options["ray_remote_args_fn"], groups)
    return cast(Callable[[ray.data.Dataset], ray.data.Dataset], processor)


def _columns(values: Sequence[float], classes: int) -> dict[str, float]:
    if len(values) != classes:
        raise ValueError(f"the model returned {len(values)} probabilities")
    return {name: float(value) for name, value in zip(PROBABILITIES, values, strict=False)}


def _in_own_folder(base: Any) -> Any:  # noqa: ANN401 - ray.data.llm's class of an engine's actor
    """Return the class, with temporary files in a folder of its own."""

    class Engine(base):  # type: ignore[misc]
        def __init__(self, *arguments: object, **more: object) -> None:
            use_own_temporary_folder()
            super().__init__(*arguments, **more)

    Engine.__name__ = base.__name__  # under which Ray shows the actor
    return Engine


def _with_group_noted(make: Callable[[], dict[str, Any]], groups: list[PlacementGroup]) -> dict[str, Any]:
    """Return an engine's options, and add their placement group to `groups`."""
    options = make()
    groups.append(options["scheduling_strategy"].placement_group)
    return options


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Temporarily set environment variables."""
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
    """Silence lines below errors while vLLM is imported and the steps are built. None of them helps the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def engine_options(job: ScoringJob, level: RetryLevel) -> dict[str, Any]:
    """Return vLLM's engine arguments. Arguments in the settings override ours."""
    llm = job.llm
    options: dict[str, Any] = {
        # One more than the longest request, since vLLM 0.29 reserves a position for a sampled token. A request of
        # exactly max_model_len tokens, read in two steps, never gets its last token and hangs.
        "max_model_len": llm.max_tokens + 1,
        "dtype": llm.effective_dtype,
        "seed": job.seed,
        "load_format": "safetensors",  # the other formats are pickle
        "skip_tokenizer_init": True,  # requests are token ids
        "disable_log_stats": True,
    }
    if llm.max_tokens_per_microbatch is not None:
        options["max_num_batched_tokens"] = llm.max_tokens_per_microbatch
    if llm.gpus_per_worker == 0:
        options["enforce_eager"] = True  # compiling needs a C++ compiler, and takes longer than it saves at start-up
    else:
        # Under Ray Data, vLLM 0.29 defaults to 2,048 tokens and 128 requests a step. Only its own LLM class gets larger
        # defaults on GPUs.
        options.setdefault("max_num_batched_tokens", GPU_TOKENS_PER_MICROBATCH)
        tokens = llm.engine_args.get("max_num_batched_tokens", options["max_num_batched_tokens"])
        options["max_num_seqs"] = min(level.concurrent_batches * level.batch_size, tokens)
    if llm.gpus_per_worker > 1:
        options["tensor_parallel_size"] = llm.gpus_per_worker
    return options | dict(llm.engine_args)


def engine_environment(job: ScoringJob) -> dict[str, str]:
    """Return environment variables of the engine's processes; the driver's own environment stays as it is."""
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if Path(job.source).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if job.llm.gpus_per_worker == 0:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; classifying keeps a prompt's cache for one step only
            # As many threads as Ray has given us, wherever they run: vLLM would pin one to every core it sees.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(job.llm.cpus_per_worker),
            # The worker runs inside the engine's process: one process fewer to start, and it binds no threads.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }
    return environment | dict(job.environment)
