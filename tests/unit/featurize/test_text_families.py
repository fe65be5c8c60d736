import numpy as np
import pytest
from hypothesis import given, settings

from core.registry import FAMILIES
from core.settings.features import FamilyEntry, default_families
from featurize.blocks import swap_columns
from featurize.families import tone
from featurize.families.length import LengthFamily
from featurize.family import TextFamily
from featurize.text import DistinctTexts
from tests.helpers.swap import swap_records
from tests.helpers.tables import ROWS, real_records, records

HANDMADE = [
    (family, entry) for entry in default_families() if isinstance(family := FAMILIES.get(entry.family), TextFamily)
]
COLUMNS = [column for family, entry in HANDMADE for column in family.columns(entry)]


def featurize(table):
    distinct = DistinctTexts.of(table)
    return np.concatenate([family.matrix(distinct, entry) for family, entry in HANDMADE], axis=1)


def value(row, name):
    return featurize(records(row))[0, [column.name for column in COLUMNS].index(name)]


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_any_text_gives_finite_numbers_and_swapping_is_permutation_and_sign(rows):
    table = records(*rows)
    features = featurize(table)
    assert features.shape == (len(rows), len(COLUMNS))
    assert np.isfinite(features).all()
    permutation, signs = swap_columns(COLUMNS)
    assert (features[:, permutation] * signs == featurize(swap_records(table))).all()
    assert (features[:, permutation][:, permutation] * signs * signs[permutation] == features).all()


def test_every_column_is_described_and_named_once():
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert all(column.unit and column.description for column in COLUMNS)


ANSWER = "# Title one. Two!\n- a\n* b\n```\n# no\n- no\n```\nno"
ENTITIES = "In May 2021 Ada Lovelace paid $5.50 for 3 books, see https://x.org or a@b.co; NASA said 12% (run_it)."
ASKED = "What is the capital of France, please?"
POLITE = "I'm sorry, but I cannot help. Perhaps you might ask me later, for example tomorrow. Let me know!"


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("length_words_a", (["Q?"], [ANSWER], [None]), 8),
        ("length_sentences_a", (["Q?"], [ANSWER], [None]), 2),
        ("length_tokens_a", (["Q?"], ["A recommendation: 42"], ["b"]), 1 + 3 + 1 + 2),
        ("length_paragraphs_a", (["Q?"], ["one\n\n\n\ntwo\n \nthree\n"], ["b"]), 3),
        ("length_words_b", (["Q?"], [ANSWER], [None]), 0),
        ("length_empty_b", (["Q?"], [ANSWER], [None]), 1),
        ("length_null_turns_b", (["Q?"], [ANSWER], [None]), 1),
        ("length_turns_prompt", (["Why `x`?", "How?"], ["a"], ["b"]), 2),
        ("length_last_turn_words_prompt", (["one two three", "four five"], ["a"], ["b"]), 2),
        ("length_words_difference", (["Q?"], [ANSWER], [None]), 8),
        ("length_words_ratio", (["Q?"], [ANSWER], [None]), 8 / 9),
        ("vocabulary_distinct_a", (["Q?"], [ANSWER], [None]), 6),
        ("vocabulary_type_token_ratio_a", (["Q?"], [ANSWER], [None]), 6 / 8),
        ("vocabulary_hapax_share_a", (["Q?"], [ANSWER], [None]), 5 / 6),
        ("vocabulary_lix_a", (["Q?"], ["Reading difficulty varies."], ["b"]), 3 + 100 * 2 / 3),
        # Four words of one syllable in one sentence, by Flesch's formula.
        ("vocabulary_flesch_a", (["Q?"], ["The cat sat down."], ["b"]), 206.835 - 1.015 * 4 - 84.6),
        ("entities_names_a", (["Q?"], [ENTITIES], ["b"]), 2),
        ("entities_acronyms_a", (["Q?"], [ENTITIES], ["b"]), 1),
        ("entities_dates_a", (["Q?"], ["on 2024-05-31 and May 31"], ["b"]), 2),
        ("entities_years_a", (["Q?"], [ENTITIES], ["b"]), 1),
        ("entities_money_a", (["Q?"], [ENTITIES], ["b"]), 1),
        ("entities_percentages_a", (["Q?"], [ENTITIES], ["b"]), 1),
        ("entities_urls_a", (["Q?"], [ENTITIES], ["b"]), 1),
        ("entities_emails_a", (["Q?"], [ENTITIES], ["b"]), 1),
        ("entities_identifiers_a", (["Q?"], [ENTITIES], ["b"]), 1),
        ("style_headers_a", (["Q?"], [ANSWER], [None]), 1),
        ("style_bullets_a", (["Q?"], [ANSWER], [None]), 2),
        ("style_code_blocks_a", (["Q?"], [ANSWER], [None]), 1),
        ("style_inline_code_prompt", (["Why `x`?", "How?"], ["a"], ["b"]), 1),
        ("style_questions_prompt", (["Why `x`?", "How?"], ["a"], ["b"]), 2),
        ("style_latex_a", (["Q?"], [r"so $$x$$ and \(y\)"], ["b"]), 2),
        ("style_emoji_a", (["Q?"], ["fine 🙂🎉"], ["b"]), 2),
        ("style_links_a", (["Q?"], ["see [this](http://x)"], ["b"]), 1),
        ("tone_refusals_a", (["Q?"], [POLITE], ["b"]), 1),
        ("tone_apologies_a", (["Q?"], [POLITE], ["b"]), 1),
        ("tone_opening_refusal_a", (["Q?"], [POLITE], ["b"]), 1),
        ("tone_hedges_a", (["Q?"], [POLITE], ["b"]), 2),
        ("tone_closing_offer_a", (["Q?"], [POLITE], ["b"]), 1),
        ("tone_examples_a", (["Q?"], [POLITE], ["b"]), 1),
        ("language_english_a", (["Q?"], ["This is a plain English sentence."], ["b"]), 1),
        ("language_other_language_a", ([ASKED], ["Столица Франции — город Париж."], ["b"]), 1),
        ("language_other_script_a", ([ASKED], ["Столица Франции — Париж."], ["b"]), 1),
        ("language_han_a", (["Q?"], ["你好 ab"], ["b"]), 0.5),
        ("overlap_prompt_words_kept_a", (["red blue"], ["blue sky"], ["b"]), 0.5),
        ("overlap_words_from_prompt_a", (["red blue"], ["blue sky sky"], ["b"]), 0.5),
        ("overlap_prompt_lcs_a", (["a b c d"], ["a x c d"], ["b"]), 0.75),
        ("overlap_repeated_bigrams_a", (["q"], ["go on go on go"], ["b"]), 0.5),
        ("overlap_jaccard_pair", (["q"], ["red blue"], ["blue sky"]), 1 / 3),
        ("overlap_lcs_pair", (["q"], ["a b c d"], ["b d"]), 0.5),
        ("overlap_identical_pair", (["q"], ["same"], ["same"]), 1),
        ("overlap_one_empty_pair", (["q"], ["same"], [" "]), 1),
        ("overlap_both_empty_pair", (["q"], [None], [""]), 1),
    ],
)  # fmt: skip
def test_counts(name, row, expected):
    assert np.isclose(value(row, name), expected)


