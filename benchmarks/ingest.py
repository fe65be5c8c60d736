"""Compare the ingest of Chatbot Arena's shape with that of the Kaggle shape: time per row, and peak memory by rows.

Run as: python -m benchmarks.ingest --rows 250000 1000000

Both files hold the same made-up conversations of one to three rounds, the arena's as Parquet with content blocks, the
other as CSV. Memory is the peak over all processes of the job. It must not grow as the rows do.
"""

import argparse
import csv
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.featurize import ROOT
from benchmarks.process_tree import Measured, measure

LIMIT = 1.3  # times the Kaggle shape's time per row
ROWS_AT_ONCE = 20_000
WORDS = [f"word{n}" for n in range(4000)]
WINNERS = ("model_a", "model_b", "tie", "both_bad")
MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))),
            ("num_tokens", pa.float64()),
        ]
    )
)
ARENA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "model_a", "model_b", "winner", "evaluation_session_id")),
        ("evaluation_order", pa.int64()),
        ("conversation_a", MESSAGES),
        ("conversation_b", MESSAGES),
        ("language", pa.string()),
        ("timestamp", pa.string()),
    ]
)


def main() -> None:
    """Measure both shapes at each size and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    options = parser.parse_args()
    measured: dict[tuple[str, int], Measured] = {}
    for rows in options.rows:
        for shape, write in (("kaggle", _write_kaggle), ("arena", _write_arena)):
            with tempfile.TemporaryDirectory() as name:
                votes = write(Path(name), rows)
                line = [sys.executable, "-m", "ray_jobs.ingest", "--config", str(ROOT / "configs/demo.yaml")]
                line += ["--set", f"run={name}/run", "--set", f"data.train={votes}"]
                measured[shape, rows] = result = measure(line)
            print(
                f"{shape:<7} {rows:>9,} rows  {result.seconds:7.1f} s  {1e6 * result.seconds / rows:6.1f} us a row  "
                f"peak {result.peak_bytes / 2**20:,.0f} MiB",
                flush=True,
            )
    few, many = min(options.rows), max(options.rows)
    ratio = measured["arena", many].seconds / measured["kaggle", many].seconds
    print(f"arena / kaggle, time per row: {ratio:.2f}, {'at most' if ratio <= LIMIT else 'MORE THAN'} {LIMIT}")
    for shape in ("kaggle", "arena"):
        growth = (measured[shape, many].peak_bytes - measured[shape, few].peak_bytes) / max(many - few, 1)
        peaks = measured[shape, many].peak_bytes / measured[shape, few].peak_bytes
        print(f"{shape}: peak memory {peaks:.2f} times at {many / few:.0f} times the rows: {growth:.0f} bytes a row")


def _conversations(rows: int) -> Iterator[tuple[int, list[tuple[str, str, str]], random.Random]]:
    """Yield a number, rounds of (prompt, answer A, answer B), and the source of chance."""
    chance = random.Random(0)
    for number in range(rows):
        rounds = [
            (f"{number}: {_text(chance, 15)}", _text(chance, 40), _text(chance, 40))
            for _ in range(chance.choice((1, 1, 1, 2, 3)))
        ]
        yield number, rounds, chance


def _text(chance: random.Random, most: int) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(5, most)))


def _write_kaggle(folder: Path, rows: int) -> Path:
    path = folder / "votes.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        names = ["id", "model_a", "model_b", "prompt", "response_a", "response_b"]
        writer.writerow([*names, "winner_model_a", "winner_model_b", "winner_tie"])
        for number, rounds, chance in _conversations(rows):
            winner = WINNERS.index(chance.choice(WINNERS))
            texts = (json.dumps(turns) for turns in zip(*rounds, strict=True))
            votes = [int(winner == n or (n == 2 and winner == 3)) for n in range(3)]
            writer.writerow([number, f"model-{number % 50}", f"model-{number % 49}", *texts, *votes])
    return path


def _write_arena(folder: Path, rows: int) -> Path:
    path = folder / "votes.parquet"
    part: list[dict[str, object]] = []
    with pq.ParquetWriter(path, ARENA) as writer:
        for number, rounds, chance in _conversations(rows):
            winner = chance.choice(WINNERS)
            sides = [
                [
                    {"role": role, "content": [{"type": "text", "text": text}], "num_tokens": None}
                    for turn in rounds
                    for role, text in (("user", turn[0]), ("assistant", turn[answer]))
                ]
                for answer in (1, 2)
            ]
            part.append(
                {
                    **{"id": f"{number:032x}", "model_a": f"model-{number % 50}", "model_b": f"model-{number % 49}"},
                    **{"winner": winner, "evaluation_session_id": f"s{number // 3}", "evaluation_order": 1},
                    **{"conversation_a": sides[0], "conversation_b": sides[1]},
                    **{"language": "en", "timestamp": "2025-07-01T00:00:00"},
                }
            )
            if len(part) == ROWS_AT_ONCE or number + 1 == rows:
                writer.write_table(pa.Table.from_pylist(part, ARENA))
                part.clear()
    return path


if __name__ == "__main__":
    main()
