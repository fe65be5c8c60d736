"""Spread work over shards with Ray Data."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Item = dict[str, Any]


def map_shards(items: list[Item], work: Callable[[Item], Iterable[Item]], cpus: float = 1) -> Iterator[Item]:
    """Run `work` on each item in its own task; yield the small rows that it returns, as they finish.

    Items and results are names and counts. Tasks read and write the shards, so the driver's memory does not grow with
    the data.
    """
    import ray

    if not items:
        return
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    yield from dataset.flat_map(work, num_cpus=cpus).iter_rows()
