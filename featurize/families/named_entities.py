"""Named entities found by a spaCy model, where one is installed."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core import fingerprints
from core.errors import InputError
from featurize.columns import Column, Feature, View, columns_of
from featurize.text_families import normalised_difference

if TYPE_CHECKING:
    from featurize.text import Distinct

# Part of the fingerprint: raise it when the same model gives other numbers.
VERSION = 1
_READ_CHARS = 20_000  # of each text; spaCy itself refuses more than a million
# The labels of OntoNotes, which most of spaCy's models use, and those of WikiNER in its multilingual ones.
_KIND_OF = {
    **dict.fromkeys(("PERSON", "PER"), "persons"),
    **dict.fromkeys(("ORG", "NORP"), "organisations"),
    **dict.fromkeys(("GPE", "LOC", "FAC"), "places"),
    **dict.fromkeys(("DATE", "TIME"), "times"),
    **dict.fromkeys(("CARDINAL", "ORDINAL", "QUANTITY", "PERCENT", "MONEY"), "quantities"),
}
_KINDS = ("persons", "organisations", "places", "times", "quantities", "others")
FEATURES = (
    *(Feature(kind, "entities", f"{kind} that the spaCy model finds") for kind in _KINDS),
    Feature(
        "all", "entities", f"all entities that the spaCy model finds in the first {_READ_CHARS} characters of prose"
    ),
    Feature("distinct", "entities", "distinct ones among them"),
)
_VIEWS: tuple[View, ...] = ("prompt", "a", "b", "difference", "ratio")


def identity(model: str) -> str:
    """What tells this model from another of the same name, an installed package or a folder.

    Raises InputError with the command that installs what is missing: spaCy, or the model.
    """
    where = f"featurize.spacy_model={model}"
    if importlib.util.find_spec("spacy") is None:
        raise InputError("spaCy is not installed", where=where, fix="run `pip install spacy`, or leave this out.")
    if os.path.isdir(model):
        return fingerprints.identity(model)
    try:
        return fingerprints.identity(model, package=model)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise InputError(
            "this spaCy model is not installed",
            where=where,
            fix=f"run `python -m spacy download {model}`, name the folder of one, or leave this out.",
        ) from None


def columns() -> list[Column]:
    """The columns that `featurize` makes."""
    return columns_of("named_entities", FEATURES, _VIEWS)


def featurize(distinct: Distinct, model: str) -> npt.NDArray[np.float32]:
    """Counts of entities (n, d) of the records behind `distinct`."""
    described = np.array(_describe([text.prose[:_READ_CHARS] for text in distinct.texts], model), np.float32)
    described = described.reshape(len(distinct.texts), len(FEATURES))
    prompt, a, b = (described[distinct.index[part]] for part in ("prompt", "response_a", "response_b"))
    return np.concatenate([prompt, a, b, a - b, normalised_difference(a, b)], axis=1)


def _describe(texts: Sequence[str], model: str) -> list[list[float]]:
    rows = []
    for document in _load(model).pipe(texts):
        counts = dict.fromkeys(_KINDS, 0)
        for entity in document.ents:
            counts[_KIND_OF.get(entity.label_, "others")] += 1
        distinct = {entity.text.lower() for entity in document.ents}
        rows.append([*map(float, counts.values()), float(len(document.ents)), float(len(distinct))])
    return rows


@functools.cache
def _load(model: str) -> Any:  # noqa: ANN401 - spaCy is optional
    import spacy

    return spacy.load(model, exclude=["tagger", "parser", "lemmatizer", "attribute_ruler", "textcat"])
