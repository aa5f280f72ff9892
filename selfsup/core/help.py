"""The short help of a command: the flags that matter first, each in one line."""

import ast
import dataclasses
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

WIDTH = 80
USUAL = {
    **{"data": "images/", "out": "runs/a", "model": "runs/a", "other": "runs/b", "on": "images/"},
    **{"runs": "runs/a", "run": "runs/a", "queries": "query.jpg", "init": "runs/a"},
    **{"teacher": "runs/large", "student": "runs/small"},
}
"""Values of needed settings in an example."""


def short_help(config: Any, first: Sequence[tuple[str, str]] = (), about: str = "") -> str:
    """Describe a command by `first` and the flags of its Config's `FIRST`, or by all its flags.

    `first` are more flags, each with what it does; `about` is said instead of the Config's own
    sentence. At most 80 columns wide, without torch.
    """
    flags = getattr(config, "FIRST", None) or [path for path, _, _ in every_setting(config)]
    rows = [*first, *(_row(config, flag) for flag in flags)]
    lines = [*textwrap.wrap(about or str(config.__doc__).split("\n\n")[0], WIDTH), ""]
    lines += [usage(config), ""]
    return "\n".join(
        [
            *lines,
            *describe(rows),
            "",
            *_example(config),
            "  --config FILE.yaml reads settings from a file; flags override it.",
            "  --help-all lists every flag.",
        ]
    )


def every_setting(config: Any, section: str = "") -> Iterator[tuple[str, Any, str]]:
    """List the settings of a Config and of its sections: its path, whose field it is, and which."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        path, hint = section + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from every_setting(hint, f"{path}.")
        else:
            yield path, config, field.name


def usage(config: Any) -> str:
    """Show what follows a command: "usage: selfsup search RUN QUERIES... [flags]"."""
    words = [positional(config, f.name) for f in dataclasses.fields(config)]
    return " ".join(["usage:", command_name(), *filter(None, words), "[flags]"])


def usual(flag: str, value: str = "") -> str:
    """Write a flag with `value`, or with what it usually has: "--data images/"."""
    return f"{flag} {value or USUAL.get(flag.lstrip('-'), '')}".rstrip()


def _example(config: Any) -> list[str]:
    """A line with the settings that are needed, to be pasted; none where one has no usual value."""
    needed = [
        field.name
        for field in dataclasses.fields(config)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    if not needed or not set(needed) <= set(USUAL):
        return []
    words = [
        USUAL[name] if positional(config, name) else f"--{name.replace('_', '-')} {USUAL[name]}"
        for name in needed
    ]
    return [f"  example: {' '.join([command_name(), *words])}"]


def describe(flags: Sequence[tuple[str, str]]) -> list[str]:
    """Lay out flags, each with what it does, in two columns."""
    column = min(26, max((len(flag) for flag, _ in flags), default=0)) + 4
    lines = []
    for flag, about in flags:
        wrapped = textwrap.wrap(about, WIDTH - column) or [""]
        head = f"  {flag}".ljust(column)
        if len(head) > column:
            lines.append(head.rstrip())
            head = " " * column
        lines.append(head + wrapped[0])
        lines += [" " * column + line for line in wrapped[1:]]
    return lines


def positional(config: Any, name: str) -> str:
    """A setting that is typed without a flag, in capitals; empty for others."""
    hint = typing.get_type_hints(config, include_extras=True)[name]
    if Positional not in typing.get_args(hint)[1:]:
        return ""
    several = "..." if typing.get_origin(typing.get_args(hint)[0]) is tuple else ""
    return name.upper() + several


def command_name() -> str:
    """Return the command as it was typed: `selfsup knn`, or the name of a script."""
    name = sys.argv[0]
    return name if name.startswith("selfsup ") else f"python {Path(name).name}"


def _row(config: Any, flag: str) -> tuple[str, str]:
    """Return a flag as it is typed, and the first sentence of its docstring with the default."""
    owner, default = config, None
    names = flag.split(".")
    for name in names[:-1]:
        default = getattr(owner if default is None else default, name)
        owner = type(default)
    name = names[-1]
    if default is None:
        field = next(f for f in dataclasses.fields(owner) if f.name == name)
        value = field.default
    else:
        value = getattr(default, name)
    about = first_sentence(owner, name)
    hint = typing.get_type_hints(owner)[name]
    if typing.get_origin(hint) is typing.Literal:
        about = f"{about}: {', '.join(word for word in typing.get_args(hint) if word)}"
    default_text = "needed" if value is dataclasses.MISSING else _default(value)
    text = f"{about} ({default_text})" if default_text else about
    typed = positional(owner, name) or f"--{flag.replace('_', '-')}"
    return typed, text


def _default(value: Any) -> str:
    if value is None or value == "" or value == ():
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def first_sentence(config: type, name: str) -> str:
    """Return the first sentence of the docstring below a field, without its full stop."""
    return _documentation(config).get(name, "").split(". ")[0].rstrip(".:;")


def _documentation(config: type) -> dict[str, str]:
    """Read the docstrings below the fields of a dataclass and of its base classes."""
    about: dict[str, str] = {}
    for owner in reversed(config.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                about[field.target.id] = " ".join(str(text.value.value).split())
    return about
