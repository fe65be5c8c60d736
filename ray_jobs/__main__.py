"""The list of jobs, and the command line that runs one: `tiebreak JOB ...` or `python -m ray_jobs JOB ...`."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from core.cli import Job
from core.cli import main as run_job

# In the order in which a pipeline runs them. By name, so that listing them imports none.
JOBS: Final = {
    "pipeline": "run every configured job, skipping finished work",
    "ingest": "read and validate votes, and divide them into folds",
    "convert": "write votes in the shape of another tool",
    "featurize": "turn records into features",
    "tune": "search for boosters' settings with Ray Tune",
    "train_boosters": "train LightGBM, XGBoost and linear models, many folds at a time",
    "train_encoder": "fine-tune encoders on Ray Train, and predict with them",
    "train_llm": "fine-tune language models with LoRA on Ray Train",
    "train_judges": "calibrate judges' verdicts from elsewhere, and predict with them",
    "score_llm": "score records with language models through vLLM",
    "blend": "blend and calibrate the models' predictions, and write the submission",
    "leaderboard": "rate the models that gave the answers, from votes and predictions",
    "report": "score every model and blend out-of-fold, and write the report",
    "predict": "predict new pairs with a finished run",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """List the jobs, or run the one that the first argument names; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = given
    if name not in JOBS:
        near = difflib.get_close_matches(name, JOBS, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"the jobs are {', '.join(JOBS)}."
        print(f"error: no job {name!r}. Fix: {fix}", file=sys.stderr)
        return 2
    job: Job = importlib.import_module(f"ray_jobs.{name}").JOB
    return run_job(job, rest)


def usage() -> str:
    """Return the list of jobs, a line each."""
    width = max(map(len, JOBS))
    lines = ["usage: tiebreak JOB --config FILE [--set KEY=VALUE ...]", "", "jobs:"]
    lines += [f"  {name.ljust(width)}  {what}" for name, what in JOBS.items()]
    return "\n".join([*lines, "", "`tiebreak JOB --help` shows a job's options and the settings that it reads."])


if __name__ == "__main__":
    sys.exit(main())
