"""Predict packed records with fine-tuned sequence classifiers of transformers, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from core.pretrained import SAFE_LOADING
from featurize.tokens.batches import budget_batches, model_inputs
from featurize.tokens.packing import load_packing
from votes.swap import swap_average

if TYPE_CHECKING:
    from core.arrays import Probabilities

IdArray = npt.NDArray[np.integer]
PackedOrder = tuple[Sequence[IdArray], Sequence[IdArray]]  # ids of each record, and the parts they belong to


class Classifier:
    """A model of a folder with a head for the outcomes, on a GPU or on CPU threads.

    `packing` describes the records to predict: see featurize.tokens.packing.packing_settings. Raises InputError if the
    model was trained on records with another packing.
    """

    def __init__(
        self,
        folder: str,
        max_tokens_per_batch: int,
        threads: int,
        gpu: bool,
        bfloat16: bool,
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
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **SAFE_LOADING)
        self._model = model.to(self._device).eval()
        self._max_tokens_per_batch = max_tokens_per_batch
        self._bfloat16 = bfloat16

    def predict(self, ab: PackedOrder, ba: PackedOrder) -> Probabilities:
        """Return the swap-averaged probabilities (n, k) of records, given both orders. Batches are by length.

        For the parts see featurize.tokens.packing.Packer.pack_both_marked.
        """
        import torch

        lengths = np.array([len(ids) for ids in ab[0]], np.int64)
        result = np.empty((len(lengths), self._model.config.num_labels))
        with torch.no_grad():
            for batch in budget_batches(lengths, max(1, self._max_tokens_per_batch // 2)):
                ids, parts = ([order[kind][n] for order in (ab, ba) for n in batch] for kind in (0, 1))
                values = self._probabilities(ids, parts)
                result[batch] = swap_average(values[: len(batch)], values[len(batch) :])
        return result

    def _probabilities(self, sequences: Sequence[IdArray], parts: Sequence[IdArray]) -> Probabilities:
        import torch

        pad_id = int(self._model.config.pad_token_id)
        arrays = model_inputs(sequences, pad_id, parts if self._compares else None)
        inputs = {name: torch.from_numpy(values).to(self._device) for name, values in arrays.items()}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits = self._model(**inputs).logits
        probabilities: Probabilities = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return probabilities
