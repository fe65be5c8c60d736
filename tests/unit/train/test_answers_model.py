"""The head that compares answers: symmetric, saved and loaded as it was."""

import numpy as np
import pytest
import torch

from core.errors import InputError
from featurize.tokens.batches import pad
from featurize.tokens.packing import Packer
from tests.helpers.tiny_models import MAX_TOKENS, records, tiny_model
from train.finetune.answers_model import HEAD_FILE, AnswersModel
from train.finetune.networks import load_network, load_tokenizer, set_trained
from train.finetune.settings import FineTuning


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), "deberta-v2")


def batch(folder, count=5):
    packer = Packer(load_tokenizer(str(folder)), MAX_TOKENS, "encoder")
    both = [packer.pack_both_marked(*texts) for texts in records(count)[0]]
    orders = []
    for order in (0, 1):
        ids, mask = pad([np.array(each[order][0]) for each in both], 0)
        parts, _ = pad([np.array(each[order][1]) for each in both], 0)
        orders.append({"input_ids": ids, "attention_mask": mask, "parts": parts})
    return [{name: torch.from_numpy(value) for name, value in each.items()} for each in orders]


def test_an_untrained_head_knows_nothing(folder):
    model = load_network(str(folder), FineTuning(stages=(), head="answers")).eval()
    assert not model(**batch(folder)[0]).logits.any()


def test_exchanging_the_parts_exchanges_the_chances(folder):
    model = load_network(str(folder), FineTuning(stages=(), head="answers")).eval()
    torch.nn.init.normal_(model.score.weight)
    torch.nn.init.normal_(model.tie.weight)
    inputs = batch(folder)[0]
    exchanged = inputs | {"parts": torch.tensor([0, 1, 3, 2])[inputs["parts"]]}
    with torch.no_grad():
        one, other = (model(**each).logits for each in (inputs, exchanged))
    torch.testing.assert_close(one[:, [1, 0, 2]], other)
    assert one.std() > 0.1


def test_a_saved_model_comes_back(folder, tmp_path):
    model = load_network(str(folder), FineTuning(stages=(), head="answers")).eval()
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        found = AnswersModel.load(str(tmp_path)).eval()(**batch(folder)[1]).logits
        torch.testing.assert_close(found, model(**batch(folder)[1]).logits)


def test_a_head_of_other_parameters_is_no_head(folder, tmp_path):
    from safetensors.torch import save_file

    load_network(str(folder), FineTuning(stages=(), head="answers")).save_pretrained(tmp_path)
    save_file({"scores.weight": torch.zeros(1, 64)}, tmp_path / HEAD_FILE)
    with pytest.raises(InputError, match=r"scores.weight where the head has score.weight, tie.bias, tie.weight"):
        AnswersModel.load(str(tmp_path))


def test_the_head_alone_is_small_and_trained_alone(folder):
    model = load_network(str(folder), FineTuning(stages=(), head="answers"))
    assert set(set_trained(model, "head", lora=False)) == {"score.weight", "tie.weight", "tie.bias"}
