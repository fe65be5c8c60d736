"""Numbers on the page, marked with their place in metrics.json."""

import re

from report.numbers import json_pointer, marked_interval, marked_names, marked_number, replace_invalid_characters
from tests.helpers.page import read_page, value_at


def test_numbers_are_marked_with_where_they_stand():
    metrics = {"a/b": {"~": [1234.5, -0.25, None]}}
    shown = [marked_number(metrics, ",.1f", "a/b", "~", 0), marked_interval(metrics, "+.2f", ["a/b"], "~")]
    page = read_page(f"<p>{shown[0]} {shown[1]}</p>")
    assert [number.text for number in page.numbers] == ["1,234.5", "+1234.50", "−0.25"]
    assert [value_at(metrics, number.key) for number in page.numbers] == [1234.5, 1234.5, -0.25]
    assert marked_number(metrics, ".2f", "a/b", "~", 2) == "–"
    assert json_pointer("x", 0, "a/b~") == "/x/0/a~1b~0"


def test_clean_replaces_what_html_cannot_hold():
    assert replace_invalid_characters("a\ud800b\x00c\x1b\td\ne\u202e") == "a\ufffdb\ufffdc\ufffd\td\ne\u202e"


def test_names_are_listed_in_words():
    assert marked_names([]) == ""
    texts = re.findall(r">([^<]*)<", str(marked_names(["a", "<b>", "c"])))
    assert texts == ["a", ", ", "&lt;b&gt;", " and ", "c"]
    assert marked_names(["a"]) == "<bdi data-text>a</bdi>"
