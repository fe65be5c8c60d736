"""vLLM's engine arguments are checked when settings are loaded, without importing vLLM."""

import resource
import subprocess
import sys

import pytest

from core.errors import InputError
from core.settings import engine_args
from core.settings.loader import load_settings
from tests.helpers.commands import ROOT, environment

LLMS = "llms: [{name: gemma, checkpoint: m/m, engine_args: {max_num_seqs: 8, max_num_seq: 8}}]"
MESSAGE = r"llms\.gemma\.engine_args.*no argument 'max_num_seq'; did you mean 'max_num_seqs'"


@pytest.fixture
def vllm() -> None:
    if not engine_args.known_engine_args():
        pytest.skip("vLLM is not installed")


def test_a_misspelt_engine_argument_is_refused_with_the_nearest_name(vllm: None) -> None:
    with pytest.raises(InputError, match=MESSAGE):
        load_settings(f"run: x\n{LLMS}", "c.yaml")
    load_settings(f"run: x\n{LLMS.replace('max_num_seq:', 'quantization:').replace(': 8}', ': fp8}')}", "c.yaml")


def test_the_check_waits_where_vllm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_args, "known_engine_args", frozenset)
    load_settings(f"run: x\n{LLMS}", "c.yaml")


def test_a_job_refuses_it_within_five_seconds(vllm: None, tmp_path) -> None:
    (tmp_path / "c.yaml").write_text(f"run: {tmp_path}/run\n{LLMS}\n")
    line = [sys.executable, "-X", "importtime", "-m", "ray_jobs.ingest", "--config", str(tmp_path / "c.yaml")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5, "seconds of CPU: others are at work"
    assert done.returncode == 2
    assert "did you mean 'max_num_seqs'" in done.stderr
    assert "| vllm" not in done.stderr, "importing it takes many seconds"
    assert not (tmp_path / "run").exists()
