"""The command line: a Config from a YAML file and flags, and errors in one sentence.

Nothing here imports torch: help has to come at once.
"""

import dataclasses
import os
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
import yaml

from selfsup.core.errors import UserError, did_you_mean

C = TypeVar("C")


def run(main: Callable[[C], None], config: type[C], args: Sequence[str] | None = None) -> None:
    """Parse the command line and call `main`; what the user did wrong ends with status 2."""
    try:
        main(parse(config, sys.argv[1:] if args is None else args))
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # one sentence, not one for each process
            print(f"error: {error}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)  # reader processes and process groups must not delay the answer
    except KeyboardInterrupt:
        sys.exit(130)
    if "torch" in sys.modules:
        from selfsup.core.distributed import finish

        finish()


def parse(config: type[C], args: Sequence[str]) -> C:
    """A Config from `args`: flags first, then the file of `--config`, then defaults.

    Raises:
        UserError: the file is missing, is no YAML, or has a key or value that does not fit.
        SystemExit: a flag is wrong (2) or help was asked for (0); tyro has printed why.
    """
    args = list(args)
    file = take(args, "--config")
    values = _read(Path(file), config) if file is not None else {}
    missing = tyro.MISSING
    default: C = _fill(config, values, missing)
    about = f"{config.__doc__}\n\n--config FILE.yaml reads settings from a file; flags override it."
    return tyro.cli(config, args=args, default=default, description=about)


def from_file(config: type[C], file: Path) -> C:
    """The settings of a file that `config` has; others, such as another recipe's, are ignored.

    Raises:
        UserError: the file is missing, is no YAML, lacks a required setting or has a value that
            does not fit.
    """
    settings: C = _fill(config, _read(file, config, strict=False), dataclasses.MISSING)
    for field in dataclasses.fields(typing.cast(Any, config)):
        if getattr(settings, field.name) is dataclasses.MISSING:
            raise UserError(f"{file} has no setting {field.name!r}")
    return settings


def to_dict(config: Any) -> dict[str, Any]:
    """The settings as plain numbers, strings, lists and dictionaries."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return {key: plain(value) for key, value in dataclasses.asdict(config).items()}


def take(args: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from `args` and return the value."""
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            del args[i]
            return args.pop(i)
        if arg.startswith(flag + "="):
            return args.pop(i)[len(flag) + 1 :]
    return None


def _fill(config: Any, values: dict[str, Any], missing: Any) -> Any:
    """An instance with the file's values, the defaults, and `missing` where neither is."""
    hints = typing.get_type_hints(config)
    filled: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = values.get(field.name, field.default)
        if isinstance(value, dict):
            value = _fill(hints[field.name], vars(field.default) | value, missing)
        filled[field.name] = missing if value is dataclasses.MISSING else value
    return config(**filled)


def _read(file: Path, config: type, *, strict: bool = True) -> dict[str, Any]:
    """The file's settings, each checked against the Config's fields; unknown only if strict."""
    try:
        tree = yaml.compose(file.read_text(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"cannot read --config {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, yaml.MappingNode):
        raise UserError(f"{file} must hold settings as `name: value`, one a line")
    return _settings(tree, config, file, strict)


def _settings(tree: yaml.MappingNode, config: type, file: Path, strict: bool) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    values: dict[str, Any] = {}
    for key, node in tree.value:
        place = f"{file}, line {key.start_mark.line + 1}"
        name = str(key.value)
        if name not in hints:
            if not strict:
                continue
            raise UserError(f"{place}: unknown setting {name!r}{did_you_mean(name, hints)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(node, yaml.MappingNode):
                raise UserError(f"{place}: {name} must hold settings of its own, indented below it")
            values[name] = _settings(node, typing.cast(type, hint), file, strict)
            continue
        raw = yaml.SafeLoader("")
        value = raw.construct_object(node, deep=True)
        fits, values[name] = _convert(value, hint)
        if not fits:
            raise UserError(f"{place}: {name} must be {_spell(hint)}, not {value!r}")
    return values


def _convert(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value from YAML fits a field's type, and the value in that type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in inner, value
    if origin in (types.UnionType, typing.Union):
        return next((r for r in (_convert(value, part) for part in inner) if r[0]), (False, value))
    if origin is tuple:
        if inner[-1] is Ellipsis and isinstance(value, list):
            inner = inner[:1] * len(value)
        if not isinstance(value, list) or len(value) != len(inner):
            return False, value
        parts = [_convert(item, part) for item, part in zip(value, inner, strict=True)]
        return all(fits for fits, _ in parts), tuple(item for _, item in parts)
    if hint is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
            try:
                return True, float(value)
            except ValueError:
                return False, value
        return isinstance(value, int | float) and not isinstance(value, bool), value
    return type(value) is hint or (hint is types.NoneType and value is None), value


def _spell(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_spell, inner))
    if origin is tuple:
        return "a list of numbers" if inner[-1] is Ellipsis else f"a list of {len(inner)} numbers"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return words.get(hint, "empty")
