"""The sections of the report: the contract of the registry, and numbers that need no job."""

import inspect

import numpy as np
import pyarrow as pa
import pytest

from core.errors import InputError
from core.registry import SECTIONS, load_plugins
from report.build import compute_metrics, sections_in_order
from report.page import render_page
from report.section import ReportSection
from report.sections.data import count_duplicates
from report.sections.drivers import check_claims
from report.sections.slices import score_slices
from tests.helpers.blend_votes import single_votes
from votes import duplicates

PLUGIN = """
from core.registry import SECTIONS
from report.section import ReportSection


@SECTIONS.register
class Answers(ReportSection):
    name, title, order, summary = "answers", "Answers & more", 65, "Counts answers."
    template = (
        "<h2>Answers</h2>"
        "{% if metrics.answers.count %}{{ number(',', 'answers', 'count') }} {{ hint }}{% endif %}"
    )

    def compute(self, context):
        return {"answers": {"count": context}}

    def details(self, context, metrics):
        return {"hint": "<answers>"}
"""


@pytest.mark.parametrize("name", SECTIONS.names())
def test_every_section_keeps_the_contract(name):
    section = SECTIONS.get(name)
    assert isinstance(section, ReportSection)
    assert section.name == name
    assert section.summary.endswith(".")
    assert "\n" not in section.summary
    assert isinstance(section.template, str)
    assert "<h2>" in section.template or not section.title
    assert "<section" not in section.template  # the page adds it, with the name as its id
    assert all(f"figures.{figure}(" in section.template for figure in section.figures)
    for draw in section.figures.values():
        assert next(iter(inspect.signature(draw).parameters)) == "metrics"


def test_sections_have_an_order_and_names_of_their_own():
    sections = [section for section in sections_in_order() if type(section).__module__.startswith("report.sections.")]
    names = [section.name for section in sections]
    assert (names[0], names[-1]) == ("summary", "run")
    assert len(set(names)) == len(names)
    titles = [section.title for section in sections]
    assert titles[0] == ""
    assert len(set(titles)) == len(titles)


@pytest.fixture
def only_plugins(monkeypatch):
    """A registry without the project's sections."""
    monkeypatch.setattr(SECTIONS, "_members", {})
    monkeypatch.setattr(SECTIONS, "_state", "loaded")


@pytest.mark.usefixtures("only_plugins")
def test_a_section_in_one_file_needs_a_template():
    load_plugins({"tiebreak_plugin_answers": PLUGIN.replace("template =", "other =")})
    with pytest.raises(InputError, match=r"answers: a report section in one file needs a template\. Fix: add"):
        _ = SECTIONS.get("answers").template


@pytest.mark.usefixtures("only_plugins")
def test_a_section_from_one_file_is_on_the_page_in_the_navigation_and_in_the_numbers():
    load_plugins({"tiebreak_plugin_answers": PLUGIN})
    metrics = compute_metrics(1234)  # type: ignore[arg-type]
    assert metrics == {"answers": {"count": 1234}}
    page = render_page(1234, metrics)  # type: ignore[arg-type]
    assert '<a href="#answers">Answers &amp; more</a>' in page
    assert '<section id="answers">\n<h2>Answers</h2>' in page
    assert '<span data-key="/answers/count" data-form=",">1,234</span> &lt;answers&gt;' in page


@pytest.mark.usefixtures("only_plugins")
def test_a_section_with_nothing_to_show_is_not_in_the_navigation():
    load_plugins({"tiebreak_plugin_quiet": PLUGIN.replace("<h2>Answers</h2>", "")})
    assert "answers" not in render_page(0, compute_metrics(0))  # type: ignore[arg-type]


@pytest.mark.usefixtures("only_plugins")
def test_two_sections_with_the_same_key_are_refused():
    load_plugins({"tiebreak_plugin_one": PLUGIN, "tiebreak_plugin_two": PLUGIN.replace('"answers", "A', '"twice", "A')})
    with pytest.raises(InputError, match="'answers' and 'twice' both write 'answers'"):
        compute_metrics(1)  # type: ignore[arg-type]


