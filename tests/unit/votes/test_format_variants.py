"""Every format is read the same with what real exports have: odd texts, nulls, images, extra columns, other orders."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.filesystems import list_input_files
from core.settings.data import Data
from tests.helpers.commands import SHARED
from votes.recognition import recognize_file
from votes.record_reader import read_records

FILES = SHARED / "formats"
EXPECTED: dict[str, Any] = json.loads((FILES / "expected.json").read_text("utf-8")) if FILES.is_dir() else {}
SIDES = ("first", "second", "tie", "both_bad")
SYSTEM = "Answer briefly."

# Ends and line breaks as in transcripts, whose turns are stripped; a null byte cannot be in a CSV file.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1e\x1f"), max_size=30).map(
    lambda text: f"x{' '.join(text.split())}é\U0001f600"
)


def load(path: Path) -> tuple[list[Any], dict[str, Any] | None]:
    """Return the rows of a file, and the object around them."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist(), None
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()], None
    if path.suffix == ".json":
        whole = json.loads(path.read_text("utf-8"))
        return (whole, None) if isinstance(whole, list) else (whole["comparisons"], whole)
    text = path.read_text("utf-8-sig")
    return list(csv.DictReader(text.splitlines(), delimiter=next(c for c in ";\t," if c in text.splitlines()[0]))), None


class Variant:
    """One way to write a file otherwise: new texts, and where messages are, blocks, images and system turns."""

    def __init__(self, seed: int, texts: dict[str, str | None], blocks: bool, images: bool, system: bool) -> None:
        self.random, self.texts, self.blocks, self.images, self.system = (
            random.Random(seed),
            texts,
            blocks,
            images,
            system,
        )
        self.contents: set[Any] = set()
        self.image_count = self.system_count = 0

    def write(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            written = [self.write(item) for item in value]
            if self.system and written and isinstance(written[0], dict) and written[0].get("role") == "user":
                written.insert(0, {"role": "system", "content": SYSTEM})
                self.system_count += 1
            return written
        if isinstance(value, dict):
            items = [
                (key, self._content(inner) if key == "content" else self.write(inner)) for key, inner in value.items()
            ]
            self.random.shuffle(items)
            return dict(items)
        return value

    def _content(self, value: Any) -> Any:
        if isinstance(value, str):
            self.contents.add(value)
        if isinstance(value, list):  # blocks already
            return self.write(value)
        text = self.write(value)
        if not self.blocks or text is None:
            return text
        blocks: list[Any] = [{"type": "text", "text": text}]
        if self.images:
            blocks.append({"type": "image_url", "image_url": {"url": "https://example.org/1.png"}})
            self.image_count += 1
        return blocks

    def _text(self, value: str) -> Any:
        if value in self.texts:
            return self.texts[value]
        if value.startswith(('["', "[{")):
            return json.dumps(self.write(json.loads(value)))
        if "\n\nHuman:" in value:
            for old, new in self.texts.items():
                value = value.replace(old, new or "")
        return value


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file: the rows with one key are one record."""
    file = recognize_file(list_input_files(str(path), ())[0], Data(), labeled=True)
    records: dict[int, dict[str, Any]] = {}
    for part in read_records(file, 64):
        assert part.rejected.to_pylist() == []
        for row in part.records.to_pylist():
            shares = np.sum(row["shares"], axis=0)
            if row["key"] in records:
                records[row["key"]]["shares"] += shares
            else:
                records[row["key"]] = {**row, "shares": shares}
    return list(records.values())


@pytest.mark.skipif(not EXPECTED, reason="the folder of formats, ../shared/data/formats, is not beside the project")
@pytest.mark.parametrize("name", EXPECTED or ["none"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_variant_is_read_the_same(tmp_path, name, data):
    rows, whole = load(FILES / name)
    expected = EXPECTED[name]["records"]
    known = {
        text
        for record in expected
        for text in (*record["prompt"], *record["answers"]["first"], *record["answers"]["second"])
    }
    drawn = data.draw(st.lists(TEXTS, min_size=len(known), max_size=len(known), unique=True))
    texts: dict[str, str | None] = dict(zip(sorted(known), drawn, strict=True))
    emptied = data.draw(st.sampled_from([None, *[record["answers"]["first"][-1] for record in expected]]))
    probe = Variant(0, {}, *[False] * 3)
    probe.write(rows)
    if emptied is not None:
        texts[emptied] = data.draw(st.sampled_from(["", None])) if emptied in probe.contents else ""
    flags = [data.draw(st.booleans()) for _ in range(3)]
    variant = Variant(data.draw(st.integers(0, 9)), texts, *flags)
    is_table = (FILES / name).suffix in (".csv", ".tsv")
    written = [variant.write(row) for row in rows]
    extra = {"Unnamed: 0": 1, "notes": None, "prompt_tokens": 7, "meta": {"a": [1]}} if data.draw(st.booleans()) else {}
    written = [{**extra, **row} for row in written]
    path = tmp_path / f"votes{'.csv' if is_table else '.jsonl'}"
    if is_table:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(written[0]), delimiter=data.draw(st.sampled_from(";,\t")))
            writer.writeheader()
            writer.writerows(written)
    elif whole is not None:
        path = tmp_path / "votes.json"
        path.write_text(json.dumps({**whole, "comparisons": written}), "utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written), "utf-8")

    records = read(path)
    assert len(records) == len(expected)
    assert bool(sum(record["attachments"] for record in records)) == bool(variant.image_count)
    assert any(SYSTEM in record["prompt"][0] for record in records) == bool(variant.system_count)
    for record, original in zip(records, expected, strict=True):
        prompt = [texts[turn] for turn in original["prompt"]]
        first, second = ([texts[turn] for turn in original["answers"][side]] for side in ("first", "second"))
        seen = [plain(record[column]) for column in ("prompt", "response_a", "response_b")]
        order = SIDES if seen[1] == first else ("second", "first", "tie", "both_bad")
        assert seen == [prompt, *((first, second) if order == SIDES else (second, first))]
        shares = dict(zip(order, record["shares"] / record["shares"].sum(), strict=True))
        best = [side for side, share in shares.items() if share > max(shares.values()) - 1e-9]
        assert (best[0] if len(best) == 1 else None) == original["outcome"]
        if "votes" in original:
            assert {side: share for side, share in shares.items() if share} == pytest.approx(
                original["votes"], abs=0.006
            )


def plain(turns: list[Any]) -> list[Any]:
    """Return turns without the system turn and the markers of images."""
    texts = [None if turn is None else turn.removesuffix("\n[image]") for turn in turns]
    return [None if text is None else text.removeprefix(f"{SYSTEM}\n\n") for text in texts]
