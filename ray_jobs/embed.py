"""Sentence embeddings for the features: encoded by a pool of actors, then reduced to their principal components."""

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from featurize import embeddings
from featurize.matrix import from_lists, to_lists
from featurize.similarity import vector_cosines
from featurize.text import Distinct
from ray_jobs.feature_store import Output
from ray_jobs.fit_features import read_fitted
from ray_jobs.progress import Progress
from ray_jobs.records import Records
from ray_jobs.settings import Embeddings
from ray_jobs.shards import Item, map_shards
from ray_jobs.storage import Folder

_SIDES = {"prompt": "prompt", "a": "response_a", "b": "response_b"}


def embed(target: Folder, records: Records, output: Output, wanted: Embeddings, items: list[Item], redo: bool) -> None:
    """Make embeddings/vectors (whole vectors) and embeddings/<split> (cosines and components) for all `items`."""
    import ray

    missing = [item for item in items if redo or target.table_fingerprint(_vectors(output, item)) != output.fingerprint]
    if missing:
        progress = Progress("featurize", "shards embedded", total=len(items), done=len(items) - len(missing))
        dataset = ray.data.from_items(missing, override_num_blocks=len(missing))
        encoded = dataset.map_batches(
            _EncodeShards,
            fn_constructor_args=(records.folder, target, output, wanted),
            batch_size=1,
            concurrency=min(wanted.replicas, len(missing)),
            num_cpus=wanted.cpus_per_replica,
            num_gpus=wanted.gpus_per_replica or None,
        )
        for row in encoded.iter_rows():
            progress.advance(rows=row["rows"])
    fit = ray.remote(num_cpus=1)(_fit_components)
    moments = ray.remote(num_cpus=1)(_moments)
    shards = [item for item in items if item["split"] == "train"]
    ray.get(fit.remote(target, output, wanted.components, *(moments.remote(target, output, item) for item in shards)))
    for _ in map_shards(items, functools.partial(_reduce, target=target, output=output, redo=redo)):
        pass


def _vectors(output: Output, item: Item) -> str:
    return f"{output.folder}/vectors/{item['split']}/{item['shard']}"


class _EncodeShards:
    """An actor that loads the encoder once and encodes shard after shard."""

    def __init__(self, records: Folder, target: Folder, output: Output, wanted: Embeddings) -> None:
        self._records, self._target, self._output = records, target, output
        self._encoder = embeddings.Encoder(wanted.model, wanted.max_tokens, wanted.cpus_per_replica)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = []
        for split, shard in zip(batch["split"], batch["shard"], strict=True):
            table = self._records.read_table(f"{split}/{shard}", ["id", *_SIDES.values()])
            distinct = Distinct.of(table)
            vectors = self._encoder.encode([text.full for text in distinct.texts])
            made = {side: to_lists(vectors[distinct.index[part]]) for side, part in _SIDES.items()}
            name = _vectors(self._output, {"split": split, "shard": shard})
            self._target.write_table(name, pa.table({"id": table["id"], **made}), self._output.fingerprint)
            rows.append(len(table))
        return {"rows": rows}


def _moments(target: Folder, output: Output, item: Item) -> embeddings.Moments:
    table = target.read_table(_vectors(output, item), list(_SIDES))
    prompt, a, b = (embeddings.Moments.of(from_lists(table[side])) for side in _SIDES)
    return prompt + a + b


def _fit_components(target: Folder, output: Output, count: int, *moments: embeddings.Moments) -> None:
    # Added up in the order of the shards, so that the last bit does not depend on who was first.
    components = embeddings.principal_components(functools.reduce(lambda one, other: one + other, moments), count)
    assert output.fitted is not None
    target.write_json(
        output.fitted,
        {
            "fingerprint": output.fingerprint,
            "mean": components.mean.tolist(),
            "directions": components.directions.tolist(),
        },
    )


def _reduce(item: Item, target: Folder, output: Output, redo: bool) -> Iterator[Item]:
    import numpy as np

    name = f"{output.folder}/{item['split']}/{item['shard']}"
    if redo or target.table_fingerprint(name) != output.fingerprint:
        fitted = read_fitted(target, output)
        components = embeddings.Components(np.array(fitted["mean"]), np.array(fitted["directions"]))
        table = target.read_table(_vectors(output, item))
        vectors = {side: from_lists(table[side]) for side in _SIDES}
        made = {
            "id": table["id"],
            "cosines": to_lists(vector_cosines(*vectors.values())),
            **{side: to_lists(components.reduce(each)) for side, each in vectors.items()},
        }
        target.write_table(name, pa.table(made), output.fingerprint)
    yield {"rows": 0}