def importance_of(**shares):
    return {"families": [{"family": name, "shap_share": share} for name, share in shares.items()]}


def test_claims_are_judged_by_boosters_that_see_them_all():
    seeing = importance_of(length=0.5, words=0.2, vocabulary=0.19, style=0.06, entities=0.04, tone=0.01)
    judged = check_claims({"all": seeing, "few": importance_of(words=1.0)})
    assert judged is not None
    assert judged["first"] == "length"
    assert judged["families"] == 6
    assert [(each["family"], each["rank"], each["confirmed"]) for each in judged["claims"]] == [
        ("length", 1, True), ("vocabulary", 3, True), ("entities", 5, False),
    ]  # fmt: skip
    equal = importance_of(length=0.16, vocabulary=0.16, entities=0.16, style=0.16, tone=0.16, words=0.2)
    even = check_claims({"all": equal})
    assert even is not None
    assert not any(each["confirmed"] for each in even["claims"])
    assert check_claims({"few": importance_of(length=0.6, entities=0.4)}) is None
    assert check_claims({"only": importance_of(length=0.5, vocabulary=0.3, entities=0.2)}) is None
    assert check_claims({}) is None


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
    rows = pa.table({"model_a": names, "model_b": [None] * count, "language": pa.nulls(count, pa.string())})
    labels, numbers = rng.integers(0, 3, count).astype(np.int8), np.arange(count)
    votes = single_votes(labels, np.zeros(count, np.int16), numbers)
    by_slice = {(each["by"], each["slice"]): each for each in score_slices(records, rows, losses, votes, seed=1)}
    two = by_slice["turns", "two"]
    assert np.isclose(two["oof_log_loss"], 1.5, atol=0.01)
    assert np.isclose(two["difference"], two["oof_log_loss"] - losses.mean())
    assert two["difference_ci95"][0] > 0.3
    assert by_slice["language", "English"]["difference"] == 0
    assert ("language", "other or none") not in by_slice  # there is none
    assert ("turns", "three or more") not in by_slice
    assert by_slice["model", "m"]["rows"] == 100
    # A slice of 19 prompts is left out, however often each was asked.
    few = single_votes(labels, np.zeros(count, np.int16), numbers % 19)
    assert score_slices(records, rows, losses, few, seed=1) == []
    # The file's own languages come before a guess.
    named = rows.set_column(2, "language", pa.array([["Polish", "Thai"][n % 2] for n in numbers]))
    languages = {
        part["slice"] for part in score_slices(records, named, losses, votes, seed=1) if part["by"] == "language"
    }
    assert languages == {"Polish", "Thai"}


def test_the_score_without_duplicates_leaves_out_the_copies():
    texts = [[f"question {n} of them all"] for n in range(5)]
    near = [np.stack([duplicates.minhash_signature([text, ["yes"], ["no"]])]) for text in texts]
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
    votes = single_votes(np.zeros(6, np.int8), folds, np.arange(6))
    counts = count_duplicates({"train": table(0, 6), "test": table(6, 8)}, losses, votes, seed=0)
    assert counts["exact"] == {"train": 2, "test_in_train": 0}
    assert counts["near"] == {"train": 4, "clusters": 2, "across_folds": 2, "test_in_train": 1}
    one, apart = counts["without"]
    assert (one["rows"], one["oof_log_loss"]) == (4, 1.0)
    assert (apart["rows"], apart["oof_log_loss"]) == (4, 1.75)
    assert np.isclose(one["difference"], 1.0 - losses.mean())
    two = single_votes(np.zeros(2, np.int8), folds[2:4], np.arange(2))
    alike = count_duplicates({"train": table(2, 4), "test": table(6, 8)}, losses[2:4], two, seed=0)
    assert [subset["kept"] for subset in alike["without"]] == ["one record of each cluster"]
