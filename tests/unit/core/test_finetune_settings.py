"""Settings of fine-tuning: one schema, which travels to the workers."""

import pickle

import pytest

from core.settings.finetune import (
    Finetune,
    FinetunedEncoder,
    FinetunedLlm,
    Lora,
    Scratch,
    Teacher,
    TrainingStage,
)

MODELS = [Finetune, FinetunedEncoder, FinetunedLlm, Lora, Scratch, Teacher, TrainingStage]


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_has_a_description(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("model", [FinetunedEncoder, FinetunedLlm, TrainingStage])
def test_old_names_are_no_settings_and_new_names_are(model):
    for old, new in model.renamed.items():
        assert old not in model.model_fields
        assert new.partition(":")[0] in model.model_fields


@pytest.mark.parametrize("model", [FinetunedEncoder(name="m", head="answers"), FinetunedLlm(name="m", swap="random")])
def test_settings_are_the_same_in_a_worker(model):
    copy = pickle.loads(pickle.dumps(model))
    assert copy == model
    for name in ("layout", "orders", "adapters", "is_4bit", "compares_answers"):
        assert getattr(copy, name) == getattr(model, name)


def test_encoders_and_language_models_answer_the_loops_questions():
    encoder = FinetunedEncoder(name="e", head="answers")
    llm = FinetunedLlm(name="l", base_4bit=True, gpus_per_worker=1)
    assert (encoder.layout, llm.layout) == ("encoder", "decoder")
    assert (encoder.adapters, llm.adapters) == (None, Lora())
    assert (encoder.is_4bit, llm.is_4bit) == (False, True)
    assert (encoder.compares_answers, llm.compares_answers) == (True, False)
    assert (encoder.orders, FinetunedEncoder(name="e", swap="random").orders) == (2, 1)
    assert Finetune(encoders=[encoder], llms=[llm]).models == [encoder, llm]
