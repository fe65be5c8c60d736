"""Fit families' counters on the training records, in one pass over the shards. Ray tasks read the shards. Their results
do not grow with the number of records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core import logs
from core.progress import Progress
from featurize.text import DistinctTexts
from votes.schema import TEXTS

if TYPE_CHECKING:
    from core.storage import Folder
    from featurize.family import TrainingCounter
    from featurize.outputs import FeatureJob, Output
    from votes.records import Records

_MERGED_AT_ONCE = 8


def fit_counts(job: FeatureJob, outputs: Sequence[Output]) -> None:
    """Fit the counters of these outputs that are not fitted yet."""
    by_family: dict[str, list[Output]] = {}
    for output in outputs:
        if job.must_fit(output):
            by_family.setdefault(output.family.name, []).append(output)
    counters = [counter for members in by_family.values() for counter in members[0].family.counters(members)]
    if counters:
        _write_all(job, counters, _count_all(job.records, counters))


def _count_all(records: Records, counters: list[TrainingCounter]) -> Any:  # noqa: ANN401 - a Ray object reference
    """Return a reference to the merged reports of all counters.

    Reports are merged as they finish, so that only a few are in the object store at a time.
    """
    import ray

    report = ray.remote(num_cpus=1)(_report)
    merge = ray.remote(num_cpus=1)(_merge)
    batches = _batches(records, max(counter.fewest_rows for counter in counters))
    shards_of = {report.remote(records.folder, batch, counters): len(batch) for batch in batches}
    levels: list[list[Any]] = []  # reports that were merged 0, 1, 2... times
    progress = Progress("featurize", "shards counted", total=sum(shards_of.values()))
    for reference in _finished(list(shards_of)):
        for _ in range(shards_of.pop(reference)):
            progress.advance()
        _add_report(levels, reference, lambda *reports: merge.remote(counters, *reports))
    return merge.remote(counters, *(reference for level in levels for reference in level))


def _add_report(levels: list[list[Any]], reference: Any, merge: Any) -> None:  # noqa: ANN401 - Ray references
    """Add a report to the lowest level, and merge a level that is full into the next."""
    for level in levels:
        level.append(reference)
        if len(level) < _MERGED_AT_ONCE:
            return
        reference = merge(*level)
        level.clear()
    levels.append([reference])


def _write_all(job: FeatureJob, counters: list[TrainingCounter], merged: Any) -> None:  # noqa: ANN401 - a Ray object reference
    """Count uncertain terms of the merged reports in a second pass, and write the fitted state."""
    import ray

    select = ray.remote(num_cpus=1, num_returns=3)(_select_candidates)
    kept, requests, needs_recount = select.remote(counters, merged)
    exact: dict[int, Any] = {}  # by the number of the counter
    if ray.get(needs_recount):
        shards = job.records.shards("train")
        progress = Progress("featurize", "shards counted again", total=len(shards))
        count = ray.remote(num_cpus=1)(_count_again)
        for reference in _finished([count.remote(job.records.folder, shard, counters, requests) for shard in shards]):
            for n, counts in ray.get(reference).items():
                exact[n] = exact[n] + counts if n in exact else counts
            progress.advance()
    write = ray.remote(num_cpus=1)(_write)
    tasks = [
        write.remote(n, counters, kept, exact.get(n), output, job.target)
        for n, counter in enumerate(counters)
        for output in counter.outputs
    ]
    for line in ray.get(tasks):
        logs.info("featurize", line)


def _finished(waiting: list[Any]) -> Iterator[Any]:
    """Yield tasks as they finish. A list that nothing else holds releases each result after the caller has had it."""
    import ray

    while waiting:
        done, waiting = ray.wait(waiting, fetch_local=False)
        yield from done


def _batches(records: Records, fewest_rows: float) -> list[list[str]]:
    """Return the training shards, put together until they have `fewest_rows` records."""
    batches: list[list[str]] = []
    rows = 0
    for shard in records.shards("train"):
        if not batches or rows >= fewest_rows:
            batches.append([])
            rows = 0
        batches[-1].append(shard)
        rows += records.shard_rows(shard)
    return batches


def _report(records: Folder, shards: Sequence[str], counters: list[TrainingCounter]) -> list[Any]:
    distinct = DistinctTexts.of(pa.concat_tables([records.read_table(shard, list(TEXTS)) for shard in shards]))
    return [counter.report(distinct) for counter in counters]


def _merge(counters: list[TrainingCounter], *reports: list[Any]) -> list[Any]:
    return [counter.merge(*of_counter) for counter, *of_counter in zip(counters, *reports, strict=True)]


def _select_candidates(counters: list[TrainingCounter], merged: list[Any]) -> tuple[list[Any], list[Any], bool]:
    selections = [counter.select_candidates(counts) for counter, counts in zip(counters, merged, strict=True)]
    requests = [request for _, request in selections]
    return [counts for counts, _ in selections], requests, any(request is not None for request in requests)


def _count_again(records: Folder, shard: str, counters: list[TrainingCounter], requests: list[Any]) -> dict[int, Any]:
    distinct = DistinctTexts.of(records.read_table(shard, list(TEXTS)))
    return {
        n: counter.recount(distinct, request)
        for n, (counter, request) in enumerate(zip(counters, requests, strict=True))
        if request is not None
    }


def _write(
    number: int,
    counters: list[TrainingCounter],
    kept: list[Any],
    exact: Any,  # noqa: ANN401 - the counter's own
    output: Output,
    target: Folder,
) -> str:
    return counters[number].write(kept[number], exact, output, target)