def test_sentiment_has_the_right_sign():
    row = (["q"], ["This is a wonderful, excellent idea."], ["This is a terrible, awful idea."])
    assert value(row, "tone_polarity_a") > 0.5 > -0.5 > value(row, "tone_polarity_b")


def test_sentiment_is_textblobs_of_all_words():
    """Words that it does not know are mostly left out; that must change nothing."""
    from textblob import en

    texts = [text.prose[: tone._SCORED_CHARS] for text in DistinctTexts.of(real_records(100)).texts]
    for text in texts:
        words = tone._SENTIMENT_WORD.findall(text.lower().replace("’", "'").replace("n't", " n't"))
        assert tone._sentiment(text) == pytest.approx(tuple(en.sentiment(words)) if words else (0, 0), abs=1e-12)


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "\n",
            ".",
            ". ",
            " ",
            "\n ",
            "1",
            "1,",
            "- ",
            "**",
            "`",
            "```",
            "| ",
            "#",
            "\t|",
            "__",
            "？",
            "a_",
            "A",
            "Aa ",
        ),
        *("/", "a/", '"', "“", "[](", "May ", "\\(", "1. ", "@", "http://", "I can", "\0"),
    ],
)
@pytest.mark.timeout(20)
def test_long_runs_take_linear_time(piece):
    """A pattern that is quadratic in one of these would take hours; the limit is generous."""
    assert np.isfinite(featurize(records((["q"], ["x" + piece * 300_000 + "x"], ["b"])))).all()


def test_a_large_text_is_analysed():
    assert value((["q"], ["word " * 1_000_000], ["b"]), "length_words_a") == 1_000_000


def test_a_repeated_text_is_described_once(monkeypatch):
    seen = []

    def describe(self, text):
        seen.append(text.full)
        return [0.0] * len(self.text_features)

    monkeypatch.setattr(LengthFamily, "describe", describe)
    table = records((["q"], ["x"], ["y"]), (["q"], ["y"], ["x"]))
    LengthFamily().matrix(DistinctTexts.of(table), FamilyEntry(family="length"))
    assert sorted(seen) == ["q", "x", "y"]
