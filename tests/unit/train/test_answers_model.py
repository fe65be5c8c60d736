"""The head that compares answers: symmetric, saved and loaded as it was."""

import numpy as np
import pytest
import torch

from core.errors import InputError
from core.pretrained import load_tokenizer
from featurize.tokens.batches import pad
from featurize.tokens.packing import Packer
from tests.helpers.tiny_models import MAX_TOKENS, encoder_settings, records, tiny_model
from train.finetune.answers_model import HEAD_FILE, AnswersModel
from train.finetune.networks import freeze_untrained, load_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), "deberta-v2")


def batch(folder, count=5):
    packer = Packer(load_tokenizer(str(folder)), MAX_TOKENS, "encoder")
    packed = [packer.pack_both_marked(*texts) for texts in records(count)[0]]
    batches = []
    for order in (0, 1):
        ids, mask = pad([np.array(orders[order][0]) for orders in packed], 0)
        parts, _ = pad([np.array(orders[order][1]) for orders in packed], 0)
        batches.append({"input_ids": ids, "attention_mask": mask, "parts": parts})
    return [{name: torch.from_numpy(value) for name, value in inputs.items()} for inputs in batches]


def test_an_untrained_head_knows_nothing(folder):
    model = load_network(str(folder), encoder_settings(head="answers"), seed=0).eval()
    assert not model(**batch(folder)[0]).logits.any()


def test_swapping_the_parts_swaps_the_probabilities(folder):
    model = load_network(str(folder), encoder_settings(head="answers"), seed=0).eval()
    torch.nn.init.normal_(model.score.weight)
    torch.nn.init.normal_(model.tie.weight)
    inputs = batch(folder)[0]
    swapped_inputs = inputs | {"parts": torch.tensor([0, 1, 3, 2])[inputs["parts"]]}
    with torch.no_grad():
        logits, swapped = (model(**values).logits for values in (inputs, swapped_inputs))
    torch.testing.assert_close(logits[:, [1, 0, 2]], swapped)
    assert logits.std() > 0.1


def test_a_saved_model_comes_back(folder, tmp_path):
    model = load_network(str(folder), encoder_settings(head="answers"), seed=0).eval()
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        loaded = AnswersModel.load(str(tmp_path)).eval()(**batch(folder)[1]).logits
        torch.testing.assert_close(loaded, model(**batch(folder)[1]).logits)


def test_a_head_of_other_parameters_is_no_head(folder, tmp_path):
    from safetensors.torch import save_file

    load_network(str(folder), encoder_settings(head="answers"), seed=0).save_pretrained(tmp_path)
    save_file({"scores.weight": torch.zeros(1, 64)}, tmp_path / HEAD_FILE)
    with pytest.raises(InputError, match=r"scores.weight where the head has score.weight, tie.bias, tie.weight"):
        AnswersModel.load(str(tmp_path))


def test_the_head_alone_is_small_and_trained_alone(folder):
    model = load_network(str(folder), encoder_settings(head="answers"), seed=0)
    assert set(freeze_untrained(model, "head", lora=False)) == {"score.weight", "tie.weight", "tie.bias"}
