"""What every scoring mode has to keep to, and how one from a plugin file joins them."""

from __future__ import annotations

import ast
import inspect
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import InputError
from core.model_cache import CheckpointRef
from core.registry import MODES, load_plugins, plugin_digest, read_plugin
from core.run import Run
from core.settings.loader import load_settings
from featurize.tokens.packed_records import Packing
from infer.scoring.checkpoint import ScoringCheckpoint, ScoringModel
from infer.scoring.mode import ScoringMode
from infer.scoring.score import reply_fingerprint, score_stage
from tests.helpers.tiny_llms import BALLOT
from votes.records import Records

HEAVY = {"torch", "transformers", "vllm", "ray", "peft"}
ALL = pytest.mark.parametrize("name", MODES.names())


def config_of(mode: ScoringMode) -> dict[str, Any]:
    return {"architectures": [f"Llama{mode.architecture}"], "id2label": {"0": "A", "1": "B", "2": "tie"}}


@ALL
def test_a_modes_module_is_light_and_its_instances_pickle(name: str) -> None:
    mode = MODES.get(name)
    source = Path(inspect.getsourcefile(type(mode)) or "").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not {name.partition(".")[0] for name in names} & HEAVY
    assert type(pickle.loads(pickle.dumps(mode))) is type(mode)
    assert mode.summary.endswith(".")
    assert "\n" not in mode.summary


@ALL
def test_a_mode_refuses_a_checkpoint_of_another_kind(name: str) -> None:
    mode = MODES.get(name)
    mode.check_config(config_of(mode), "here")
    for architectures in (["LlamaForTokenClassification"], [], None):
        with pytest.raises(InputError, match="here") as error:
            mode.check_config({**config_of(mode), "architectures": architectures}, "here")
        assert error.value.fix


@ALL
def test_a_mode_makes_three_weights_of_a_reply(name: str) -> None:
    mode = MODES.get(name)
    ids = (7, 5, 9)
    logprobs = [{7: {"logprob": -1.0}, 9: {"logprob": -3.0}, 5: {"logprob": -2.0}, 1: None}]
    a, b, tie = mode.probabilities({"embeddings": [0.6, 0.3, 0.1], "logprobs": logprobs}, ids)
    assert a > b > tie > 0
    options = mode.sampling_options(ids)
    assert (options is None) == (mode.task_type == "classify")
    assert options is None or options["allowed_token_ids"] == list(ids)


@ALL
def test_a_mode_makes_its_model_from_a_configuration(name: str) -> None:
    import torch
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=50, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, pad_token_id=0
    )
    mode = MODES.get(name)
    with torch.device("meta"):
        assert type(mode.new_model(config)).__name__ == f"Llama{mode.architecture}"


@pytest.fixture
def ballot(tmp_path: Path) -> Iterator[ScoringMode]:
    """A mode of a plugin file, until the test ends."""
    (tmp_path / "ballot.py").write_text(BALLOT)
    sources = read_plugin(str(tmp_path / "ballot.py"))
    load_plugins(sources)
    yield MODES.get("ballot")
    for module in sources:
        del sys.modules[module]
    del MODES._members["ballot"]


def test_a_mode_of_a_plugin_is_one_of_the_settings(ballot: ScoringMode) -> None:
    settings = load_settings("run: x\nllms: [{name: a, mode: ballot, checkpoint: m/m}]", "c.yaml")
    assert MODES.get(settings.llms[0].mode) is ballot
    assert plugin_digest(ballot)
    assert not plugin_digest(MODES.get("judge"))
    with pytest.raises(InputError, match="a ballot needs checkpoint"):
        load_settings("run: x\nllms: [{name: a, mode: ballot, demo: {architecture: llama}}]", "c.yaml")


def test_another_version_of_a_plugin_s_mode_asks_again(ballot: ScoringMode, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(load_settings("run: x\nllms: [{name: a, mode: ballot, checkpoint: m/m}]", "c.yaml"))
    (llm,) = run.settings.llms
    checkpoint = ScoringCheckpoint(CheckpointRef("m/m", "f"))
    model = ScoringModel([checkpoint], "a", checkpoint.ref, Packing(64), [])
    manifest = {"fingerprint": "r", "rows": {"train": 1}, "inputs": {}, "settings": {}, "schema_version": 1}
    records = Records(run.folder / "records", manifest)
    before = reply_fingerprint(score_stage(run, records, llm, model), checkpoint)
    monkeypatch.setattr("infer.scoring.score.plugin_digest", lambda mode: "another")
    stage = score_stage(run, records, llm, model)
    assert stage.settings["versions"] == {"plugin": "another"}
    assert reply_fingerprint(stage, checkpoint) != before


def test_an_unknown_mode_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"llms\.a\.mode.*no scoring mode 'juge'; did you mean 'judge'"):
        load_settings("run: x\nllms: [{name: a, mode: juge, checkpoint: m/m}]", "c.yaml")
