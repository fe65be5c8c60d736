"""Rate the models that gave the answers, from votes, and from predictions where the run has them.

Run as: python -m ray_jobs.leaderboard --config configs/demo.yaml --set data.train=votes.csv --set run=runs/votes

It reads and validates the votes unless that is done. leaderboard/ratings.csv has each model's rating with intervals of
rating, rank and win rate. In a run with a finished blend, predictions of all pairs make the ratings more exact. Pairs
of data.test that name their models count as well, though nobody voted on them.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from leaderboard.stage import make_leaderboard
from report.leaderboard_page import render_leaderboard
from votes.records import open_records

if TYPE_CHECKING:
    from core.run import Run, StageResult


def leaderboard(run: Run) -> list[StageResult]:
    """Make records/ and leaderboard/."""
    ingest: Job = importlib.import_module("ray_jobs.ingest").JOB  # by name: jobs import no other job
    read = ingest.work(run)
    return [*read, make_leaderboard(run, open_records(run), render_leaderboard)]


JOB = Job("leaderboard", __doc__, leaderboard, reads=("seed", "data", "leaderboard"))

if __name__ == "__main__":
    sys.exit(main(JOB))
