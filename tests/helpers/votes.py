"""Small input files for the tests of jobs."""

import csv
from pathlib import Path

COLUMNS = [
    "id", "model_a", "model_b", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie",
]  # fmt: skip


def vote(number: int, **changes: str) -> dict[str, str]:
    """One valid row of the Kaggle schema, different for every number."""
    winner = number % 3
    row = {
        "id": str(number),
        "model_a": "m1",
        "model_b": "m2",
        "prompt": f'["question {number} about {"abcdefg"[number % 7]}"]',
        "response_a": '["' + "good answer " * (2 + number % 5 + 9 * (winner == 0)) + '"]',
        "response_b": '["' + "fine reply " * (2 + number % 4 + 9 * (winner == 1)) + '"]',
        **{name: str(int(n == winner)) for n, name in enumerate(COLUMNS[6:])},
    }
    return row | changes


def write_votes(path: Path, rows: list[dict[str, str]], columns: list[str] = COLUMNS) -> Path:
    """Write rows as CSV and return the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path
