"""Describe answers by the features of the arena's style control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from featurize.families.length import LengthFamily
from featurize.families.style import StyleFamily

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurize.text import Text

STYLE_FEATURES: Final = ("length", "headers", "lists", "bold")  # of an answer: tokens, and marks outside code blocks
_LENGTH = {feature.name: n for n, feature in enumerate(LengthFamily.text_features)}
_STYLE = {feature.name: n for n, feature in enumerate(StyleFamily.text_features)}


def arena_style(text: Text) -> Sequence[float]:
    """Return the four style features of a text, in the order of STYLE_FEATURES."""
    marks = StyleFamily().describe(text)
    return (
        LengthFamily().describe(text)[_LENGTH["tokens"]],
        marks[_STYLE["headers"]],
        marks[_STYLE["bullets"]] + marks[_STYLE["numbered"]],
        marks[_STYLE["bold"]],
    )
