"""Compare the predictions of two commits: run the same configurations at both, print the largest differences.

Run as: python -m benchmarks.same_predictions --before accccce --votes votes.csv --work build/same
(about an hour on 2 cores for both sides; a finished run under --work is not repeated)

Each side is a checkout of its own, run with this environment's Python. The votes are split: the first rows train, the
next 100 are scored. Boosters and the blend of boosters must agree to the byte, language models within 1e-5.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
TEST_ROWS = 100
# Configuration, rows to train on (None: the configuration's own data).
CASES = {"demo": None, "demo-votes": 900, "best": 900, "seed": 300}
LANGUAGE_MODELS = {"gemma", "llama"}
CLOSE = 1e-5


def main() -> None:
    """Run the unfinished configurations on both sides, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="accccce", help="commit to compare with")
    parser.add_argument("--votes", required=True, help="labeled pairs in the Kaggle schema")
    parser.add_argument("--work", type=Path, default=ROOT / "build/same")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--only", choices=("before", "after"), help="run one side, compare nothing")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sides = [options.only] if options.only else ["before", "after"]
    for side in sides:
        checkout = _checkout(options.before, work) if side == "before" else ROOT
        for case in options.cases:
            _run(case, checkout, work / side / case, Path(options.votes))
    if options.only is None:
        differing = [case for case in options.cases if not _compare(case, work)]
        print("all predictions agree" if not differing else f"DIFFER: {', '.join(differing)}")
        sys.exit(bool(differing))


def _checkout(commit: str, work: Path) -> Path:
    folder = work / f"checkout-{commit}"
    if not folder.exists():
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder)], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=folder, check=True)
    return folder


def _run(case: str, checkout: Path, run: Path, votes: Path) -> None:
    if (run / "blend/manifest.json").exists():
        return
    rows = CASES[case]
    line = [sys.executable, "-m", "ray_jobs.pipeline", "--config", f"configs/{case.removesuffix('-votes')}.yaml"]
    line += ["--set", f"run={run}"]
    if rows is not None:
        table = pd.read_csv(votes, dtype=str, keep_default_na=False)
        run.parent.mkdir(parents=True, exist_ok=True)
        train, test = (run.parent / f"{case}-{part}.csv" for part in ("train", "test"))
        table[:rows].to_csv(train, index=False)
        table[rows : rows + TEST_ROWS].to_csv(test, index=False)
        line += ["--set", f"data.train={train}", "--set", f"data.test={test}"]
    print(f"{run}: running", flush=True)
    # PYTHONPATH comes before the installed project, in Ray's workers too.
    subprocess.run(line, check=True, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)})


def _compare(case: str, work: Path) -> bool:
    """Print the largest difference for each table of predictions; return whether all are within their limits."""
    tables = sorted(
        path.relative_to(work / "before" / case)
        for pattern in ("models/*/*.parquet", "predictions/*/*.parquet", "blend/*.parquet", "blend/submission.csv")
        for path in (work / "before" / case).glob(pattern)
    )
    agree = bool(tables)
    has_language_models = case.startswith("demo")
    for table in tables:
        before = _numbers(work / "before" / case / table).rename(columns=_new_name)
        after = _numbers(work / "after" / case / _new_name(str(table)))
        language = has_language_models and (table.parts[0] == "blend" or LANGUAGE_MODELS & set(table.parts))
        limit = CLOSE if language else 0.0
        if before.shape != after.shape or list(before.columns) != list(after.columns):
            print(f"{case}/{table}: {before.shape} before, {after.shape} after")
            agree = False
            continue
        difference = float(np.nanmax(np.abs(before.to_numpy() - after.to_numpy()), initial=0.0))
        print(f"{case}/{table}: {len(before)} rows, largest difference {difference:g}")
        agree &= difference <= limit
    return agree


def _new_name(name: str) -> str:
    """Return the current name of a file or column of accccce."""
    return name.replace("learnt", "learned")


def _numbers(path: Path) -> pd.DataFrame:
    """Return the probabilities of a table, sorted by id."""
    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    table = table.sort_values("id") if "id" in table else table
    return table.select_dtypes("number").reset_index(drop=True)


if __name__ == "__main__":
    main()
