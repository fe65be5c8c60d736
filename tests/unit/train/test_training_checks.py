"""Checks and notes before a model is trained."""

import json

import numpy as np
import pytest

from core import fingerprints
from core.errors import InputError
from core.model_cache import CheckpointRef
from core.run import Run
from core.settings.loader import load_settings
from core.stage import Stage
from core.storage import Folder
from featurize.tokens.packing import packing_settings
from infer.classifier import Classifier
from tests.helpers.tiny_models import tiny_model
from train.finetune.base_model import check_bases
from train.finetune.stages import model_stage
from train.finetune.train import training_notes
from votes.records import Records


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A decoder of 1,024 positions with a head for classes without names."""
    return tiny_model(tmp_path_factory.mktemp("model"), "llama")


def run_of(tmp_path, model, *overrides, kind="llms"):
    text = f"run: {tmp_path}\nfinetune: {{{kind}: [{{name: m, model: '{model}', stages: [{{learning_rate: 0.1}}]}}]}}"
    return Run(load_settings(text, "c.yaml", list(overrides)))


def test_a_model_reads_no_more_tokens_than_it_has_positions_for(tmp_path, llama, monkeypatch):
    def identity(location):
        raise AssertionError("whole folders are hashed where the models are trained")

    monkeypatch.setattr(fingerprints, "model_identity", identity)
    check_bases(run_of(tmp_path, llama, "finetune.llms.m.max_tokens=1023").settings.finetune.llms)
    with pytest.raises(InputError, match="reads at most 1023 tokens, not 1024"):
        check_bases(run_of(tmp_path, llama, "finetune.llms.m.max_tokens=1024").settings.finetune.llms)
    check_bases(
        run_of(tmp_path, llama, "finetune.encoders.m.max_tokens=1024", kind="encoders").settings.finetune.encoders
    )


def test_the_fingerprint_of_a_model_is_of_what_it_is_trained_on_its_packing_and_the_loops_version(
    tmp_path, llama, monkeypatch
):
    run = run_of(tmp_path, llama)

    def fingerprint(train="votes", test="pairs"):
        inputs = {"train/votes.csv": train, "test/pairs.csv": test}
        records = Records(Folder(str(tmp_path)), {"schema_version": 1, "settings": {}, "inputs": inputs})
        stage: Stage = model_stage(run, records, run.settings.finetune.llms[0], CheckpointRef("m", "m"), "train_llm")
        return stage.fingerprint

    first = fingerprint()
    assert fingerprint(test="other pairs") == first
    assert fingerprint(train="other votes") != first
    with monkeypatch.context() as patched:
        patched.setattr("featurize.tokens.packing.VERSION", 10**6)
        assert fingerprint() != first
    monkeypatch.setattr("train.finetune.stages.VERSION", 10**6)
    assert fingerprint() != first


def test_notes_name_sources_head_and_idle_workers(tmp_path, llama):
    sources = "data.train=[{name: mine, path: a.csv}, {name: arena, path: b.csv}]"
    run = run_of(tmp_path, llama, sources, "finetune.llms.m.num_workers=4")
    base = CheckpointRef(str(llama), "m")
    lengths = np.full(100, 50, np.int32)
    assert training_notes(run, base, run.settings.finetune.llms[0], lengths) == [
        "only the first source of votes is used; the other sources (arena) train boosters only",
        f"{llama} has a head for LABEL_0, LABEL_1, LABEL_2; replacing it with one for A, B, tie",
        "4 workers share 1.0 microbatches a step, so some are idle: raise global_batch_size, or lower "
        "max_tokens_per_microbatch or num_workers",
    ]
    config = json.loads((llama / "config.json").read_text())
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "config.json").write_text(json.dumps(config | {"id2label": {0: "A", 1: "B", 2: "tie"}}))
    run = run_of(tmp_path, ours, "finetune.llms.m.num_workers=3", "finetune.llms.m.max_tokens_per_microbatch=400")
    assert training_notes(run, CheckpointRef(str(ours), "m"), run.settings.finetune.llms[0], lengths) == []


def test_a_classifier_refuses_records_with_another_packing(tmp_path):
    (tmp_path / "packing.json").write_text(json.dumps(packing_settings(96, "encoder")))
    with pytest.raises(InputError, match="packed differently"):
        Classifier(str(tmp_path), 1000, 1, False, False, packing_settings(128, "encoder"))
