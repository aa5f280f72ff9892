"""Passwords in addresses, which must not reach a terminal, a log or a file."""

import re

_SCHEME = r"((?<![\w+.-])[a-z][a-z0-9+.-]{1,30}:/{1,2})"
_USER = re.compile(
    _SCHEME + r"(?:[^\s/?#'\"]{1,200}|[^\s/?#:'\"]{0,200}:[^\s?#'\"]{1,300})@", re.IGNORECASE
)
_KEY = re.compile(
    r"((?:(?:api|access)[-_]?key|token|secret|password|passwd|signature|sig)="
    r"|--[\w.-]{0,40}(?:key|token|secret|password|passwd)[ =])[^\s&#'\"]+",
    re.IGNORECASE,
)


def without_passwords(text: str) -> str:
    """Hide users, passwords and keys of the addresses in a text.

    >>> without_passwords("no answer of http://me:pass@host:6333/?api_key=abc#faces")
    'no answer of http://***@host:6333/?api_key=***#faces'
    >>> without_passwords("http://me:p@ss/w@host --api-key abc")
    'http://***@host --api-key ***'
    """
    return _KEY.sub(r"\1***", _USER.sub(r"\1***@", text))
