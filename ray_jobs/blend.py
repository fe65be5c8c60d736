"""Blend the models' predictions, calibrate the blend, guard degenerate answers, and write the submission.

Run as: python -m ray_jobs.blend --config configs/demo.yaml

Every blend is made: weights learnt for a weighted mean (linear), a weighted geometric mean (log) and the better of the
two (learnt), greedy ensemble selection (greedy), equal weights, and the published weights (preset). They are scored by
nested folds: whatever is learnt for a record's blend has not seen its vote.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from infer.ensemble.stage import make_blend

if TYPE_CHECKING:
    from core.run import Run, StageResult


def blend(run: Run) -> list[StageResult]:
    """Make blend/: weights, analysis, the blends' predictions, and a submission if there are test records."""
    return make_blend(run)


JOB = Job("blend", __doc__, blend, reads=("seed", "data", "blend"))

if __name__ == "__main__":
    sys.exit(main(JOB))
