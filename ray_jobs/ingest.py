"""Read and validate votes, quarantine bad rows, and divide the training records into folds.

Run as: python -m ray_jobs.ingest --config configs/demo.yaml

It writes records/{train,test,quarantine}. A bad row goes to quarantine with its reason. Folds are stratified by vote
and grouped by prompt. The result is cached, and rebuilt only if the files or these settings change.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from core.errors import InputError
from demo import stages
from votes.ingest import file_digests, find_vote_files, ingest_files, records_stage
from votes.records import SOURCE_PREFIX

if TYPE_CHECKING:
    from core.run import Run, StageResult


def ingest(run: Run) -> list[StageResult]:
    """Build records/{train,test,quarantine} from the configured input, or from made-up pairs."""
    synthetic = stages.make_pairs(run)
    sources = _sources(run)
    files = {split: find_vote_files(run, location, split) for split, location in sources.items()}
    digests: dict[str, str] = {}
    for split, of_split in files.items():
        digests |= file_digests(split, of_split)
    return [*synthetic, ingest_files(run, records_stage(run, digests), sources, files)]


def _sources(run: Run) -> dict[str, str]:
    data = run.settings.data
    train, test = data.primary, data.test
    if stages.is_synthetic(run) and test is None:
        pairs = stages.pairs_folder(run)
        train, test = (pairs / "train.csv").uri, (pairs / "test.csv").uri
    elif train is None and test is not None:
        raise InputError(
            "there are pairs to score but no votes to learn from", where="data.test", fix="give data.train as well."
        )
    if train is None:
        raise InputError(
            "no training data",
            where="data.train",
            fix="give --set data.train=FILE, or data.synthetic for made-up pairs.",
        )
    return {
        "train": train,
        **({} if test is None else {"test": test}),
        **{f"{SOURCE_PREFIX}{source.name}": source.path for source in data.others},
    }


JOB = Job("ingest", __doc__, ingest, reads=("seed", "data"))

if __name__ == "__main__":
    sys.exit(main(JOB))
