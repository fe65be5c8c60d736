"""The report's parts that need no job: figures, marked numbers, columns, what drives the boosters."""

import numpy as np
import pyarrow as pa
import pytest
from markupsafe import Markup

from core.storage import Folder
from report.columns import describe
from report.numbers import clean, interval, number, pointer
from report.sections.boosters import drivers
from report.sections.data import data
from report.sections.slices import slices
from report.svg import Axis, Mark, Plot, Row, columns, path, rows, spanning
from tests.helpers.page import read_page, value_at
from votes import duplicates
from votes.records import Records
from votes.schema import TEXTS


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (Axis(0.983, 1.099, ""), ["1.00", "1.05"]),
        (Axis(-0.02, 0.011, ""), ["−0.02", "−0.01", "0.00", "0.01"]),
        (Axis(0, 187.4, ""), ["0", "50", "100", "150"]),
        (Axis(0, 1, "", percent=True), ["0%", "20%", "40%", "60%", "80%", "100%"]),
        (Axis(0.05, 0.051, "", percent=True), ["5.00%", "5.02%", "5.04%", "5.06%", "5.08%", "5.10%"]),
        (Axis(0, 1e6, ""), ["0", "200,000", "400,000", "600,000", "800,000", "1,000,000"]),
    ],
)
def test_ticks_are_round_and_lie_on_the_axis(axis, texts):
    ticks = axis.ticks()
    assert [text for _, text in ticks] == texts
    assert all(axis.low - 1e-9 <= value <= axis.high + 1e-9 for value, _ in ticks)


def test_axes_hold_all_values_even_if_they_are_one():
    axis = spanning([0.13, 0.78], "", whole_steps=True)
    assert (axis.low, axis.high) == pytest.approx((0, 0.8))
    same = spanning([1.0986, 1.0986], "")
    assert same.low < 1.0986 < same.high
    assert len(same.ticks()) >= 1


def test_marks_lie_where_the_axes_say():
    plot = Plot(Axis(0, 10, ""), Axis(0, 1, ""), top=0, bottom=100, left=50)
    right = plot.at(10, 0)[0]
    assert plot.at(0, 0) == (50, 100)
    assert plot.at(5, 1) == ((50 + right) / 2, 0)
    assert f'points="50,100 {right:g},0"' in path(plot, "model", [(0, 0), (10, 1)])
    bar = columns(plot, "model", [0, 10], [0.25])
    assert 'y="75"' in bar
    assert 'height="25"' in bar


def test_names_in_figures_are_text_and_long_ones_are_cut():
    drawn = rows(
        "key", "<title>", Markup("told"), [Row("<script>" + "x" * 100, [Mark("model", (0, 1), 0.5)])], Axis(0, 1, "x")
    )
    page = read_page(drawn)
    assert "script" not in page.tags
    assert page.labels == {"key-title": "<title>", "key-text": "told"}
    assert "x" * 100 not in drawn
    assert "x…" in drawn


def test_numbers_are_marked_with_where_they_stand():
    metrics = {"a/b": {"~": [1234.5, -0.25, None]}}
    shown = [number(metrics, ",.1f", "a/b", "~", 0), interval(metrics, "+.2f", ["a/b"], "~")]
    page = read_page(f"<p>{shown[0]} {shown[1]}</p>")
    assert [each.text for each in page.numbers] == ["1,234.5", "+1234.50", "−0.25"]
    assert [value_at(metrics, each.key) for each in page.numbers] == [1234.5, 1234.5, -0.25]
    assert number(metrics, ".2f", "a/b", "~", 2) == "–"
    assert pointer("x", 0, "a/b~") == "/x/0/a~1b~0"


def test_clean_replaces_what_html_cannot_hold():
    assert clean("a\ud800b\x00c\x1b\td\ne\u202e") == "a\ufffdb\ufffdc\ufffd\td\ne\u202e"


def test_columns_of_records():
    code = "Look:\n```py\n# no header\n- no item\n```"
    marked = "# Head\n\n- one\n- two\n1. three\n\n**bold** and **more**"
    texts = [
        {"prompt": ["How do I sort a list in Python?"], "response_a": [code], "response_b": [marked]},
        {"prompt": ["Wie spät ist es gerade in Berlin?", "Und in Hamburg?"], "response_a": [None], "response_b": [""]},
    ]
    found = describe(pa.Table.from_pylist(texts, pa.schema([(part, pa.list_(pa.string())) for part in TEXTS])))
    assert found["turns"].tolist() == [1, 2]
    assert found["english"].tolist() == [True, False]
    assert found["code"].tolist() == [True, False]
    assert found["chars_a"].tolist() == [len(code), 0]
    assert [found[f"{name}_b"][0] for name in ("headers", "lists", "bold")] == [1, 3, 2]
    assert [found[f"{name}_a"][0] for name in ("headers", "lists", "bold")] == [0, 0, 0]  # code is no markup
    assert found["length_b"].tolist()[0] > 10
    assert found["length_a"].tolist()[1] == 0


