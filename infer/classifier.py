"""Predictions of fine-tuned sequence classifiers for packed records: what transformers loads, batch by batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from core.safe_weights import SAFE
from featurize.tokens.batches import budget_batches, model_inputs
from featurize.tokens.packing import load_packing
from votes.swap import swap_average

Ids = npt.NDArray[np.integer]
Packed = tuple[Sequence[Ids], Sequence[Ids]]  # ids of each record, and the parts they belong to
Probabilities = npt.NDArray[np.float64]


class Classifier:
    """A model of a folder with a three-way head, on a GPU if it is given one, else on CPU threads.

    `packing` is how the records are packed that it will be given: see featurize.tokens.packing.packing_settings. Raises
    InputError if the model was trained on another packing.
    """

    def __init__(
        self,
        folder: str,
        tokens_per_batch: int,
        threads: int,
        gpu: bool,
        half: bool,
        packing: Mapping[str, object],
    ) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        from train.finetune.answers_model import HEAD_FILE, AnswersModel

        if load_packing(Path(folder)) != packing:
            raise InputError(
                "the model was trained on records packed differently", folder, "run its job again with --force."
            )
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if gpu else "cpu")
        self._compares = (Path(folder) / HEAD_FILE).exists()
        model: Any
        if self._compares:
            model = AnswersModel.load(folder)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **SAFE)
        self._model = model.to(self._device).eval()
        self._tokens_per_batch = tokens_per_batch
        self._half = half

    def predict(self, ab: Packed, ba: Packed) -> Probabilities:
        """Swap-averaged probabilities (n, 3) of records, given their ids in both orders; batched by length.

        With each order's ids come the parts they belong to; see featurize.tokens.packing.Packer.pack_both_marked.
        """
        import torch

        lengths = np.array([len(ids) for ids in ab[0]], np.int64)
        result = np.empty((len(lengths), 3))
        with torch.no_grad():
            for batch in budget_batches(lengths, max(1, self._tokens_per_batch // 2)):
                ids, parts = ([both[kind][n] for both in (ab, ba) for n in batch] for kind in (0, 1))
                shares = self._shares(ids, parts)
                result[batch] = swap_average(shares[: len(batch)], shares[len(batch) :])
        return result

    def _shares(self, sequences: Sequence[Ids], parts: Sequence[Ids]) -> Probabilities:
        import torch

        pad_id = int(self._model.config.pad_token_id)
        arrays = model_inputs(sequences, pad_id, parts if self._compares else None)
        inputs = {name: torch.from_numpy(each).to(self._device) for name, each in arrays.items()}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            logits = self._model(**inputs).logits
        shares: Probabilities = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return shares
