"""Predictions of fine-tuned sequence classifiers for packed records: what transformers loads, batch by batch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from preference.swap import swap_average
from preference.token_batches import budget_batches, pad

Ids = npt.NDArray[np.int32]
Probabilities = npt.NDArray[np.float64]


class Classifier:
    """A model of a folder with a three-way head, on a GPU if it is given one, else on CPU threads."""

    def __init__(self, folder: str, tokens_per_batch: int, threads: int, gpu: bool, half: bool) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if gpu else "cpu")
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self._model = model.to(self._device).eval()
        self._tokens_per_batch = tokens_per_batch
        self._half = half

    def predict(self, ab: Sequence[Ids], ba: Sequence[Ids]) -> Probabilities:
        """Swap-averaged probabilities (n, 3) of records, given their ids in both orders; batched by length."""
        import torch

        lengths = np.array([len(ids) for ids in ab], np.int64)
        result = np.empty((len(ab), 3))
        with torch.no_grad():
            for batch in budget_batches(lengths, max(1, self._tokens_per_batch // 2)):
                shares = self._shares([each[n] for each in (ab, ba) for n in batch])
                result[batch] = swap_average(shares[: len(batch)], shares[len(batch) :])
        return result

    def _shares(self, sequences: Sequence[Ids]) -> Probabilities:
        import torch

        ids, mask = pad(sequences, int(self._model.config.pad_token_id))
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            logits = self._model(**{name: value.to(self._device) for name, value in inputs.items()}).logits
        shares: Probabilities = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return shares
