"""Read and validate the input, set bad rows aside, and divide the training records into folds.

Run as: python -m ray_jobs.ingest --config configs/demo.yaml

Two passes, so that no process holds all texts: the first validates file by file into staged shards; then ids are
checked and folds computed from ids, labels and prompt hashes alone; the second adds position and fold, shard by shard.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from core.errors import InputError
from demo import stages
from votes.ingest import digests_of, find, ingest_files, records_stage
from votes.records import SOURCE

if TYPE_CHECKING:
    from core.run import Run, StageResult


def ingest(run: Run) -> list[StageResult]:
    """Make records/{train,test,quarantine} from the configured input, or from pairs that the demo stage makes."""
    made = stages.make_pairs(run)
    sources = _sources(run)
    files = {split: find(location, split) for split, location in sources.items()}
    digests = {name: digest for split, found in files.items() for name, digest in digests_of(split, found).items()}
    return [*made, ingest_files(run, records_stage(run, digests), sources, files)]


def _sources(run: Run) -> dict[str, str]:
    data = run.settings.data
    train, test = data.primary, data.test
    if stages.is_synthetic(run) and test is None:
        pairs = stages.pairs_folder(run)
        train, test = (pairs / "train.csv").uri, (pairs / "test.csv").uri
    elif train is None and test is not None:
        raise InputError("pairs to score but no votes to learn from", where="data.test", fix="give data.train as well.")
    if train is None:
        raise InputError(
            "no training data",
            where="data.train",
            fix="give --set data.train=FILE, or data.synthetic for made-up pairs.",
        )
    return {
        "train": train,
        **({} if test is None else {"test": test}),
        **{f"{SOURCE}{source.name}": source.path for source in data.others},
    }


JOB = Job("ingest", __doc__, ingest, reads=("seed", "data"))

if __name__ == "__main__":
    sys.exit(main(JOB))
