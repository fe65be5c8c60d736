"""Work on shards under Ray Data: the one way in which jobs spread work that needs no labels or models."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Item = dict[str, Any]


def map_shards(items: list[Item], work: Callable[[Item], Iterable[Item]], cpus: float = 1) -> Iterator[Item]:
    """Run `work` on each item in a task of its own and yield the small rows it returns, as they are finished.

    Items and results are names, counts and the like; what a shard holds is read and written by the tasks, so the
    driver's memory does not grow with the data.
    """
    import ray

    if not items:
        return
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    yield from dataset.flat_map(work, num_cpus=cpus).iter_rows()
