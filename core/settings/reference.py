"""Generate the reference of settings from the schema, for `--help` and docs/settings.md.

Run as: python -m core.settings.reference > docs/settings.md
"""

from __future__ import annotations

import json
import textwrap
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from core.registry import FAMILIES
from core.settings.schema import Settings

_ENTRY = "featurize.families.NAME.family"


class SettingRow(NamedTuple):
    """One setting of the reference. `key` is as --set takes it, with NAME for an item of a list."""

    key: str
    type: str
    default: str
    description: str


def setting_rows(model: type[BaseModel], prefix: str = "") -> Iterator[SettingRow]:
    """Yield a model's settings and those inside them, in the order of the schema."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        yield SettingRow(key, type_text(field.annotation), _default_text(field), field.description or "")
        for inner, is_list in _models_inside(field.annotation):
            yield from setting_rows(inner, f"{key}.NAME." if is_list else f"{key}.")


def all_rows(families: Iterable[Any]) -> Iterator[SettingRow]:
    """Yield every setting. The settings of feature families follow `featurize.families`."""
    for row in setting_rows(Settings):
        yield row
        if row.key == _ENTRY:
            for family in families:
                prefix = f"featurize.families.{family.name}."
                yield from (own for own in setting_rows(family.settings, prefix) if own.key != f"{prefix}family")


def help_text(sections: Sequence[str]) -> str:
    """Return the settings of some sections as text for a terminal; of all if none are named."""
    lines = ["settings that it reads (--set KEY=VALUE; NAME is an item's name):"]
    for row in all_rows(FAMILIES):
        if sections and row.key.partition(".")[0] not in (*sections, "run"):
            continue
        lines.append(f"  {row.key}  ({row.type}{_with_default(row.default)})")
        lines += textwrap.wrap(row.description, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def markdown() -> str:
    """Return the page docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Generated from `core/settings` by `python -m core.settings.reference`. Do not edit it by hand.",
        "",
        "Keys are written as `--set` takes them. `NAME` stands for the name of an item in a list.",
        "Settings of a feature family stand under its name; an entry with a name of its own is addressed by that.",
        "Precedence: `--set`, then the YAML file, then the default.",
    ]
    families = sorted(
        (family for family in FAMILIES if type(family).__module__.startswith("featurize.")),  # no plugins
        key=lambda family: str(family.name),
    )
    for name, field in Settings.model_fields.items():
        lines += ["", f"## {name}", ""]
        if field.description:
            lines += [field.description, ""]
        lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
        for row in all_rows(families):
            if row.key.partition(".")[0] == name and row.type != "mapping":
                cells = (f"`{row.key}`", row.type, row.default and f"`{row.default}`", row.description)
                lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def type_text(annotation: Any) -> str:  # noqa: ANN401 - type annotations
    """Return a type as a user reads it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return " / ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else type_text(part) for part in arguments)
    if origin is list:
        return f"list of {type_text(arguments[0])}"
    if arguments[1:] == (...,):
        return f"list of {type_text(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(type_text(part) for part in arguments)}]"
    if origin is dict:
        return f"mapping of names to {type_text(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return {"str": "text", "bool": "true / false", "int": "integer", "float": "number"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def _default_text(field: Any) -> str:  # noqa: ANN401 - pydantic's FieldInfo
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    if isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        value = [item.model_dump(mode="json") for item in value]
    return json.dumps(value)


def _with_default(default: str) -> str:
    return f", default {default}" if default else ""


def _models_inside(annotation: Any) -> Iterator[tuple[type[BaseModel], bool]]:  # noqa: ANN401 - type annotations
    """Yield the models that a type holds, and whether in a list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, False
    origin = get_origin(annotation)
    for argument in get_args(annotation) if origin else ():
        for model, is_list in _models_inside(argument):
            yield model, is_list or origin in (list, dict)


if __name__ == "__main__":
    print(markdown(), end="")
