"""Passwords in addresses, which must not reach a terminal, a log or a file."""

import re

_USER = re.compile(r"(\b[a-z][a-z0-9+.-]+:/{1,2})[^\s/?#@'\"]+@", re.IGNORECASE)
_KEY = re.compile(
    r"((?:api[-_]?key|access[-_]?key|token|secret|password|passwd|signature|sig)=)[^\s&#'\"]+",
    re.IGNORECASE,
)


def without_passwords(text: str) -> str:
    """Hide users, passwords and keys of the addresses in a text.

    >>> without_passwords("no answer of http://me:pass@host:6333/?api_key=abc#faces")
    'no answer of http://***@host:6333/?api_key=***#faces'
    """
    return _KEY.sub(r"\1***", _USER.sub(r"\1***@", text))
