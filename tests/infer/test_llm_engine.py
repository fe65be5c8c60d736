import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from infer.llm_checkpoint import require_vllm
from infer.llm_engine import engine_environment, engine_options, placement_groups_given_back
from infer.llm_settings import LlmSettings, bundles
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


def test_an_engine_on_several_gpus_has_a_whole_cpu_beside_each() -> None:
    assert bundles(LlmSettings("m", cpus_per_replica=3)) == [{"CPU": 3}]
    assert bundles(LlmSettings("m", gpus_per_replica=2)) == [{"CPU": 1, "GPU": 1}] * 2
    assert bundles(LlmSettings("m", gpus_per_replica=2, cpus_per_replica=5)) == [{"CPU": 3, "GPU": 1}] * 2


def test_placement_groups_of_engines_do_not_outlive_them(ray_cluster: None) -> None:
    mine = placement_group([{"CPU": 0.1}])
    with placement_groups_given_back():
        with placement_groups_given_back():
            theirs = placement_group([{"CPU": 0.1}])
        assert placement_group_table(theirs)["state"] != "REMOVED", "another model's engines are at work"
    assert placement_group_table(theirs)["state"] == "REMOVED"
    assert placement_group_table(mine)["state"] != "REMOVED"
    remove_placement_group(mine)


OTHER_JOB = """
import ray
from ray.util.placement_group import placement_group, placement_group_table

ray.init(address=%r, log_to_driver=False)
group = placement_group([{"CPU": 0.1}])
ray.get(group.ready())
print("made", flush=True)
input()
print(placement_group_table(group)["state"])
"""


def test_placement_groups_of_other_jobs_are_left_alone(ray_cluster: None) -> None:
    address = ray.get_runtime_context().gcs_address
    line = [sys.executable, "-c", OTHER_JOB % address]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        with placement_groups_given_back():
            assert other.stdout.readline() == "made\n"
        told, _ = other.communicate("\n")
    assert told == "CREATED\n"
