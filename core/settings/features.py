"""Settings of features: which feature families are made."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, SerializationInfo, field_serializer, field_validator, model_validator

from core.errors import InputError
from core.registry import FAMILIES
from core.settings.base import Name, StrictModel, check_unique

# How boosters see the features of both answers: as columns for each answer, or for A minus B.
PairView = Literal["pair", "difference"]
ALL_FAMILIES = "all"
EXTERNAL: Final = "external"  # the family of the columns of `features`
JUDGES: Final = "judges"  # the family of verdicts
_SIDES: Final = ("a", "b")
_VIEWS: Final = (frozenset(_SIDES), frozenset({"pair"}), frozenset({"difference"}))


class FamilyEntry(StrictModel):
    """One entry of featurize.families. The settings of a feature family derive from this model."""

    renamed: ClassVar[dict[str, str]] = {}  # old names of settings
    columns_only: ClassVar[frozenset[str]] = frozenset()  # settings of the columns that boosters see, not of the files
    resources: ClassVar[frozenset[str]] = (
        frozenset()
    )  # settings that change how fast files are made, not what is in them

    family: Name = Field(description="Name of the feature family.")

    @property
    def entry_name(self) -> str:
        """The name by which boosters choose the entry's columns: its own, or its family's."""
        return self.family

    @classmethod
    def model_of(cls, raw: Any) -> type[StrictModel]:  # noqa: ANN401 - raw YAML
        """Return the model of a raw entry's family, for messages about its settings."""
        family = raw.get("family") if isinstance(raw, dict) else raw
        return FAMILIES.get(family).settings if family in FAMILIES.names() else cls

    def matrix_settings(self) -> dict[str, Any]:
        """Return the settings that the matrix depends on, as JSON."""
        return self.model_dump(mode="json", exclude=set(self.resources))

    def file_settings(self) -> dict[str, Any]:
        """Return the settings that the files depend on, as JSON."""
        return self.model_dump(mode="json", exclude={*self.resources, *self.columns_only})


def _entry(raw: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return the settings of one entry, validated by the model of its family."""
    if isinstance(raw, FamilyEntry):
        return raw
    values = {"family": raw} if isinstance(raw, str) else raw
    if not isinstance(values, dict) or not isinstance(values.get("family"), str):
        raise ValueError("an entry is the name of a family, or a mapping such as {family: ngrams, name: words}")
    try:
        model: type[FamilyEntry] = FAMILIES.get(values["family"]).settings
    except InputError as error:
        raise ValueError(f"{error.reason}; {error.fix}") from None
    return model.model_validate(values)


def expand_families(values: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return a raw list of families without null, and with the names that `all` stands for in its place.

    These are the families with a position, in its order.
    """
    if values == ALL_FAMILIES:
        values = [ALL_FAMILIES]
    if not isinstance(values, list):
        return values
    families = sorted((family.position, family.name) for family in FAMILIES if family.position is not None)
    names = [name for _, name in families]
    entries: list[Any] = []
    for value in values:
        entries += names if value == ALL_FAMILIES else [] if value is None else [value]
    return entries


def default_families() -> list[FamilyEntry]:
    """Return the entries that `all` stands for."""
    return [_entry(name) for name in expand_families(ALL_FAMILIES)]


class Featurize(StrictModel):
    """Which features are made."""

    renamed: ClassVar[dict[str, str]] = {
        "ngrams": "entries of featurize.families, such as `- {family: ngrams, name: words, max_features: 300}`",
        "word2vec": "an entry of featurize.families, such as `- {family: word2vec, dimensions: 100}`",
        "embeddings": "an entry of featurize.families, such as `- {family: embeddings, components: 32}`",
        "spacy_model": "an entry of featurize.families, such as `- {family: named_entities, model: en_core_web_sm}`",
    }

    families: list[Annotated[FamilyEntry, BeforeValidator(_entry)]] = Field(
        default_factory=default_families,
        min_length=1,
        description=(
            "The families to make, in the order of their columns. An entry is a name, or a mapping of `family` and "
            "the family's own settings. `all` stands for the hand-made families and similarity. An entry that is null "
            "is left out."
        ),
    )

    @property
    def names(self) -> list[str]:
        """Names of the entries, by which boosters choose features."""
        return [entry.entry_name for entry in self.families]

    @field_validator("families", mode="before")
    @classmethod
    def _expand(cls, values: Any) -> Any:  # noqa: ANN401 - raw YAML
        return expand_families(values)

    @field_serializer("families")
    def _as_written(self, entries: list[FamilyEntry], info: SerializationInfo) -> list[Any]:
        """Return entries as a file has them: those without settings of their own are names."""
        return [entry.family if type(entry) is FamilyEntry else entry.model_dump(mode=info.mode) for entry in entries]

    @model_validator(mode="after")
    def _names_differ(self) -> Featurize:
        check_unique(self.names, "entries of families")
        families = set(FAMILIES.names())
        for entry in self.families:
            if entry.entry_name != entry.family and entry.entry_name in families:
                raise ValueError(f"the entry {entry.entry_name!r} of {entry.family} has the name of a family")
        return self


def feature_columns(values: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return raw columns as a mapping from a feature to its columns by view.

    In a list of columns, `reward_a` and `reward_b` are the two sides of the feature `reward`.
    """
    if isinstance(values, dict):
        return {name: _by_view(value) for name, value in values.items()}
    if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
        return values
    columns: dict[str, dict[str, str]] = {}
    for name in values:
        stem, _, side = name.rpartition("_")
        if side in _SIDES and stem and {f"{stem}_a", f"{stem}_b"} <= set(values):
            columns.setdefault(stem, {})[side] = name
        elif name in columns:
            raise ValueError(f"the column {name!r} is there twice")
        else:
            columns[name] = {"pair": name}
    return columns


def _by_view(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    if isinstance(value, str):
        return {"pair": value}
    if isinstance(value, list) and len(value) == len(_SIDES):
        return dict(zip(_SIDES, value, strict=True))
    return value


class FeatureTable(StrictModel):
    """A table of numbers that were computed elsewhere, one row for each pair of answers."""

    path: Annotated[str, Field(min_length=1)] = Field(description="File, folder, glob or URI with an id and numbers.")
    id: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Column of the record's id. Default: id, pair_id, record_id, question_id or uid."
    )
    columns: (
        Annotated[
            dict[
                Annotated[str, Field(min_length=1)],
                dict[Literal["a", "b", "pair", "difference"], Annotated[str, Field(min_length=1)]],
            ],
            BeforeValidator(feature_columns),
            Field(min_length=1),
        ]
        | None
    ) = Field(
        default=None,
        description=(
            "Columns to use, as a list of names, or by feature: `reward: [rm_a, rm_b]` for the two answers, "
            "`cosine: cos` for a number that stays when A and B change places, `{difference: margin}` for one that "
            "changes its sign. Columns `x_a` and `x_b` of a list are the two sides of `x`. Default: all with numbers."
        ),
    )

    @model_validator(mode="after")
    def _views_are_known(self) -> FeatureTable:
        for name, by_view in (self.columns or {}).items():
            if frozenset(by_view) not in _VIEWS:
                raise ValueError(f"the feature {name!r} needs a column, columns of a and b, or a difference")
        return self