def families(**shares):
    return {"families": [{"family": name, "shap_share": share} for name, share in shares.items()]}


def test_claims_are_judged_by_boosters_that_see_them_all():
    seeing = families(length=0.5, words=0.2, vocabulary=0.19, style=0.06, entities=0.04, tone=0.01)
    found = drivers({"all": seeing, "few": families(words=1.0)})
    assert found is not None
    assert found["first"] == "length"
    assert found["families"] == 6
    assert [(each["family"], each["rank"], each["confirmed"]) for each in found["claims"]] == [
        ("length", 1, True), ("vocabulary", 3, True), ("entities", 5, False),
    ]  # fmt: skip
    equal = families(length=0.16, vocabulary=0.16, entities=0.16, style=0.16, tone=0.16, words=0.2)
    even = drivers({"all": equal})
    assert even is not None
    assert not any(each["confirmed"] for each in even["claims"])
    assert drivers({"few": families(length=0.6, entities=0.4)}) is None
    assert drivers({"only": families(length=0.5, vocabulary=0.3, entities=0.2)}) is None
    assert drivers({}) is None


def test_slices_are_set_against_all_records():
    count = 200
    rng = np.random.default_rng(0)
    turns = rng.integers(1, 3, count)
    losses = np.where(turns == 2, 1.5, 0.5) + 0.01 * rng.normal(size=count)
    records = pa.table(
        {
            "turns": turns,
            "english": np.ones(count, bool),
            "code": rng.random(count) < 0.5,
            "chars_a": rng.integers(1, 900, count),
            "chars_b": rng.integers(1, 900, count),
        }
    )
    names = [None if n % 2 else "m" for n in range(count)]
    votes = pa.table({"label": rng.integers(0, 3, count), "model_a": names, "model_b": [None] * count})
    found = {(each["by"], each["slice"]): each for each in slices(records, votes, losses, np.arange(count), seed=1)}
    two = found["turns", "two"]
    assert np.isclose(two["oof_log_loss"], 1.5, atol=0.01)
    assert np.isclose(two["difference"], two["oof_log_loss"] - losses.mean())
    assert two["difference_ci95"][0] > 0.3
    assert found["language", "English"]["difference"] == 0
    assert ("language", "other or none") not in found  # nobody asked so
    assert ("turns", "three or more") not in found
    assert found["model", "m"]["rows"] == 100
    # Of 19 prompts, each asked often, nothing is said.
    assert slices(records, votes, losses, np.arange(count) % 19, seed=1) == []


RECORDS = Records(Folder("/nowhere"), {"rows": {"train": 6, "test": 2, "quarantine": 0}, "metrics": {"quarantine": {}}})


def test_the_score_without_duplicates_leaves_out_the_copies():
    texts = [[f"question {n} of them all"] for n in range(5)]
    near = [np.stack([duplicates.signature([text, ["yes"], ["no"]])]) for text in texts]
    signatures = np.concatenate([near[n] for n in (0, 1, 2, 2, 3, 3, 3, 4)])
    hashes = np.array([0, 1, 2, 2, 3, 30, 31, 4])

    def table(start, end):
        flat = pa.array(signatures[start:end].ravel())
        return pa.table(
            {
                "text_hash": hashes[start:end],
                "signature": pa.FixedSizeListArray.from_arrays(flat, duplicates.PERMUTATIONS),
            }
        )

    losses = np.array([1.0, 1.0, 1.0, 3.0, 1.0, 4.0])
    folds = np.array([0, 1, 0, 1, 2, 2], np.int16)
    found = data(RECORDS, {"train": table(0, 6), "test": table(6, 8)}, losses, folds, np.arange(6), seed=0)
    found = found["duplicates"]
    assert found["exact"] == {"train": 2, "test_in_train": 0}
    assert found["near"] == {"train": 4, "clusters": 2, "across_folds": 2, "test_in_train": 1}
    one, apart = found["without"]
    assert (one["rows"], one["oof_log_loss"]) == (4, 1.0)
    assert (apart["rows"], apart["oof_log_loss"]) == (4, 1.75)
    assert np.isclose(one["difference"], 1.0 - losses.mean())
    alike = data(RECORDS, {"train": table(2, 4), "test": table(6, 8)}, losses[2:4], folds[2:4], np.arange(2), seed=0)
    assert [each["kept"] for each in alike["duplicates"]["without"]] == ["one of each cluster"]
