"""File systems of fsspec: opened once in a process, tried again when a connection breaks.

A file system has a thread and connections that a forked process must not touch: each process opens
its own, when it first reads. Credentials come from the environment or from the file system's own
configuration.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from selfsup.core.errors import UnusableError, UserError
from selfsup.core.secrets import without_passwords

T = TypeVar("T")
WAITS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between the tries of a range, half a minute in all."""
OPENING_WAITS = WAITS[:3]
"""The same where a file is opened, so that a wrong name is told in seconds."""
OPENING_SECONDS = 5.0
"""No try of opening begins later: S3's client has tries of its own within each of ours."""
CONNECT, SILENCE = 10.0, 60.0
"""Seconds until an HTTP server has taken a connection, and between two of its packets."""
GONE, REFUSED = {404, 410}, {400, 401, 403, 405, 407, 451}
INSTALL = {"s3": "'selfsup[remote]'", "http": "'selfsup[remote]'", "https": "'selfsup[remote]'"}
_opened: dict[tuple[int, str], Any] = {}
"""File systems by process and start of the URL. Those of a parent stay here for ever: to end one
would take its connections out of the parent's loop."""


class Place(NamedTuple):
    """Where bytes are: a file system of fsspec, and the path in it."""

    system: Any
    path: str


def place_of(url: str) -> Place:
    """Open the file system of a URL, once in a process.

    Raises:
        UserError: there is none of that scheme, or its package is missing.
    """
    scheme = url.strip().partition("://")[0].lower()
    try:
        import fsspec
    except ImportError:
        raise UserError(f"{url} needs fsspec: pip install 'selfsup[remote]'") from None
    start = (os.getpid(), f"{scheme}://{urlsplit(url).netloc}")
    try:
        if start not in _opened:
            _opened[start] = fsspec.core.url_to_fs(url, **_options(scheme))[0]
        return Place(_opened[start], _opened[start]._strip_protocol(url))
    except ImportError as error:
        package = INSTALL.get(scheme)
        hint = f": pip install {package}" if package else ""
        raise UserError(f"{url} cannot be read ({error}){hint}") from None
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{url} cannot be read: {_first_line(error)}") from None


def _options(scheme: str) -> dict[str, Any]:
    """Time limits of HTTP; what the user has configured goes before them."""
    if scheme not in ("http", "https"):
        return {}
    import aiohttp
    import fsspec

    theirs = dict(fsspec.config.conf.get(scheme, {}).get("client_kwargs", {}))
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    # compressed answers would have other lengths than the file
    headers = {"Accept-Encoding": "identity", **theirs.pop("headers", {})}
    return {"client_kwargs": {"timeout": limits, **theirs, "headers": headers}}


def list_urls(url: str) -> list[str]:
    """List the URLs of what lies in a folder of a server, in the order of their bytes.

    Raises:
        UserError: it cannot be listed.
    """
    base = url.rstrip("/")

    def names() -> list[str]:
        place = place_of(base + "/")
        place.system.invalidate_cache()
        return [str(name) for name in place.system.ls(place.path, detail=False)]

    paths = tried(without_passwords(url), names, OPENING_WAITS)
    place = place_of(base + "/")
    inside = str(place.path).rstrip("/") + "/"
    # a page of links may lead elsewhere
    kept = {path[len(inside) :] for path in paths if path.startswith(inside)}
    return [f"{base}/{name}" for name in sorted(kept, key=os.fsencode) if name and "/" not in name]


def facts_of(url: str) -> dict[str, Any]:
    """Ask the server for a file's size, and its version if it has one."""
    place = place_of(url)
    place.system.invalidate_cache()  # else the answer may be one of long ago
    facts: dict[str, Any] = place.system.info(place.path)
    return facts


def version_of(facts: Mapping[str, Any]) -> str:
    """Return what the server says that changes with the content: an ETag, else a time."""
    names = ("ETag", "etag", "md5Hash", "crc32c", "LastModified", "Last-Modified", "mtime")
    return next((str(facts[name]) for name in names if facts.get(name)), "")


def tried(what: object, work: Callable[[], T], waits: Sequence[float]) -> T:
    """Call `work`, and again after each of `waits` while connections break.

    Raises:
        UserError: with the reason.
    """
    began = time.monotonic()
    for tries, wait in enumerate((*waits, None), start=1):
        try:
            return work()
        except UserError:
            raise
        except Exception as error:
            kind = kind_of(error)
            if kind == "gone":
                raise UserError(f"{what} does not exist on its server") from None
            if kind == "refused":
                raise refused(str(what), error) from None
            if wait is None or time.monotonic() - began > OPENING_SECONDS:
                then = "check the address and the network"
                raise unreachable(str(what), error, tries, then=then) from None
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def kind_of(error: BaseException) -> str:
    """What an error of a file system means: gone, refused or broken."""
    answer = getattr(error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None  # botocore's
    status = getattr(error, "status", None)
    if status in GONE or code in ("NoSuchBucket", "NoSuchKey"):
        return "gone"
    if status in REFUSED or isinstance(error, PermissionError):
        return "refused"
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "RefreshError"):
        return "refused"
    if isinstance(error, FileNotFoundError):  # HTTP's stands for anything that goes wrong
        return "gone" if error.__cause__ is None else kind_of(error.__cause__)
    return "broken"


def refused(what: str, error: BaseException) -> UserError:
    """Make the error of a file that this user may not read."""
    return UserError(
        f"{what} may not be read ({_first_line(error)}): give credentials by the environment, as "
        "selfsup/data/README.md says"
    )


def unreachable(what: str, error: BaseException, tries: int, *, then: str) -> UserError:
    """Make the error of a connection that broke at every try; `then` says what to do."""
    count = "1 try" if tries == 1 else f"{tries} tries"
    return UnusableError(f"{what} cannot be read after {count} ({_first_line(error)}); {then}")


def _first_line(error: BaseException) -> str:
    """The reason in few words, without passwords of addresses in it."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    text = " ".join(str(error).split()) or type(error).__name__
    return without_passwords(text if len(text) <= 200 else f"{text[:200]}...")
