"""Settings as dataclasses: check plain values against the fields' types, and convert both ways."""

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from selfsup.core.errors import UserError, did_you_mean

C = TypeVar("C")
Path = tuple[str, ...]
"""Names from the outermost Config to a setting: ("optim", "lr")."""


def to_dict(config: Any) -> dict[str, Any]:
    """Return the settings as plain numbers, strings, lists and dictionaries."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, str):
            return str(value)
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return {key: plain(value) for key, value in dataclasses.asdict(config).items()}


def from_keywords(
    config: type[C], values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> C:
    """Make a Config from keywords.

    Args:
        config: a dataclass.
        values: values by field name; for a nested Config, a Config or a dict of some fields.
        defaults: values that replace the defaults of the Config's fields.

    Raises:
        UserError: a keyword is not a setting, has a value of another type, or a needed one is
            missing.
    """
    values = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in values.items()}
    settings = checked(values, config, place=_keyword)
    filled: C = with_values(config, settings, base=with_values(config, defaults or {}))
    for field in dataclasses.fields(typing.cast(Any, config)):
        if getattr(filled, field.name) is dataclasses.MISSING:
            raise UserError(f"{field.name} is needed: {field.name}=...")
    return filled


def _keyword(path: Path) -> str:
    """Start an error's sentence with the Configs around a keyword: "" or "optim: "."""
    return "".join(f"{name}: " for name in path[:-1])


def with_values(
    config: Any, values: Mapping[str, Any], *, missing: Any = dataclasses.MISSING, base: Any = None
) -> Any:
    """Make a Config of the class `config`, without checks.

    Each field takes its entry in `values`; else that of `base`, or the class's default where there
    is no `base`; else `missing`. A dictionary makes the nested Config of that field in the same
    way. Keys that are no field are ignored. A required field without a value holds `missing`, by
    default `dataclasses.MISSING` itself, for the caller to look for.

    Example for a class with `lr: float` and `steps: int = 5`:
        with_values(C, {"lr": 0.1}) is C(lr=0.1, steps=5),
        with_values(C, {}, missing=None) is C(lr=None, steps=5).
    """
    hints = typing.get_type_hints(config)
    filled: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        default = field.default if base is None else getattr(base, field.name)
        value = values.get(field.name, default)
        if isinstance(value, dict):
            value = with_values(hints[field.name], value, missing=missing, base=default)
        filled[field.name] = missing if value is dataclasses.MISSING else value
    return config(**filled)


def checked(
    values: Mapping[str, Any],
    config: type,
    *,
    place: Callable[[Path], str],
    strict: bool = True,
    within: Path = (),
) -> dict[str, Any]:
    """Check each value against the Config's field and return it in the field's type.

    Args:
        values: plain values by name, nested ones as dictionaries.
        config: a dataclass.
        place: returns the start of an error's sentence, which says where this path was written.
        strict: raise an error for unknown settings instead of leaving them out.
        within: the path of `values` in the outermost Config.

    Raises:
        UserError: a setting is unknown or has a value of another type.
    """
    hints = typing.get_type_hints(config)
    result: dict[str, Any] = {}
    for name, value in values.items():
        path = (*within, str(name))
        if name not in hints:
            if not strict:
                continue
            raise UserError(
                f"{place(path)}unknown setting {name!r}{did_you_mean(str(name), hints)}"
            )
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            inner = typing.cast(type, hint)
            if isinstance(value, inner):
                result[name] = value
                continue
            if not isinstance(value, Mapping):
                some = ", ".join(field.name for field in dataclasses.fields(hint)[:3])
                raise UserError(
                    f"{place(path)}{name} must hold settings by name ({some}...), "
                    f"not {_shown(value)}"
                )
            result[name] = checked(value, inner, place=place, strict=strict, within=path)
            continue
        fits, result[name] = _convert(value, hint)
        if not fits:
            raise UserError(f"{place(path)}{name} must be {_describe(hint)}, not {_shown(value)}")
    return result


def _shown(value: Any) -> str:
    """Return the start of a value as it is written."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def line_of(tree: Any, path: Path) -> int:
    """Return the line of the setting at `path` in a YAML document's node tree, from 1."""
    line = 0
    for name in path:
        for key, node in tree.value:
            if str(key.value) == name:
                line, tree = key.start_mark.line + 1, node
                break
    return line


def _convert(value: Any, hint: Any) -> tuple[bool, Any]:
    """Return whether a plain value has a field's type, and the value converted to it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _convert(value, inner[0])
    if origin is Literal:
        return value in inner, value
    if origin in (types.UnionType, typing.Union):
        options = (_convert(value, option) for option in inner)
        return next((option for option in options if option[0]), (False, value))
    if origin is tuple:
        if inner[-1] is Ellipsis and isinstance(value, list | tuple):
            inner = inner[:1] * len(value)
        if not isinstance(value, list | tuple) or len(value) != len(inner):
            return False, value
        items = [_convert(item, kind) for item, kind in zip(value, inner, strict=True)]
        return all(fits for fits, _ in items), tuple(item for _, item in items)
    if hint is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
            try:
                return True, float(value)
            except ValueError:
                return False, value
        return isinstance(value, int | float) and not isinstance(value, bool), value
    if hint is str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        return isinstance(value, str), value  # also subclasses, which stand for images in memory
    return type(value) is hint or (hint is types.NoneType and value is None), value


def _describe(hint: Any) -> str:
    """Name a type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _describe(inner[0])
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in inner if value != "")
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_describe, inner))
    if origin is tuple:
        kind = "text" if inner[0] is str else "words" if inner[0] not in (int, float) else "numbers"
        return f"a list of {kind}" if inner[-1] is Ellipsis else f"a list of {len(inner)} numbers"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return words.get(hint, "empty")
