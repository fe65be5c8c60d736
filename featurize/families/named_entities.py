"""Named entities recognized by a spaCy model that is installed."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from core import fingerprints
from core.errors import InputError
from core.registry import FAMILIES
from core.settings.features import FamilyEntry
from featurize.blocks import Feature
from featurize.family import TextFamily

if TYPE_CHECKING:
    from featurize.text import Text

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


class NamedEntitySettings(FamilyEntry):
    """Entities that a spaCy model recognizes."""

    family: Literal["named_entities"] = Field(default="named_entities", description="Name of the feature family.")
    model: Annotated[str, Field(min_length=1)] = Field(description="An installed spaCy model, or its folder.")


@FAMILIES.register
class NamedEntityFamily(TextFamily):
    """Counts of entities by kind. They have files of their own: a model takes longer than all rules together."""

    name = "named_entities"
    summary = "entities by kind, from a spaCy model that you installed (`python -m spacy download en_core_web_sm`)"
    version = 1
    settings = NamedEntitySettings
    libraries = ("spacy",)
    is_plain = False
    text_features = (
        *(Feature(kind, "entities", f"{kind} that the spaCy model finds") for kind in _KINDS),
        Feature(
            "all", "entities", f"all entities that the spaCy model finds in the first {_READ_CHARS} characters of prose"
        ),
        Feature("distinct", "entities", "distinct ones among them"),
    )

    def folder(self, entry: FamilyEntry) -> str:
        """Return the entry's own folder."""
        return entry.entry_name

    def depends_on(self, entry: FamilyEntry, seed: int) -> object:
        """Return the identity of the model. Raises InputError if it is not installed."""
        return spacy_identity(cast("NamedEntitySettings", entry).model)

    def describe_all(self, texts: Sequence[Text], entry: FamilyEntry) -> list[list[float]]:
        """Return the counts of entities of each text."""
        rows = []
        model = _load(cast("NamedEntitySettings", entry).model)
        for document in model.pipe([text.prose[:_READ_CHARS] for text in texts]):
            counts = dict.fromkeys(_KINDS, 0)
            for entity in document.ents:
                counts[_KIND_OF.get(entity.label_, "others")] += 1
            distinct = {entity.text.lower() for entity in document.ents}
            rows.append([*map(float, counts.values()), float(len(document.ents)), float(len(distinct))])
        return rows


def spacy_identity(model: str) -> str:
    """Return the identity of a model, an installed package or a folder. Raises InputError with the command that
    installs spaCy or the model, if one is missing.
    """
    where = f"featurize.families.named_entities.model={model}"
    if importlib.util.find_spec("spacy") is None:
        raise InputError("spaCy is not installed", where=where, fix="run `pip install spacy`, or leave this out.")
    if os.path.isdir(model):
        return fingerprints.model_identity(model)
    try:
        return fingerprints.model_identity(model, package=model)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise InputError(
            "this spaCy model is not installed",
            where=where,
            fix=f"run `python -m spacy download {model}`, name the folder of one, or leave this out.",
        ) from None


@functools.cache
def _load(model: str) -> Any:  # noqa: ANN401 - spaCy is optional
    import spacy

    return spacy.load(model, exclude=["tagger", "parser", "lemmatizer", "attribute_ruler", "textcat"])
