"""The hand-made families together: from texts to one dense column per feature and view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featurize.columns import Column, Feature, View, columns_of
from featurize.families import entities, language, length, opening, overlap, style, tone, vocabulary

if TYPE_CHECKING:
    from featurize.text import Distinct, Text

# Part of the fingerprint of feature files: raise it when a family counts differently.
VERSION = 2

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Family:
    """What a family reads off one text, off an answer beside its prompt, and off two answers in either order."""

    text: Sequence[Feature] = ()
    describe: Callable[[Text], list[float]] | None = None
    answer: Sequence[Feature] = ()
    describe_answer: Callable[[Text, Text], list[float]] | None = None
    pair: Sequence[Feature] = ()
    describe_pair: Callable[[Text, Text], list[float]] | None = None


FAMILIES = {
    "length": Family(length.FEATURES, length.describe),
    "vocabulary": Family(vocabulary.FEATURES, vocabulary.describe),
    "entities": Family(entities.FEATURES, entities.describe),
    "style": Family(style.FEATURES, style.describe),
    "tone": Family(tone.FEATURES, tone.describe),
    "language": Family(language.FEATURES, language.describe, language.ANSWER_FEATURES, language.describe_answer),
    "opening": Family(answer=opening.FEATURES, describe_answer=opening.describe_answer),
    "overlap": Family(
        answer=overlap.ANSWER_FEATURES,
        describe_answer=overlap.describe_answer,
        pair=overlap.PAIR_FEATURES,
        describe_pair=overlap.describe_pair,
    ),
}
_TEXT_VIEWS: tuple[View, ...] = ("prompt", "a", "b", "difference", "ratio")
_ANSWER_VIEWS: tuple[View, ...] = ("a", "b", "difference", "ratio")


def columns(families: Sequence[str]) -> list[Column]:
    """The columns that `featurize` makes, in order: by family, then kind, then view, then feature."""
    made: list[Column] = []
    for name in families:
        family = FAMILIES[name]
        made += columns_of(name, family.text, _TEXT_VIEWS)
        made += columns_of(name, family.answer, _ANSWER_VIEWS)
        made += columns_of(name, family.pair, ("pair",))
    return made


def featurize(distinct: Distinct, families: Sequence[str]) -> Floats:
    """Features (n, d) of the records behind `distinct`; d and the order are those of `columns`.

    What is read off one text, or off an answer beside its prompt, is read once however often they occur.
    """
    index = distinct.index
    texts = distinct.texts
    blocks: list[Floats] = []
    for name in families:
        family = FAMILIES[name]
        if family.describe is not None:
            described = _array([family.describe(text) for text in texts], family.text)
            prompt, a, b = (described[index[part]] for part in ("prompt", "response_a", "response_b"))
            blocks += [prompt, a, b, a - b, normalised_difference(a, b)]
        if family.describe_answer is not None:
            known: dict[tuple[int, int], list[float]] = {}
            for part in ("response_a", "response_b"):
                for key in zip(index["prompt"].tolist(), index[part].tolist(), strict=True):
                    if key not in known:
                        known[key] = family.describe_answer(texts[key[0]], texts[key[1]])
            a, b = (
                _array(
                    [known[key] for key in zip(index["prompt"].tolist(), index[part].tolist(), strict=True)],
                    family.answer,
                )
                for part in ("response_a", "response_b")
            )
            blocks += [a, b, a - b, normalised_difference(a, b)]
        if family.describe_pair is not None:
            pairs = zip(index["response_a"].tolist(), index["response_b"].tolist(), strict=True)
            blocks.append(_array([family.describe_pair(texts[a], texts[b]) for a, b in pairs], family.pair))
    return np.concatenate(blocks, axis=1)


def _array(rows: list[list[float]], features: Sequence[Feature]) -> Floats:
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(features))


def normalised_difference(a: Floats, b: Floats) -> Floats:
    """(a - b) / (|a| + |b| + 1): the ratio of two counts made antisymmetric, as in the arena's style control.

    The arena's own (a - b) / (a + b + 1) is the same where features are not negative.
    """
    ratio: Floats = (a - b) / (np.abs(a) + np.abs(b) + 1)
    return ratio
