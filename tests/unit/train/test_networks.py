"""Heads of other tasks, and how long a record a model can be given."""

import functools
import json

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
)

from core.errors import InputError
from core.settings.finetune import Lora
from tests.helpers.tiny_models import encoder_settings, llm_settings, tiny_model
from train.finetune.adapters import merge_adapter
from train.finetune.networks import load_config, load_network, load_with_head, max_positions, other_head_classes
from votes.schema import LABELS

SHAPE = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
PLAIN = encoder_settings()


def classifier(folder, classes):
    config = BertConfig(**SHAPE, pad_token_id=0, id2label=dict(enumerate(classes)))
    model = BertForSequenceClassification(config)
    torch.nn.init.constant_(model.classifier.weight, 7.0)
    model.save_pretrained(folder)
    return model, str(folder)


@pytest.mark.parametrize("classes", [("entailment", "neutral", "contradiction"), ("bad", "good"), tuple("12345")])
def test_a_head_for_other_classes_is_replaced_and_the_backbone_stays(tmp_path, classes):
    saved, folder = classifier(tmp_path, classes)
    assert other_head_classes(folder) == list(classes)
    model, again = (load_network(folder, PLAIN, seed=3) for _ in range(2))
    assert model.classifier.weight.shape == (3, 8)
    assert model.classifier.weight.abs().max() < 1
    assert model.classifier.weight.std() > 0
    assert not model.classifier.bias.any()
    torch.testing.assert_close(model.classifier.weight, again.classifier.weight)
    torch.testing.assert_close(model.bert.state_dict(), saved.bert.state_dict())


def test_a_head_for_our_classes_is_kept(tmp_path):
    saved, folder = classifier(tmp_path, LABELS[:3])
    assert other_head_classes(folder) == []
    torch.testing.assert_close(load_network(folder, PLAIN, seed=3).state_dict(), saved.state_dict())


def test_a_backbone_of_another_size_is_never_replaced_by_random_numbers(tmp_path):
    _, folder = classifier(tmp_path, ("bad", "good"))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 60}))
    with pytest.raises(InputError, match="do not fit config"):
        load_network(folder, PLAIN, seed=3)


@pytest.mark.parametrize(
    ("config", "decoder", "most"),
    [
        (BertConfig(max_position_embeddings=512), False, 512),
        (RobertaConfig(max_position_embeddings=514, pad_token_id=1), False, 512),
        (
            DebertaV2Config(max_position_embeddings=512, relative_attention=True, position_biased_input=False),
            False,
            None,
        ),
        (LlamaConfig(max_position_embeddings=4096), True, 4095),
    ],
)
def test_the_longest_record_is_what_the_positions_hold(config, decoder, most):
    assert max_positions(config, decoder) == most


def test_longer_records_than_the_longest_end_a_roberta(tmp_path):
    """The limit is that of the architecture itself."""
    from transformers import RobertaModel

    config = RobertaConfig(**SHAPE, max_position_embeddings=14, pad_token_id=1)
    model = RobertaModel(config).eval()
    most = max_positions(config, decoder=False)
    assert most is not None
    model(input_ids=torch.full((1, most), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, most + 1), 5))


def test_adapters_on_a_head_of_one_class_are_merged_into_the_base_that_comes_with_it(tmp_path):
    base = str(tiny_model(tmp_path / "base", "llama"))
    config = load_config(base)
    config.id2label, config.label2id, config.architectures = {0: "reward"}, {"reward": 0}, None
    config.problem_type = None
    LlamaForSequenceClassification(config).save_pretrained(base)
    model = load_network(base, llm_settings(lora=Lora(r=2)), seed=3).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    merge_adapter(base, str(tmp_path / "adapter"), tmp_path / "merged", functools.partial(load_with_head, dtype="auto"))
    merged = LlamaForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    ids = torch.randint(5, 100, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, model(input_ids=ids).logits)


def test_a_folder_of_pickled_weights_is_refused_with_the_way_out(tmp_path):
    _, folder = classifier(tmp_path, LABELS[:3])
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="save it again with save_pretrained"):
        load_network(folder, PLAIN, seed=3)
