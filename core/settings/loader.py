"""Load settings from YAML and the command line.

Precedence: `--set key=value`, then the YAML file, then the schema's defaults. An unknown key, a wrong type or an
invalid value raises InputError. It names the key, the reason and the nearest valid name.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core.errors import InputError
from core.filesystems import reject_credentials
from core.settings.base import NAME_PATTERN
from core.settings.features import FamilyEntry, expand_families
from core.settings.schema import Settings

_URI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://[^\s'\",\]}]+")


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice instead of keeping the last one."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:int":  # of a map from values to outcomes
            key_node.tag = "tag:yaml.org,2002:str"
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a name", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_settings(text: str, where: str, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings from YAML text (named `where` in messages) and `key.path=value` overrides.

    Values of overrides are YAML too. A list item is reached by its index (boosters.0.rounds=50) or by its name
    (boosters.lightgbm.rounds=50). Raises InputError.
    """
    try:
        raw = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {_what(error)}", where=where, fix="fix the syntax there.") from error
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise InputError(f"expected keys and values, found {type(raw).__name__}", where=where, fix="see configs/.")
    for override in overrides:
        _apply(raw, override)
    _refuse_keys(raw)
    if isinstance(raw.get("featurize"), dict) and "families" in raw["featurize"]:
        # Before validation, so that the positions in its errors are those of the list.
        raw["featurize"]["families"] = expand_families(raw["featurize"]["families"])
    try:
        return Settings.model_validate(raw)
    except InputError as error:  # of a member, which knows the key but no file
        origin = _origin(error.where.split("."), raw, where, overrides)
        raise InputError(error.reason, f"{origin}: {error.where}".removesuffix(": "), error.fix) from error
    except ValidationError as error:
        # A setting of several types gives an error for each: the deepest is about the type that was meant. Next to a
        # missing setting, an unknown one is its misspelling.
        first = max(error.errors(), key=lambda item: (len(item["loc"]), item["type"] == "extra_forbidden"))
        origin = _origin(first["loc"], raw, where, overrides)
        raise _as_input_error(first, error, raw, origin) from error


def _refuse_keys(value: Any, setting: str = "") -> None:  # noqa: ANN401 - raw YAML
    """Raise InputError for a URI that holds a key, before any part of it is printed."""
    if isinstance(value, str):
        reject_credentials(value, f"setting {setting!r}")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        _refuse_keys(item, f"{setting}.{name}".lstrip("."))


