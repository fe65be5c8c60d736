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
from infer.scoring import isolation
from infer.scoring.checkpoint_checks import require_vllm
from infer.scoring.engine_settings import LlmSettings, bundles
from infer.scoring.vllm_engine import (
    GPU_TOKENS_PER_STEP,
    check_engine_arguments,
    engine,
    engine_environment,
    engine_options,
)
from tests.helpers.tiny_llms import make_checkpoint


def test_a_missing_vllm_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[llm-cpu\]'"):
        require_vllm(gpus=0)
    with pytest.raises(InputError, match=r"pip install -e '\.\[llm-gpu\]'"):
        require_vllm(gpus=1)


def test_engines_on_cpus_and_gpus_differ_where_they_must(tmp_path: Path) -> None:
    cpu = LlmSettings(str(tmp_path), max_tokens=256, cpus_per_replica=2)
    gpu = LlmSettings("owner/model", gpus_per_replica=4, engine={"quantization": "fp8", "seed": 7})
    assert engine_options(cpu)["dtype"] == "float32"
    assert engine_options(cpu)["max_model_len"] == 257
    assert engine_environment(cpu)["OMP_NUM_THREADS"] == "2"
    assert engine_environment(cpu)["HF_HUB_OFFLINE"] == "1"

    assert engine_options(gpu)["dtype"] == "auto"
    assert engine_options(gpu)["tensor_parallel_size"] == 4
    assert engine_options(gpu)["quantization"] == "fp8"
    assert engine_options(gpu)["seed"] == 7
    assert "enforce_eager" not in engine_options(gpu)
    # Not what vLLM gives an engine that it does not know the use of.
    assert engine_options(gpu)["max_num_batched_tokens"] == GPU_TOKENS_PER_STEP
    assert engine_options(gpu)["max_num_seqs"] == gpu.batches * gpu.batch_size
    assert engine_options(dataclasses.replace(gpu, tokens_per_step=4096))["max_num_batched_tokens"] == 4096
    assert "max_num_batched_tokens" not in engine_options(cpu)
    assert not any(name in engine_environment(gpu) for name in ("HF_HUB_OFFLINE", "VLLM_CPU_KVCACHE_SPACE"))


def test_an_argument_that_the_engine_does_not_have_is_refused() -> None:
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    check_engine_arguments("gemma", ["max_num_seqs", "gpu_memory_utilization", "quantization"])
    with pytest.raises(InputError, match=r"llms.gemma.engine: .*'max_num_seq'.*did you mean 'max_num_seqs'"):
        check_engine_arguments("gemma", ["max_num_seq"])


def test_an_engine_on_several_gpus_has_a_whole_cpu_beside_each() -> None:
    assert bundles(LlmSettings("m", cpus_per_replica=3)) == [{"CPU": 3}]
    assert bundles(LlmSettings("m", gpus_per_replica=2)) == [{"CPU": 1, "GPU": 1}] * 2
    assert bundles(LlmSettings("m", gpus_per_replica=2, cpus_per_replica=5)) == [{"CPU": 3, "GPU": 1}] * 2


def test_what_an_engine_on_several_gpus_holds_is_noted_and_given_back(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    settings = LlmSettings(make_checkpoint(tmp_path, "Llama"), gpus_per_replica=2)
    noted: list[PlacementGroup] = []

    def answers(*_: object) -> Iterator[dict[str, Any]]:
        groups = cast(list[PlacementGroup], _[-1])
        processor = cast(Any, engine(settings, (), groups))
        # What Ray Data calls for every engine that it starts.
        processor.get_stage_by_name("vLLMEngineStage").map_batches_kwargs["ray_remote_args_fn"]()
        noted.extend(groups)
        yield {}
        raise RayActorError

    monkeypatch.setattr(isolation, "_answers", answers)
    rows = isolation._ask({}, lambda file: pa.table({}), settings)
    next(rows)
    (group,) = noted
    assert placement_group_table(group)["state"] != "REMOVED"
    assert group.bundle_specs == [{"CPU": 1, "GPU": 1}] * 2
    with pytest.raises(RayActorError):
        next(rows)
    assert placement_group_table(group)["state"] == "REMOVED"
