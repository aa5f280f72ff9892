"""What a user did wrong, told in one sentence."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A wrong input: its text is one sentence with the numbers and the mend.

    The command line prints the sentence without a traceback and exits with status 2. Any other
    exception is a mistake of ours and keeps its traceback.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word, as a question in brackets, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def require(fits: bool, sentence: str) -> None:
    """Tell the user `sentence` unless a setting fits.

    Raises:
        UserError: it does not.
    """
    if not fits:
        raise UserError(sentence)