def _apply(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    for uri in _URI.findall(override):
        reject_credentials(uri, f"--set {path.partition('://')[0]}")
    if not equals or not path:
        raise InputError("not of the form key=value", where=f"--set {override}", fix="write for example --set seed=2.")
    value = _value(text, override)
    *parents, last = path.split(".")
    node: Any = raw
    for key in parents:
        if isinstance(node, dict):
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
        else:
            node = node[_index(node, key, override)]
    if isinstance(node, dict):
        node[last] = value
    else:
        node[_index(node, last, override)] = value


def _value(text: str, override: str) -> Any:  # noqa: ANN401 - raw YAML
    """Return the number, truth value, null, list, object or quoted text of an override; any other text as it is.

    YAML would end a text at ` #`, and read `a: b` as an object. Raises InputError for no value, or a broken list.
    """
    if not text.strip():  # as of a shell's variable that is not set
        path = override.partition("=")[0]
        raise InputError("no value", f"--set {override}", f"give one, or write {path}=null for none.")
    has_structure = text.lstrip()[0] in "[{'\""
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        if has_structure:
            raise InputError(
                f"the value is not valid YAML: {_what(error)}", f"--set {override}", "quote it."
            ) from error
        return text
    is_null = text.strip() in ("null", "Null", "NULL", "~")
    return value if has_structure or is_null or (isinstance(value, int | float) and "#" not in text) else text


def _what(error: yaml.YAMLError) -> str:
    """Return the problem and its position, without the line itself, which may hold a key."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or type(error).__name__
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else str(problem)


def _origin(location: Sequence[int | str], raw: Any, where: str, overrides: Sequence[str]) -> str:  # noqa: ANN401
    """Return where a setting comes from: the last override of it, of its parent or of a part of it, else the file."""
    setting = _key(location, raw)
    for override in reversed(overrides if setting else ()):
        other = _key(override.partition("=")[0].split("."), raw)
        if f"{setting}.".startswith(f"{other}."):
            return f"--set {override}"
        if other.startswith(f"{setting}."):  # a setting next to it may be the mistake
            return f"{where} with --set {override}"
    return where


def _item_name(item: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Return the name of an item of a list: its own, else its family's or its booster's."""
    if not isinstance(item, dict):
        return item
    return next((item[key] for key in ("name", "family", "booster") if key in item), None)


def _index(node: Any, key: str, override: str) -> int:  # noqa: ANN401 - raw YAML
    """Return the position in a list of settings, by number or by the items' names."""
    if not isinstance(node, list):
        raise InputError(f"{key!r} lies inside a single value", where=f"--set {override}", fix="set that value itself.")
    if key.isdigit() and int(key) < len(node):
        return int(key)
    names = [str(_item_name(item)) for item in node]
    if key in names:
        return names.index(key)
    if not node:
        raise InputError(f"no item {key!r} in this list, which is empty", f"--set {override}", "set the whole list.")
    raise InputError(
        f"no item {key!r} in this list", where=f"--set {override}", fix=f"give an index or one of: {', '.join(names)}."
    )


def _as_input_error(first: ErrorDetails, error: ValidationError, raw: dict[str, Any], where: str) -> InputError:
    """Return the message about the error to fix first; it names all unknown settings. `where` is its origin."""
    key = _key(first["loc"], raw)
    unknown = dict.fromkeys(_key(item["loc"], raw) for item in error.errors() if item["type"] == "extra_forbidden")
    other_names = ", ".join(repr(name) for name in unknown if name != key)
    if first["type"] == "extra_forbidden":
        model = _model_at(_parts(first["loc"])[:-1], raw)
        return _unknown_setting(key, model, where, f" (also unknown: {other_names})" * bool(other_names))
    also = f" (and unknown: {other_names})" if other_names else ""
    if first["type"] == "missing":
        return InputError(f"setting {key!r} is missing{also}", where=where, fix=f"add it, or give --set {key}=VALUE.")
    reason = first["msg"].removeprefix("Value error, ") + also
    if not key:  # about several settings together: the reason names them
        return InputError(reason, where=where, fix="change one of the settings that this names.")
    if isinstance(first["input"], dict) and first["type"] == "value_error":  # several keys together, as above
        return InputError(
            f"setting {key!r}: {reason}", where=where, fix=f"change one of its keys with --set {key}.KEY=VALUE."
        )
    value = repr(first["input"])
    value = value if len(value) <= 60 else f"{value[:57]}..."
    remaining = error.error_count() - 1 - len(unknown)
    more = f" ({remaining} more)" if remaining else ""
    *above, name = _parts(first["loc"])
    renamed = getattr(_model_at(above, raw), "renamed_values", {}).get(name, {}).get(str(first["input"]))
    fix = f"write {renamed!r}, its new name." if renamed else f"change {key}."
    if first["type"] == "string_type" and isinstance(first["input"], int | float):
        fix = f"put it in quotes, as in --set '{key}=\"{first['input']}\"'."
    return InputError(f"setting {key!r} has an invalid value {value}: {reason}{more}", where=where, fix=fix)


def _unknown_setting(key: str, model: type[BaseModel] | None, where: str, also: str) -> InputError:
    name = key.rpartition(".")[2]
    renamed = getattr(model, "renamed", {}).get(name)
    if renamed:
        fix = f"write {renamed.removesuffix('.')}."
        return InputError(f"setting {key!r} has a new name{also}", where=where, fix=fix)
    valid = sorted(model.model_fields) if model is not None else []
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.0)
    hint = f"did you mean {near[0]!r}? Valid here: {', '.join(valid)}." if near else "remove it."
    return InputError(f"unknown setting {key!r}{also}", where=where, fix=hint)


def _parts(location: Sequence[int | str]) -> list[str]:
    return [str(part) for part in location if not _is_alternative(part)]


def _key(location: Sequence[int | str], raw: Any) -> str:  # noqa: ANN401 - raw YAML
    """Return a setting as --set takes it: list items by name, where the name is unique and no index."""
    named = []
    node = raw
    for part in _parts(location):
        if isinstance(node, list):
            names = [_item_name(item) for item in node]
            position = int(part) if part.isdigit() else names.index(part) if part in names else len(node)
            node, name = (node[position], names[position]) if position < len(node) else (None, part)
            unlike = (
                names.count(name) == 1 and isinstance(name, str) and re.match(NAME_PATTERN, name) and not name.isdigit()
            )
            named.append(str(name) if unlike else part)
        else:
            node = node.get(part) if isinstance(node, dict) else None
            named.append(part)
    return ".".join(named)


def _is_alternative(part: int | str) -> bool:
    """Return whether a part of an error's location names a type rather than a key."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "float", "bool"))


def _model_at(location: Sequence[str], raw: Any) -> type[BaseModel] | None:  # noqa: ANN401 - raw YAML
    """Return the model whose settings are at a location, or None if it takes any key."""
    model: type[BaseModel] | None = Settings
    node, in_mapping = raw, False
    for part in location:
        if isinstance(node, list) and part.isdigit():
            node = node[int(part)] if int(part) < len(node) else None
            model = model.model_of(node) if model is not None and issubclass(model, FamilyEntry) else model
            continue
        node = node.get(part) if isinstance(node, dict) else None
        if in_mapping:  # its keys are the user's
            in_mapping = False
            continue
        if model is None or part not in model.model_fields:
            return None
        annotation = model.model_fields[part].annotation
        model, in_mapping = _model_inside(annotation), _has_mapping(annotation)
    return model


def _has_mapping(annotation: Any) -> bool:  # noqa: ANN401 - type annotations
    """Return whether values of a type may be mappings from the user's own keys."""
    return get_origin(annotation) is dict or any(_has_mapping(argument) for argument in get_args(annotation))


def _model_inside(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - type annotations
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation) if get_origin(annotation) else ():
        model = _model_inside(argument)
        if model is not None:
            return model
    return None
