"""Types that all parts of the schema of settings share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from core.errors import InputError

if TYPE_CHECKING:
    from core.registry import Registry

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
# Names become folders of the run, so they hold nothing that could leave it.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class StrictModel(BaseModel):
    """Settings that refuse unknown keys, values of another type, and changes.

    `renamed` maps old names of settings to their new ones, or to a short text that says what to write.
    `renamed_values` does the same for values, by setting. Both are used in error messages only.
    """

    renamed: ClassVar[dict[str, str]] = {}
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {}

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def member_of(registry: "Registry") -> AfterValidator:
    """Return the check that a text names a member of a registry. The error lists the names."""

    def check(name: str) -> str:
        try:
            registry.get(name)
        except InputError as error:
            raise ValueError(f"{error.reason}; {error.fix}") from None
        return name

    return AfterValidator(check)


def tuple_from_list(values: Any, name: str) -> Any:  # noqa: ANN401 - raw YAML
    """Return raw settings with the list under `name` as a tuple. YAML has no tuples, and strict mode rejects lists."""
    if isinstance(values, dict) and isinstance(values.get(name), list):
        return {**values, name: tuple(values[name])}
    return values


def check_unique(names: Sequence[str], what: str) -> None:
    """Raise ValueError if two settings share a name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two {what} share the name {twice[0]!r}")
