"""What was typed for a command, checked before it is parsed: a mistake is one sentence.

Nothing here imports torch.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.help import command_name, every_setting, first_sentence, positional, usage, usual

NUMBERS = {int: "a whole number", float: "a number"}


@dataclasses.dataclass(frozen=True)
class Flag:
    """A setting as the command line has it."""

    name: str
    """As it is typed: --optim.lr, or RUN for one that is typed without a flag."""
    hint: Any
    positional: bool
    aliases: tuple[str, ...]
    """Other names, such as -k."""
    missing: bool
    """It has no value yet, and must be typed."""
    owner: type
    field: str
    """The dataclass that has it, and the name there."""

    @property
    def about(self) -> str:
        """The first sentence of its docstring."""
        return first_sentence(self.owner, self.field)

    @property
    def options(self) -> tuple[Any, ...]:
        """Types of a union, or the type alone."""
        of_types = typing.get_origin(self.hint) in (types.UnionType, typing.Union)
        return typing.get_args(self.hint) if of_types else (self.hint,)

    @property
    def several(self) -> bool:
        """Whether any number of values may follow it."""
        return any(typing.get_origin(hint) in (tuple, list, dict) for hint in self.options)

    def problem(self, value: str) -> str:
        """Say what is wrong with a value: "must be a whole number"; empty where nothing is."""
        known = [hint for hint in self.options if hint is not type(None)]
        if len(known) != 1 or (value == "None" and len(self.options) > 1):
            return ""
        (hint,) = known
        if typing.get_origin(hint) is tuple:
            hint = typing.get_args(hint)[0]
        if hint in NUMBERS:
            try:
                hint(value)
            except ValueError:
                return f"must be {NUMBERS[hint]}"
        if typing.get_origin(hint) is typing.Literal:
            words = [str(word) for word in typing.get_args(hint)]
            if value not in words:
                return (
                    f"must be one of {', '.join(filter(None, words))}{did_you_mean(value, words)}"
                )
        return ""


def check_flags(args: Sequence[str], config: type, default: Any) -> None:
    """Refuse flags that do not exist, values without a flag or of a wrong kind, missing flags.

    Args:
        args: what was typed after the command.
        config: the dataclass of its settings.
        default: an instance, with `tyro.MISSING` for each setting that must be typed.

    Raises:
        UserError: the first of them.
    """
    flags = {flag.name: flag for flag in flags_with_types(config, default)}
    places = [flag for flag in flags.values() if flag.positional]
    typed: set[str] = set()
    loose: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if is_flag(arg):
            typed.add(_check_flag(arg, rest, flags, config))
        else:
            loose.append(arg)
    needed = [f for f in flags.values() if f.missing and not f.positional and f.name not in typed]
    first = usual(needed[0].name, loose[0]) if needed and loose else ""
    room = any(place.several for place in places) or len(loose) <= len(places)
    require(room, _homeless(loose[len(places) :], first))
    short = [place for place in places if place.missing and not place.several]
    require(
        len(loose) >= len(short),
        f"{command_name()} needs {short[-1].name if short else ''}: {usage(config)}",
    )
    for flag in needed:
        raise UserError(f"{command_name()} needs {usual(flag.name)}. {flag.about}")


def _check_flag(arg: str, rest: list[str], flags: dict[str, Flag], config: type) -> str:
    """Check one flag, take its values off the rest, return its name."""
    typed, equals, value = arg.partition("=")
    aliases = {alias: flag.name for flag in flags.values() for alias in flag.aliases}
    name = aliases.get(typed, typed.replace("_", "-"))
    flag = flags.get(name) or flags.get(re.sub(r"(--|\.)no-", r"\1", name, count=1))
    if flag is None or flag.positional:
        places = any(flag.positional for flag in flags.values())
        more = usage(config) if places else f"{command_name()} --help-all lists them"
        raise UserError(f"there is no flag {typed}{_similar(name, flags)}; {more}")
    if flag.hint is bool:
        values = [value] if equals else [v for v in rest[:1] if v.lower() in ("true", "false")]
        off = re.sub(r"^(--(?:.*\.)?)(?=[^.]*$)", r"\1no-", flag.name)
        require(not values, f"{typed} takes no value: it is {flag.name} or {off}")
        return flag.name
    require(flag.name == name, f"there is no flag {typed}: {flag.name} takes a value")
    values = [value] if equals else _values(rest, flag)
    require(bool(values) or flag.several, f"{name} needs a value. {flag.about}")
    for value in values:
        problem = flag.problem(value)
        require(not problem, f"{name} {problem}, not {value!r}")
    return name


def is_flag(arg: str) -> bool:
    """Whether it is a flag, and not a value such as -0.5."""
    return re.match(r"--?[A-Za-z]", arg) is not None


def flags_with_types(config: Any, default: Any) -> Iterator[Flag]:
    """List every flag of a Config, those of its sections too."""
    for path, owner, field in every_setting(config):
        value = default
        for word in path.split("."):
            value = getattr(value, word, tyro.MISSING)
        full = typing.get_type_hints(owner, include_extras=True)[field]
        name, place = path.replace("_", "-"), bool(positional(owner, field))
        yield Flag(
            name=name.upper() if place else f"--{name}",
            hint=typing.get_type_hints(owner)[field],
            positional=place,
            aliases=tuple(
                alias
                for mark in typing.get_args(full)[1:]
                for alias in getattr(mark, "aliases", None) or ()
            ),
            missing=value is tyro.MISSING,
            owner=owner,
            field=field,
        )


def _values(rest: list[str], flag: Flag) -> list[str]:
    """Take the values that follow a flag off the rest."""
    values: list[str] = []
    while rest and not is_flag(rest[0]) and (flag.several or not values):
        values.append(rest.pop(0))
    return values


def _similar(name: str, flags: dict[str, Flag]) -> str:
    """Suggest flags: of the same name in sections, or one that is spelled nearly so."""
    known = [flag.name for flag in flags.values() if not flag.positional]
    inner = [flag for flag in known if flag.endswith(f".{name.lstrip('-')}")]
    if inner:
        outermost = min(flag.count(".") for flag in inner)
        likely = [repr(flag) for flag in inner if flag.count(".") == outermost]
        return f" (did you mean {' or '.join(likely[:3])}?)"
    words = {flag.lstrip("-"): flag for flag in known}
    near = difflib.get_close_matches(name.lstrip("-"), words, n=1, cutoff=0.75)
    return f" (did you mean {words[near[0]]!r}?)" if near else ""


def _homeless(values: list[str], needed: str) -> str:
    """Say that values stand behind no flag, and which flag they may have been meant for."""
    text = " ".join(values)
    return f"{text!r} follows no flag{f': write {needed}' if needed else ''}"
