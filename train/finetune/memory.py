"""Estimates of fine-tuning: parameters, peak memory by part, and floating-point operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from train.finetune.flops import attention_flops, forward_flops, non_embedding_parameters
from train.finetune.forward import forward_options
from train.finetune.networks import add_lora, base_dtype
from train.finetune.sampler import EpochSampler, largest_microbatches

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from core.settings.finetune import FinetunedModel

_FULL = 4  # bytes of a float32: trained parameters, their gradients, each of AdamW's two moments
_HALF = 2
# Bytes of a weight, with 0.127 bits for its constants, which are quantized too: Dettmers et al. 2023, section 3.
_FOUR_BIT = 0.5 + 0.127 / 8


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the peak of a step on one worker, by part."""

    parameters: int  # of the base and its head
    adapters: int
    trained: int
    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def peak(self) -> float:
        """The sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.activations


def plan_memory(config: PreTrainedConfig, settings: FinetunedModel, shapes: Sequence[tuple[int, int]]) -> MemoryPlan:
    """Return the peak of a step whose microbatches have these shapes: sequences, and tokens of each.

    Weights, gradients and optimizer are counted: 4 bytes for each trained parameter, its gradient and each of AdamW's
    moments. Frozen weights have their own type. Activations are measured, not estimated by an architecture's formula.
    The model's own forward and backward pass runs on meta tensors (shapes without values), with autocast and gradient
    checkpointing as in training. The peak of the bytes that exist at the same time is counted.

    The estimate is for a stage that trains everything. Kernels are chosen as on a CPU. GPU kernels may keep less or
    more for attention. Not included: the CUDA context (about 0.5 GiB), kernels' workspaces, and unused memory between
    the allocator's blocks.
    """
    import torch

    model = _meta_model(config, settings)
    parameters = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if settings.adapters is None:
        weights = float(parameters * _FULL)
    else:
        head = sum(p.numel() for name, p in model.named_parameters() if "score" in name and p.requires_grad)
        frozen = parameters - head
        linear = sum(
            module.weight.numel()
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and "lora_" not in name and "score" not in name
        )
        if settings.is_4bit:
            weights = linear * _FOUR_BIT + (frozen - linear) * _HALF + trained * _FULL
        else:
            weights = float(frozen * _bytes(settings) + trained * _FULL)
    return MemoryPlan(
        parameters,
        sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name),
        trained,
        weights,
        float(trained * _FULL),
        float(2 * trained * _FULL),
        max(_step_bytes(_meta_model(config, settings), settings, *shape) for shape in shapes),
    )


def microbatch_shapes(lengths: npt.NDArray[np.integer], settings: FinetunedModel, seed: int) -> list[tuple[int, int]]:
    """Return the shapes of the largest microbatches for records with these lengths (n,): sequences, tokens of each."""
    sampler = EpochSampler(lengths, settings, seed)
    plans = [
        sampler.steps(number, epoch) for number, stage in enumerate(settings.stages) for epoch in range(stage.epochs)
    ]
    batches = largest_microbatches(plans, lengths)
    return sorted({(len(batch) * settings.orders, int(lengths[batch].max())) for batch in batches})


def flops_per_token(config: PreTrainedConfig, plan: MemoryPlan, settings: FinetunedModel, sequence: int) -> float:
    """Return the floating-point operations of one training step for each token, in sequences of this many tokens.

    Each parameter costs 2 forward, 2 for the gradients of activations, and 2 for its own gradient if it is trained.
    Gradient checkpointing repeats the forward pass, which costs 2 more. Attention takes twice as much backward as
    forward, since both factors of its products are activations. See train.finetune.flops.
    """
    forward = predicting_flops_per_token(config, plan, sequence)
    multiplied = non_embedding_parameters(config, plan.parameters) + plan.adapters
    attention = attention_flops(config, sequence)
    backward = 2 * multiplied + 2 * attention + 2 * (plan.trained if settings.adapters else multiplied)
    return forward * (1 + settings.gradient_checkpointing) + backward


def predicting_flops_per_token(config: PreTrainedConfig, plan: MemoryPlan, sequence: int) -> float:
    """Return the floating-point operations of a forward pass for each token. Adapters are multiplied separately."""
    return forward_flops(config, plan.parameters, sequence) + 2.0 * plan.adapters


def _bytes(settings: FinetunedModel) -> int:
    return _HALF if settings.dtype == "bfloat16" else _FULL


def _step_bytes(model: Any, settings: FinetunedModel, rows: int, sequence: int) -> float:  # noqa: ANN401
    """Return the bytes at the peak of a forward and backward pass, without parameters and their gradients."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from train.finetune.memory_tracker import MemoryTracker

    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")  # from the meta device, for which there is no autocast
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        ids = torch.zeros((rows, sequence), dtype=torch.long)
        # Sequences of equal length need no mask, and causal models read the values of a mask, which are absent here.
        mask = None if settings.adapters is not None else torch.ones_like(ids)
        existing = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in trained)]
        with MemoryTracker(existing) as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.dtype == "bfloat16"):
                logits = model(input_ids=ids, attention_mask=mask, **forward_options(settings)).logits
            logits.float().sum().backward()
    return float(live.peak)


def _meta_model(config: PreTrainedConfig, settings: FinetunedModel) -> Any:  # noqa: ANN401 - a model of transformers
    """Return the model that train.finetune.networks.load_network loads, with shapes and no values."""
    import torch
    from transformers import AutoModelForSequenceClassification

    attention = "eager" if config.model_type == "gemma2" else None
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(
            config, dtype=base_dtype(settings), attn_implementation=attention
        )
        if settings.adapters is not None:
            model = add_lora(model, settings.adapters)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()
