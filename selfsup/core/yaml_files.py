"""YAML that somebody else may have written: bounded in size, depth and aliases."""

import stat
from pathlib import Path
from typing import Any

import yaml

from selfsup.core.errors import UserError

MOST_BYTES = 1 << 20
MOST_VALUES = 10_000
"""Values of a document in which every alias is written out; a run has about a hundred."""
DEEPEST = 50


def read_yaml(file: Path) -> tuple[Any, Any]:
    """Read a file as a node tree (None if it is empty) and as plain values.

    Raises:
        UserError: it is no file that can be read, is no YAML, or expands to more than a person
            writes.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{file} is not a file: give a YAML file with settings")
        if status.st_size > MOST_BYTES:
            raise UserError(f"{file} has {status.st_size} bytes, more than {MOST_BYTES}")
        text = file.read_text()
    except OSError as error:
        raise UserError(f"cannot read --config {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    return parse_yaml(text, str(file))


def parse_yaml(text: str, where: str) -> tuple[Any, Any]:
    """Parse a text as a node tree and as plain values; `where` names it in an error.

    Raises:
        UserError: it is no YAML, or expands to more than a person writes.
    """
    try:
        _refuse_depth(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        count = 0 if tree is None else _expanded(tree, {}, 0)
        if count > MOST_VALUES:
            raise UserError(
                f"{where} expands to {count:.0e} values through its aliases, more than "
                f"{MOST_VALUES}: write values out instead of *aliases"
            )
        return tree, yaml.safe_load(text)
    except RecursionError:
        raise UserError(
            f"{where} is nested more than {DEEPEST} levels deep, or in itself; settings have 3"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-99-99
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def _refuse_depth(text: str) -> None:
    """Stop at the first bracket that is too deep: composing the tree would recurse.

    Raises:
        RecursionError: it is deeper than DEEPEST.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError


def _expanded(node: Any, counted: dict[int, int], depth: int) -> int:
    """Count the values of a tree whose aliases are written out, without writing them out.

    `[&a [x, x], *a]` has 2 + 2 words and 3 lists.

    Raises:
        RecursionError: it is deeper than DEEPEST, as one that holds itself is.
    """
    if depth > DEEPEST:
        raise RecursionError
    if id(node) not in counted:
        total = 1
        if isinstance(node, yaml.SequenceNode):
            total += sum(_expanded(child, counted, depth + 1) for child in node.value)
        elif isinstance(node, yaml.MappingNode):
            total += sum(_expanded(x, counted, depth + 1) for pair in node.value for x in pair)
        counted[id(node)] = total
    return counted[id(node)]
