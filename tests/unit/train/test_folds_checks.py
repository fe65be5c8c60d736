"""What is found out, or said, before a model is trained."""

import json

import numpy as np
import pytest

from core import fingerprints
from core.errors import InputError
from core.run import Run
from core.settings.loader import load_settings
from core.stage import Stage
from core.storage import Folder
from featurize.tokens.packing import packing_settings
from infer.classifier import Classifier
from tests.helpers.tiny_models import tiny_model
from train.finetune.checkpoints import Base
from train.finetune.folds import check_bases, domain_settings, model_stage, notes
from votes.records import Records


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A decoder of 1,024 positions with a head for classes without names."""
    return tiny_model(tmp_path_factory.mktemp("model"), "llama")


def run_of(tmp_path, model, *overrides, kind="trained_llms"):
    text = f"run: {tmp_path}\n{kind}: [{{name: m, model: '{model}', stages: [{{learning_rate: 0.1}}]}}]"
    return Run(load_settings(text, "c.yaml", list(overrides)))


def test_a_model_reads_no_more_tokens_than_it_has_positions_for(tmp_path, llama, monkeypatch):
    def hashed(place):
        raise AssertionError("whole folders are hashed where the models are trained")

    monkeypatch.setattr(fingerprints, "identity", hashed)
    check_bases(run_of(tmp_path, llama, "trained_llms.m.max_tokens=1023").settings.trained_llms)
    with pytest.raises(InputError, match="reads at most 1023 tokens, not 1024"):
        check_bases(run_of(tmp_path, llama, "trained_llms.m.max_tokens=1024").settings.trained_llms)
    check_bases(run_of(tmp_path, llama, "encoders.m.max_tokens=1024", kind="encoders").settings.encoders)


def test_the_fingerprint_of_a_model_is_of_what_it_is_trained_on_its_packing_and_the_loops_version(
    tmp_path, llama, monkeypatch
):
    run = run_of(tmp_path, llama)

    def fingerprint(train="votes", test="pairs"):
        inputs = {"train/votes.csv": train, "test/pairs.csv": test}
        records = Records(Folder(str(tmp_path)), {"schema_version": 1, "settings": {}, "inputs": inputs})
        stage: Stage = model_stage(run, records, run.settings.trained_llms[0], Base("m", "m"), "train_llm")
        return stage.fingerprint

    first = fingerprint()
    assert fingerprint(test="other pairs") == first
    assert fingerprint(train="other votes") != first
    with monkeypatch.context() as patched:
        patched.setattr("featurize.tokens.packing.VERSION", 10**6)
        assert fingerprint() != first
    monkeypatch.setattr("train.finetune.folds.VERSION", 10**6)
    assert fingerprint() != first


def test_what_is_to_be_known_before_the_first_step_is_said(tmp_path, llama):
    sources = "data.train=[{name: mine, path: a.csv}, {name: arena, path: b.csv}]"
    run = run_of(tmp_path, llama, sources, "trained_llms.m.workers=4")
    base = Base(str(llama), "m")
    lengths = np.full(100, 50, np.int32)
    said = notes(run, base, domain_settings(run, run.settings.trained_llms[0]), lengths)
    assert said == [
        "trained on the first source of votes alone; those of arena are for boosters",
        f"the head of {llama} tells LABEL_0, LABEL_1, LABEL_2 apart: a new one for A, B and tie takes its place",
        "4 workers share 1.0 micro-batches a step, so that some are idle: raise records_per_step, or lower "
        "tokens_per_batch or workers",
    ]
    config = json.loads((llama / "config.json").read_text())
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "config.json").write_text(json.dumps(config | {"id2label": {0: "A", 1: "B", 2: "tie"}}))
    run = run_of(tmp_path, ours, "trained_llms.m.workers=3", "trained_llms.m.tokens_per_batch=400")
    assert notes(run, Base(str(ours), "m"), domain_settings(run, run.settings.trained_llms[0]), lengths) == []


def test_a_classifier_refuses_records_that_are_packed_otherwise(tmp_path):
    (tmp_path / "packing.json").write_text(json.dumps(packing_settings(96, "encoder")))
    with pytest.raises(InputError, match="packed differently"):
        Classifier(str(tmp_path), 1000, 1, False, False, packing_settings(128, "encoder"))
