import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup, placement_group_table

from core.errors import InputError
from core.resources import bundles_per_engine
from core.settings.engine_args import known_engine_args
from core.settings.llm import Llm
from infer.scoring.checkpoint_checks import require_vllm
from infer.scoring.job import RetryLevel, ScoringJob, retry_levels
from infer.scoring.streaming import RequestStream
from infer.scoring.vllm_engine import (
    GPU_TOKENS_PER_MICROBATCH,
    engine_environment,
    engine_options,
    vllm_engines,
)
from tests.helpers.tiny_llms import make_checkpoint


def job_of(checkpoint: str, **settings: Any) -> ScoringJob:
    return ScoringJob(Llm(name="m", checkpoint=checkpoint, **settings), checkpoint)


def test_a_missing_vllm_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[llm-cpu\]'"):
        require_vllm(gpus=0)
    with pytest.raises(InputError, match=r"pip install -e '\.\[llm-gpu\]'"):
        require_vllm(gpus=1)


def test_engines_on_cpus_and_gpus_differ_where_they_must(tmp_path: Path) -> None:
    cpu = job_of(str(tmp_path), max_tokens=256, cpus_per_worker=2)
    gpu = job_of("owner/model", gpus_per_worker=4, engine_args={"quantization": "fp8", "seed": 7})
    small = job_of("owner/model", gpus_per_worker=4, max_tokens_per_microbatch=4096)
    cpu_level, gpu_level = (retry_levels(job.llm)[0] for job in (cpu, gpu))
    assert engine_options(cpu, cpu_level)["dtype"] == "float32"
    assert engine_options(cpu, cpu_level)["max_model_len"] == 257
    assert engine_environment(cpu)["OMP_NUM_THREADS"] == "2"
    assert engine_environment(cpu)["HF_HUB_OFFLINE"] == "1"

    assert engine_options(gpu, gpu_level)["dtype"] == "auto"
    assert engine_options(gpu, gpu_level)["tensor_parallel_size"] == 4
    assert engine_options(gpu, gpu_level)["quantization"] == "fp8"
    assert engine_options(gpu, gpu_level)["seed"] == 7
    assert "enforce_eager" not in engine_options(gpu, gpu_level)
    # Not what vLLM gives an engine that it does not know the use of.
    assert engine_options(gpu, gpu_level)["max_num_batched_tokens"] == GPU_TOKENS_PER_MICROBATCH
    assert engine_options(gpu, gpu_level)["max_num_seqs"] == 8 * gpu.llm.batch_size
    assert engine_options(small, gpu_level)["max_num_batched_tokens"] == 4096
    assert "max_num_batched_tokens" not in engine_options(cpu, cpu_level)
    assert not any(name in engine_environment(gpu) for name in ("HF_HUB_OFFLINE", "VLLM_CPU_KVCACHE_SPACE"))


def test_the_known_engine_arguments_are_exactly_vllms() -> None:
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    from vllm.engine.arg_utils import AsyncEngineArgs

    assert known_engine_args() == {field.name for field in dataclasses.fields(AsyncEngineArgs)}


def test_an_engine_on_several_gpus_has_a_whole_cpu_beside_each() -> None:
    assert bundles_per_engine(job_of("m/m", cpus_per_worker=3).llm) == [{"CPU": 3}]
    assert bundles_per_engine(job_of("m/m", gpus_per_worker=2).llm) == [{"CPU": 1, "GPU": 1}] * 2
    assert bundles_per_engine(job_of("m/m", gpus_per_worker=2, cpus_per_worker=5).llm) == [{"CPU": 3, "GPU": 1}] * 2


def test_what_an_engine_on_several_gpus_holds_is_noted_and_given_back(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    job = job_of(make_checkpoint(tmp_path, "Llama"), gpus_per_worker=2)
    noted: list[PlacementGroup] = []

    def replies(self: RequestStream, shards: object, level: RetryLevel, groups: list[PlacementGroup]) -> Iterator[Any]:
        processor = cast(Any, vllm_engines(job, level, (), groups))
        # What Ray Data calls for every engine that it starts.
        processor.get_stage_by_name("vLLMEngineStage").map_batches_kwargs["ray_remote_args_fn"]()
        noted.extend(groups)
        yield {}
        raise RayActorError

    monkeypatch.setattr(RequestStream, "_replies", replies)
    rows = RequestStream(job, lambda file: pa.table({}), vllm_engines)({}, retry_levels(job.llm)[0])
    next(rows)
    (group,) = noted
    assert placement_group_table(group)["state"] != "REMOVED"
    assert group.bundle_specs == [{"CPU": 1, "GPU": 1}] * 2
    with pytest.raises(RayActorError):
        next(rows)
    assert placement_group_table(group)["state"] == "REMOVED"
