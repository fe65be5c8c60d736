"""Fit on a stream of all training texts, in a task that runs in the background."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from core import logs
from core.errors import InputError
from core.progress import Progress
from featurize.text import Text
from votes.schema import TEXTS

if TYPE_CHECKING:
    from core.storage import Folder
    from featurize.outputs import FeatureJob, Output
    from votes.records import Records


class BackgroundFit:
    """A running fit."""

    def __init__(self, job: FeatureJob, output: Output) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._output = output
        # The counter runs on the driver's node, so that the loss of another node does not end it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._steps = ray.remote(num_cpus=0)(_StepCounter).options(scheduling_strategy=here).remote()
        # A task, because an actor would keep its CPU after the fit: a machine with one CPU would deadlock.
        fit = ray.remote(num_cpus=1)(_fit)
        self._fit = fit.remote(job.target, job.records, output, job.seed, self._steps)

    def wait(self) -> None:
        """Wait for the fit and report its progress."""
        import ray

        unit, total = self._output.family.fit_steps(self._output.entry)
        progress = Progress("featurize", unit, total=total)
        while not ray.wait([self._fit], timeout=2.0)[0]:
            done = ray.get(self._steps.get.remote())
            while progress.done < done:
                progress.advance()
        rows = ray.get(self._fit)
        ray.kill(self._steps)
        logs.info("featurize", f"{self._output.folder}: fitted, {rows:,} rows in {self._output.fitted}")


class _StepCounter:
    """Counts finished steps where the driver can read them. Takes no CPU."""

    def __init__(self) -> None:
        self._done = 0

    def set(self, done: int) -> None:
        self._done = done

    def get(self) -> int:
        return self._done


def put_fitted(job: FeatureJob, output: Output) -> Any:  # noqa: ANN401 - a Ray object reference
    """Put the fitted state into Ray's object store, where tasks of a node share it; return the reference."""
    import ray

    return ray.remote(num_cpus=1)(_read_fitted).remote(job.fitted, output)


def _fit(target: Folder, records: Records, output: Output, seed: int, steps: Any) -> int:  # noqa: ANN401 - a Ray actor
    entry = output.entry
    try:
        table = output.family.fit(entry, _stream_texts(records), seed, steps.set.remote)
    except ValueError as error:
        name = entry.entry_name
        raise InputError(str(error), where=f"featurize.families.{name}", fix=f"leave {name} out.") from error
    output.write_fitted_table(target, table)
    return len(table)


def _stream_texts(records: Records) -> Iterator[Text]:
    for shard in records.shards("train"):
        table = records.folder.read_table(shard, list(TEXTS))
        for part in TEXTS:
            yield from map(Text, table[part].to_pylist())


def _read_fitted(folder: Folder, output: Output) -> Any:  # noqa: ANN401 - the family's own
    return output.family.read_fitted(output, folder)
