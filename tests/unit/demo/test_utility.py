import numpy as np
import pytest

from demo.utility import overlap, read_traits, utility, vote_probabilities, words


def test_probabilities_are_davidsons() -> None:
    utilities_a, utilities_b = np.array([0.7, -3.0, 800.0]), np.array([-0.4, 2.0, -800.0])
    probabilities = vote_probabilities(utilities_a, utilities_b, np.array([0.25, 1.0, 0.0]))
    nu = np.exp(0.05 + 0.8 * np.array([0.25, 1.0]))
    worth_a, worth_b = np.exp(utilities_a[:2]), np.exp(utilities_b[:2])
    tie = nu * np.sqrt(worth_a * worth_b)
    expected = np.stack([worth_a, worth_b, tie], axis=1) / (worth_a + worth_b + tie)[:, None]
    assert probabilities[:2] == pytest.approx(expected)
    assert probabilities[2] == pytest.approx([1.0, 0.0, 0.0])


PROMPT = ["Write a function that sorts a calendar"]
PLAIN = "The harbour follows a gentle pattern. Wind moves every sail, and boats return late."


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (PLAIN + " Nothing else repeats.", PLAIN),
        (PLAIN.replace(". ", ".\n- "), PLAIN.replace(". ", ".\n  ")),
        (PLAIN.replace(". ", ".\n# "), PLAIN.replace(". ", ".\n  ")),
        (f"```\n{PLAIN}\n```", f"'''\n{PLAIN}\n'''"),
        (PLAIN, PLAIN.replace("gentle", "sorry")),
        (PLAIN, PLAIN.replace("gentle", "maybe")),
        (PLAIN.replace("pattern", "example"), PLAIN),
        (PLAIN.replace("pattern", "calendar"), PLAIN.replace("pattern", "cylinder")),
        (PLAIN, PLAIN.replace("sail", "wind")),
        ("?", ""),
    ],
    ids=["length", "list", "header", "code", "refusal", "hedge", "helpful", "relevance", "richness", "empty"],
)
def test_each_effect_has_its_direction(better: str, worse: str) -> None:
    assert utility(read_traits(PROMPT, [better])) > utility(read_traits(PROMPT, [worse]))


def test_a_code_block_counts_only_where_code_is_asked_for() -> None:
    with_code, without = ["```\nsail\n```"], ["'''\nsail\n'''"]
    assert utility(read_traits(["Tell me about boats"], with_code)) == utility(
        read_traits(["Tell me about boats"], without)
    )


def test_words_of_every_script() -> None:
    assert words("Où est Größe? Привет, мир! गर्मी में 天气好 مرحبا 2nd") == [
        *("où", "est", "größe", "привет", "мир", "गर्मी", "में", "天", "气", "好", "مرحبا", "2nd")
    ]


def test_null_turns_read_as_empty_and_two_empty_answers_are_alike() -> None:
    null, empty = read_traits([None], [None]), read_traits([""], [""])
    assert null == empty
    assert overlap(null.vocabulary, empty.vocabulary) == 1.0
