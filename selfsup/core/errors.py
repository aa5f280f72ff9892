"""Errors in a user's input, reported in one sentence."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from selfsup.core.secrets import without_passwords


class UserError(ValueError):
    """A wrong input. The text says what is wrong, the number, and what to do.

    The command line prints it without a traceback and exits with `status`. Any other exception is
    a bug in selfsup and is printed with its traceback.
    """

    status: ClassVar[int] = 2

    def __init__(self, *words: object) -> None:
        """Hide passwords that addresses in the sentence may have."""
        super().__init__(*(without_passwords(w) if isinstance(w, str) else w for w in words))


class UnusableError(UserError):
    """Data or a checkpoint that cannot be used as it is."""

    status = 3


class DivergedError(UserError):
    """Training diverged or collapsed."""

    status = 4


class NoRoomError(UserError):
    """A disk or a memory is full."""

    status = 5


class InUseError(UserError):
    """Another process writes there."""

    status = 6


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Suggest the most similar option: " (did you mean 'seed'?)", or "" if none is similar."""
    similar = difflib.get_close_matches(word, list(options), n=1)
    return f" (did you mean {similar[0]!r}?)" if similar else ""


def require(condition: bool, sentence: str) -> None:
    """Raise a UserError with `sentence` unless the condition holds.

    Raises:
        UserError: the condition is false.
    """
    if not condition:
        raise UserError(sentence)


@contextmanager
def flags_renamed(old: str, new: str) -> Iterator[None]:
    """Name a flag in the UserErrors of this block as the user typed it.

    Example: an encoder that is opened as `--init x` stands for `--method.teacher x`.
    """
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(old, new)) from None
