"""Turn records into features, shard by shard: hand-made columns, n-grams, word vectors, sentence embeddings.

Run as: python -m ray_jobs.featurize --config configs/demo.yaml

Families are fitted on the training records only. The unit of resume is the shard. Each file carries the fingerprint of
its settings and records, so changing one n-gram block rebuilds only that block.

`featurize.families` names the families. A family is one file in featurize/families, or a plugin's. Numbers of your own
come from the tables in `features`. Verdicts come from those in `judges`, for the family `judges`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from core.settings.features import EXTERNAL, JUDGES
from featurize.external import make_external
from featurize.make import build_features
from votes.records import open_records
from votes.verdicts.stage import make_verdicts

if TYPE_CHECKING:
    from core.run import Run, StageResult


def featurize(run: Run) -> list[StageResult]:
    """Write every configured feature file, for every split. Join first what families need."""
    records, names = open_records(run), run.settings.featurize.names
    joined = [make_external(run, records)] if EXTERNAL in names else []
    joined += [make_verdicts(run, records)] if JUDGES in names else []
    return [*joined, *build_features(run)]


JOB = Job("featurize", __doc__, featurize, reads=("seed", "data", "featurize", "features", "judges"))

if __name__ == "__main__":
    sys.exit(main(JOB))
