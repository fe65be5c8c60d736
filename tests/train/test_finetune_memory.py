"""The dry run's figures against models that are really there."""

import pytest
import torch

from tests.train.tiny_models import tiny_model
from train.finetune_memory import flops_per_token, plan_memory
from train.finetune_settings import FineTuning, Lora, TrainingStage
from train.networks import load_config, load_network, set_trained

SEQUENCE = 64
ALL = (TrainingStage("all", 1, 1e-3),)


def asked(architecture, **changes):
    lora = None if architecture == "deberta-v2" else Lora(r=4, dropout=0.1)
    return FineTuning(stages=ALL, lora=lora, tokens_per_batch=4 * SEQUENCE, **changes)


def kept_by_autograd(model, rows):
    """Bytes of the storages that a real forward pass leaves for the backward pass, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other storage takes its place
        return tensor

    ids = torch.randint(5, 500, (rows, SEQUENCE))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum()
    del loss
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("architecture", ["deberta-v2", "gemma2", "llama"])
def test_the_plan_is_what_a_real_model_takes(tmp_path, architecture):
    folder = str(tiny_model(tmp_path, architecture))
    settings = asked(architecture)
    plan = plan_memory(load_config(folder), settings, SEQUENCE)
    model = load_network(folder, settings).train()
    parameters = set_trained(model, "all", settings.lora is not None)
    trained = sum(parameter.numel() for parameter in parameters.values())
    assert plan.trained == trained
    assert plan.gradients == 4 * trained
    assert plan.optimizer == 8 * trained
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert plan.weights == pytest.approx(4 * everything, rel=0.01)
    assert plan.activations == pytest.approx(kept_by_autograd(model, rows=4), rel=0.15)


def test_checkpoints_save_activations_and_half_precision_halves_frozen_weights(tmp_path):
    config = load_config(str(tiny_model(tmp_path, "llama", layers=8)))
    plain = plan_memory(config, asked("llama"), SEQUENCE)
    checkpointed = plan_memory(config, asked("llama", gradient_checkpointing=True), SEQUENCE)
    half = plan_memory(config, asked("llama", precision="bfloat16"), SEQUENCE)
    assert checkpointed.activations < plain.activations / 3
    assert checkpointed.weights == plain.weights
    assert half.weights - 4 * plain.trained == pytest.approx((plain.weights - 4 * plain.trained) / 2, rel=0.01)


def test_operations_grow_with_what_is_done_twice_and_trained(tmp_path):
    config = load_config(str(tiny_model(tmp_path, "llama")))
    plain = asked("llama")
    plan = plan_memory(config, plain, SEQUENCE)
    once = flops_per_token(config, plan, plain, SEQUENCE)
    again = flops_per_token(config, plan, asked("llama", gradient_checkpointing=True), SEQUENCE)
    assert once < again < 1.6 * once
    assert flops_per_token(config, plan, plain, 10 * SEQUENCE) > once
