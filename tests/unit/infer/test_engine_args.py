"""vLLM's engine arguments are checked when settings are loaded, without importing vLLM."""

import pytest

from core.errors import InputError
from core.settings import engine_args
from core.settings.loader import load_settings

LLMS = "llms: [{name: gemma, checkpoint: m/m, engine_args: {max_num_seqs: 8, max_num_seq: 8}}]"
MESSAGE = (
    r"c.yaml: llms\.gemma\.engine_args\.max_num_seq: .*no argument 'max_num_seq'. Fix: did you mean 'max_num_seqs'"
)


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
