"""The forward pass of a fold's model: from examples to logits, losses and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featurize.tokens.batches import budget_batches, model_inputs
from train.finetune.data import TokenReader
from train.finetune.gradients import sum_over_workers
from train.finetune.losses import summed_loss
from votes.swap import swap_average

if TYPE_CHECKING:
    import torch

    from core.arrays import Probabilities, Rows
    from core.settings.finetune import FinetunedModel, TrainingStage
    from train.finetune.task import FoldTask, OrderedRecord

_POOLED_BYTES = 2**30


class FoldNetwork:
    """A fold's model on one device."""

    def __init__(self, model: Any, task: FoldTask, device: torch.device) -> None:  # noqa: ANN401 - of transformers
        self.model = model
        self._settings, self._data, self._device = task.settings, task.data, device
        self._reader = TokenReader(task.data.blocks)
        self._pad_id = int(model.config.pad_token_id)
        self._pooled: dict[OrderedRecord, torch.Tensor] | None = None

    def prepare(self, stage: TrainingStage) -> None:
        """Cache the pooled states of examples while only the head is trained, since they cannot change."""
        records = len(self._data.lengths)
        size = records * 2 * 3 * int(self.model.config.hidden_size) * 4  # both orders, three parts, float32
        fits = self._settings.compares_answers and stage.train == "head" and size <= _POOLED_BYTES
        self._pooled = {} if fits else None

    def train_mode(self, stage: TrainingStage) -> None:
        """Turn on dropout in trained modules. Frozen modules give the same numbers each time."""
        self.model.train()
        if stage.train == "all" or self._settings.adapters is not None:
            return
        self.model.base_model.eval()
        for module in self.model.base_model.modules():
            own = list(module.parameters())
            if own and all(parameter.requires_grad for parameter in own):
                module.train()

    def loss(self, examples: Sequence[OrderedRecord]) -> torch.Tensor:
        """Return the summed loss of examples in nats."""
        import torch

        logits = self.logits(examples)
        targets = [self._data.targets(record, swapped) for record, swapped in examples]
        votes = torch.tensor(np.stack([counts for counts, _ in targets]), dtype=torch.float32, device=self._device)
        teacher = None
        if self._data.teacher is not None:
            soft = np.stack([probabilities for _, probabilities in targets if probabilities is not None])
            teacher = torch.tensor(soft, dtype=torch.float32, device=self._device)
        return summed_loss(logits, votes, teacher, self._settings)

    def predict(self, records: Rows, rank: int, world: int) -> Probabilities:
        """Return the swap-averaged probabilities (n, k) of records. All `world` workers share the work."""
        import torch

        self.model.eval()
        result = torch.zeros((len(records), self._data.classes), dtype=torch.float64)
        batches = budget_batches(self._data.lengths[records], self._settings.max_tokens_per_microbatch // 2)
        with torch.no_grad():
            for batch in batches[rank::world]:
                examples = [(records[n], swapped) for swapped in (False, True) for n in batch]
                values = torch.softmax(self.logits(examples).double(), dim=1).cpu().numpy()
                result[batch] = torch.from_numpy(swap_average(values[: len(batch)], values[len(batch) :]))
        if world > 1:
            total = result.to(self._device)
            sum_over_workers(total)
            result = total.cpu()
        return np.asarray(result.numpy())

    def logits(self, examples: Sequence[OrderedRecord]) -> torch.Tensor:
        """Return the logits (n, k) of examples."""
        if self._pooled is None:
            return self._forward(examples, self.model)
        import torch

        missing = [example for example in examples if example not in self._pooled]
        if missing:
            with torch.no_grad():
                self._pooled.update(zip(missing, self._forward(missing, self.model.pool), strict=True))
        result: torch.Tensor = self.model.judge(torch.stack([self._pooled[example] for example in examples])).logits
        return result

    def _forward(self, examples: Sequence[OrderedRecord], module: Callable[..., Any]) -> torch.Tensor:
        """Run the model, or one of its methods, on examples. Return its logits, or the tensor that it returns."""
        import torch

        ids = [self._reader.ids(record, swapped) for record, swapped in examples]
        parts = None
        if self._settings.compares_answers:
            parts = [self._reader.parts(record, swapped) for record, swapped in examples]
        arrays = model_inputs(ids, self._pad_id, parts)
        inputs = {name: torch.from_numpy(values).to(self._device) for name, values in arrays.items()}
        is_bfloat16 = self._settings.dtype == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_bfloat16):
            output = module(**inputs, **forward_options(self._settings))
        result: torch.Tensor = getattr(output, "logits", output)
        return result


def forward_options(settings: FinetunedModel) -> dict[str, bool]:
    """Return a model's arguments besides its input: a decoder need not keep keys and values."""
    return {} if settings.adapters is None else {"use_cache": False}
