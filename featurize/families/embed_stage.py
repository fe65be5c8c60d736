"""Sentence embeddings for the features: encoded by a pool of actors, then reduced to their principal components."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.model_cache import local_folder, stored_fingerprint
from core.progress import Progress
from core.shards import Item, map_shards
from core.storage import Folder
from featurize.blocks import from_lists, to_lists
from featurize.families import embeddings
from featurize.families.similarity import vector_cosines
from featurize.store import Output, is_fitted, read_fitted
from featurize.text import Distinct

if TYPE_CHECKING:
    from core.settings.features import Embeddings
    from votes.records import Records

_SIDES = {"prompt": "prompt", "a": "response_a", "b": "response_b"}


def embed(
    target: Folder,
    records: Records,
    vectors: Output,
    output: Output,
    wanted: Embeddings,
    items: list[Item],
    redo: bool,
) -> None:
    """Make the files of `vectors` (whole vectors) and of `output` (cosines and components) for all `items`."""
    import ray

    missing = _encode(target, records, vectors, wanted, items, redo)
    refit = redo or any(item["split"] == "train" for item in missing) or not is_fitted(target, output)
    if refit:
        moments = ray.remote(num_cpus=1)(_moments)
        add = ray.remote(num_cpus=1)(_add)
        sums = [moments.remote(target, vectors, item) for item in items if item["split"] == "train"]
        while len(sums) > 1:
            # In the order of the shards, so that the last bit does not depend on who was first.
            sums = [add.remote(*sums[at : at + 8]) for at in range(0, len(sums), 8)]
        ray.get(ray.remote(num_cpus=1)(_fit_components).remote(target, output, wanted.components, sums[0]))
    _reduce_missing(target, target, vectors, output, items, refit)


def embed_fitted(
    fitted: Folder,
    target: Folder,
    records: Records,
    vectors: Output,
    output: Output,
    wanted: Embeddings,
    items: list[Item],
    redo: bool,
) -> None:
    """The same with the components that lie in `fitted`."""
    _encode(target, records, vectors, wanted, items, redo)
    _reduce_missing(fitted, target, vectors, output, items, redo)


def _encode(
    target: Folder, records: Records, vectors: Output, wanted: Embeddings, items: list[Item], redo: bool
) -> list[Item]:
    """Make the whole vectors that are missing, and return the items they are of."""
    import ray

    missing = items if redo else vectors.missing(target, items)
    if missing:
        progress = Progress("featurize", "shards embedded", total=len(items), done=len(items) - len(missing))
        dataset = ray.data.from_items(missing, override_num_blocks=len(missing))
        encoded = dataset.map_batches(
            _EncodeShards,
            fn_constructor_args=(records.folder, target, vectors, wanted),
            batch_size=1,
            concurrency=(1, min(wanted.replicas or len(missing), len(missing))),
            num_cpus=wanted.cpus_per_replica,
            num_gpus=wanted.gpus_per_replica or None,
        )
        for row in encoded.iter_rows():
            progress.advance(rows=row["rows"])
    return missing


def _reduce_missing(
    fitted: Folder, target: Folder, vectors: Output, output: Output, items: list[Item], redo: bool
) -> None:
    rest = items if redo else output.missing(target, items)
    reduce = functools.partial(_reduce, fitted=fitted, target=target, vectors=vectors, output=output)
    for _ in map_shards(rest, reduce):
        pass


class _EncodeShards:
    """An actor that loads the encoder once and encodes shard after shard."""

    def __init__(self, records: Folder, target: Folder, output: Output, wanted: Embeddings) -> None:
        self._records, self._target, self._output, self._wanted = records, target, output, wanted

    @functools.cached_property
    def _encoder(self) -> embeddings.Encoder:
        # Not when the actor starts, since Ray tells of an error there as the actor's death, without its type.
        model = self._wanted.model
        if "://" in model:
            model = local_folder(Folder(model), stored_fingerprint(model))
        return embeddings.Encoder(model, self._wanted.max_tokens, self._wanted.cpus_per_replica)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = []
        for split, shard in zip(batch["split"], batch["shard"], strict=True):
            table = self._records.read_table(f"{split}/{shard}", ["id", *_SIDES.values()])
            distinct = Distinct.of(table)
            vectors = self._encoder.encode([text.full for text in distinct.texts])
            made = {side: to_lists(vectors[distinct.index[part]]) for side, part in _SIDES.items()}
            name = self._output.file({"split": split, "shard": shard})
            self._target.write_table(name, pa.table({"id": table["id"], **made}), self._output.by_split[split])
            rows.append(len(table))
        return {"rows": rows}


def _moments(target: Folder, vectors: Output, item: Item) -> embeddings.Moments:
    table = target.read_table(vectors.file(item), list(_SIDES))
    prompt, a, b = (embeddings.Moments.of(from_lists(table[side])) for side in _SIDES)
    return prompt + a + b


def _add(*moments: embeddings.Moments) -> embeddings.Moments:
    return functools.reduce(operator.add, moments)


def _fit_components(target: Folder, output: Output, count: int, moments: embeddings.Moments) -> None:
    components = embeddings.principal_components(moments, count)
    directions, mean = components.directions.tolist(), components.mean.tolist()
    target.write_json(output.fitted, {"fingerprint": output.fingerprint, "mean": mean, "directions": directions})


def _reduce(item: Item, fitted: Folder, target: Folder, vectors: Output, output: Output) -> Iterator[Item]:
    found = read_fitted(fitted, output)
    components = embeddings.Components(np.array(found["mean"]), np.array(found["directions"]))
    table = target.read_table(vectors.file(item))
    whole = {side: from_lists(table[side]) for side in _SIDES}
    reduced = {side: to_lists(components.reduce(each)) for side, each in whole.items()}
    made = {"id": table["id"], "cosines": to_lists(vector_cosines(*whole.values())), **reduced}
    target.write_table(output.file(item), pa.table(made), output.by_split[item["split"]])
    yield {"rows": len(table)}
