"""Names of files and folders, as a user gives them."""

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from selfsup.core.disk import cannot_write, require_writable
from selfsup.core.errors import UserError, require
from selfsup.core.secrets import without_passwords


def exists(text: str) -> bool:
    """Whether there is a file or folder of this name, which may be too long for one."""
    try:
        return Path(text).exists()
    except OSError:
        return False


@contextlib.contextmanager
def long_names_told() -> Iterator[None]:
    """Turn the error of a name that no disk takes, wherever it is met, into a sentence.

    Raises:
        UserError: a name was too long.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        begin = str(error.filename)[:40]
        raise UserError(f"{begin}... is too long for the name of a file or folder") from None


def is_url(text: str) -> bool:
    """Whether a name begins with a file system's scheme, such as s3:// or https://.

    >>> is_url("s3://bucket/a.pack"), is_url("images/"), is_url("C://images")
    (True, False, False)
    """
    return re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def urls_in(text: str) -> list[str]:
    """List the URLs among the terms of "A + B * 2"."""
    terms = [term.strip().partition(" * ")[0] for term in text.split(" + ")]
    return [term for term in terms if is_url(term)]


def refuse_passwords(text: str) -> None:
    """Refuse URLs with a user, a password or a token: files and logs would keep them.

    Raises:
        UserError: without them.
    """
    for url in urls_in(text):
        require(
            without_passwords(url) == url,
            f"{url} has a password or a token in it, which config.yaml and logs would keep: give "
            "credentials by the environment (selfsup/data/README.md)",
        )


def run_in(folder: Path) -> Path:
    """Return the folder of a run, which `selfsup adapt` keeps inside its own as `run/`."""
    inside = folder / "run"
    own = (folder / "config.yaml").is_file()
    return inside if not own and (inside / "config.yaml").is_file() else folder


def check_output(folder: Path, *, mark: str, otherwise: str) -> None:
    """Refuse to write into a folder that holds something else.

    Args:
        folder: of --out, there or not.
        mark: a file that is in it if it may be written again.
        otherwise: what a folder without it is: "no run folder".

    Raises:
        UserError: it holds other files, or a file is where it or one of its parents would be.
    """
    there = check_no_file(folder, otherwise=otherwise)
    require(
        there != folder or (folder / mark).exists() or not any(folder.iterdir()),
        f"{folder} exists and is {otherwise}; choose another --out",
    )


def check_no_file(folder: Path, *, otherwise: str, flag: str = "--out") -> Path:
    """Refuse a folder where a file is in its way; return it, or its nearest parent that is there.

    Raises:
        UserError: a file is where it or one of its parents would be.
    """
    try:
        there = next(path for path in (folder, *folder.parents, Path()) if path.exists())
    except OSError as error:  # too long a name, or a folder that is shut
        raise cannot_write(folder, error.errno or 0, error) from None
    require(
        there.is_dir(),
        f"{folder} exists and is {otherwise}; choose another {flag}"
        if there == folder
        else f"{flag} {folder} cannot be made: {there} is a file; choose another {flag}",
    )
    return there


def check_file(file: Path, *, flag: str = "--out") -> None:
    """Refuse a file of a flag that cannot be written, before the work and not after.

    Raises:
        UserError: it is a folder, a file is where its folder would be, or nothing can be written
            there.
    """
    try:
        require(not file.is_dir(), f"{flag} {file} is a folder; name a file in it")
    except OSError as error:
        raise cannot_write(file, error.errno or 0, error) from None
    check_no_file(file.parent, otherwise="no folder", flag=flag)
    require_writable(file.parent)


def make_folder(folder: Path) -> None:
    """Make the folder of --out, which may be there already and hold anything.

    Raises:
        UserError: a file is in its way, or it cannot be written.
    """
    check_no_file(folder, otherwise="no folder")
    require_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
