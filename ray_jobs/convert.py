"""Write votes in the shape of another tool: TRL, OpenAI, the arena, Kaggle and so on.

Run as: python -m ray_jobs.convert --config FILE --set data.train=VOTES --set convert.to=trl --set convert.output=FILE

Votes of any readable format are converted; see docs/formats.md. Records that the shape cannot hold, such as ties among
chosen and rejected answers, are counted and named. With `convert.margins` the votes are those of a finished run, and
each pair has the margin of its blend.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from core.errors import InputError
from demo import stages
from infer.ensemble.stage import blend_stage
from votes.conversion import convert_records, read_votes, refuse_other_votes
from votes.predictions import probabilities_from_table
from votes.records import open_records
from votes.verdicts.joined import with_judges

if TYPE_CHECKING:
    from core.run import Run, StageResult


def convert(run: Run) -> list[StageResult]:
    """Write votes, or the records of the run with the margins of its blend, to convert.output."""
    if run.settings.convert.reads_blend:
        records = open_records(run)
        refuse_other_votes(run, records)
        blended = blend_stage(with_judges(run, records), records).require("blend")
        name = f"train-{blended['settings']['submission']}.parquet"
        predicted = probabilities_from_table((run.folder / "blend").read_table(name))
        return [convert_records(records, run.settings.convert, predicted)]
    synthetic = stages.make_pairs(run)
    location = (stages.pairs_folder(run) / "train.csv").uri if stages.is_synthetic(run) else run.settings.data.primary
    if location is None:
        raise InputError("no votes to convert", "data.train", "give --set data.train=FILE.")
    read, records = read_votes(run, location)
    return [*synthetic, read, convert_records(records, run.settings.convert, None)]


JOB = Job("convert", __doc__, convert, saves_settings=False, reads=("data", "convert"))

if __name__ == "__main__":
    sys.exit(main(JOB))
