"""Add a feature family: questions and hedging words of each text.

    tiebreak pipeline --config configs/demo.yaml --plugin examples/custom_family.py \
        --set featurize.families='[length, style, hedging]'

The names of its columns start with hedging_. Boosters are trained on them, and the report lists them.
"""

import re
from typing import TYPE_CHECKING

from core.registry import FAMILIES
from featurize.blocks import Feature
from featurize.family import TextFamily

if TYPE_CHECKING:
    from featurize.text import Text

_HEDGES = re.compile(r"\b(?:maybe|perhaps|might|could|it depends|I think|not sure)\b", re.IGNORECASE)


@FAMILIES.register
class Hedging(TextFamily):
    """Count questions and hedges of each text."""

    name = "hedging"
    summary = "Questions and hedging words."
    version = 1  # increase it if the same text gives other values
    text_features = (
        Feature("questions", "marks", "question marks"),
        Feature("hedges", "words", "words such as maybe, perhaps, might"),
    )

    def describe(self, text: "Text") -> list[float]:
        """Return the features of one text, in the order of `text_features`."""
        return [float(text.full.count("?")), float(len(_HEDGES.findall(text.full)))]
