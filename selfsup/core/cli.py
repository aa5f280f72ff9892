"""The command line: a Config from a YAML file and flags, and errors in one sentence.

Nothing here imports torch: help has to come at once.
"""

import atexit
import dataclasses
import io
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import Any, TypeVar

import tyro

from selfsup.core.ending import announced
from selfsup.core.errors import UserError, require
from selfsup.core.first_error import say_first, status_of_first
from selfsup.core.flags import check_flags
from selfsup.core.help import short_help
from selfsup.core.live import live
from selfsup.core.memory import shortage_named
from selfsup.core.paths import long_names_told, urls_in
from selfsup.core.processors import APPLE_FALLBACK, asked_device
from selfsup.core.settings import checked, line_of, to_dict, with_values
from selfsup.core.stopping import (
    INTERRUPTED,
    STOPPED,
    StopRequested,
    handled,
    say_if_late,
    watch_parent,
)
from selfsup.core.synonyms import refuse_synonyms
from selfsup.core.yaml_files import read_yaml

C = TypeVar("C")
USER_ERRORS = range(2, 7)
"""Exit statuses of what a user can mend: see the classes in `core/errors.py`."""


def run(main: Callable[[C], None], config: type[C], args: Sequence[str] | None = None) -> None:
    """Parse the command line, call `main` and leave the process with its exit status."""
    leave(attempt(lambda: main(parse(config, sys.argv[1:] if args is None else args))))


def leave(status: int) -> None:
    """End the process with that exit status; after 0 it goes on, its process group closed."""
    if status in USER_ERRORS or status in (STOPPED, INTERRUPTED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # reader processes and process groups must not delay the answer
    if status:
        sys.exit(status)
    if "torch" in sys.modules:
        from selfsup.core.distributed import finish

        finish()


def end() -> None:
    """End the process with status 0, without the seconds that it takes to take torch apart."""
    if "torch" in sys.modules:
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:  # nobody reads any more
            os._exit(141)
        os._exit(0)


def attempt(work: Callable[[], None]) -> int:
    """Call `work` and return an exit status: 0, that of a UserError, 75 or 130 if it was stopped.

    141 where standard output is a pipe that nobody reads any more.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files may hold any bytes
    if asked_device() == "mps":
        os.environ.setdefault(APPLE_FALLBACK, "1")
    watch_parent()
    try:
        with live(), handled(), announced(), shortage_named(), long_names_told():
            work()
            say_if_late()
    except UserError as error:
        say_first(f"error: {error}", error.status)
        return error.status
    except RuntimeError:
        first = status_of_first()  # a connection that is closed has a cause on another process
        if first is None:
            raise
        return first
    except KeyboardInterrupt:
        return INTERRUPTED
    except StopRequested as request:
        if os.environ.get("RANK", "0") == "0":
            print(f"stopped by {Signals(request.signum).name}", file=sys.stderr, flush=True)
        return STOPPED
    except BrokenPipeError:  # `selfsup knn --help | head`: nobody reads the rest
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (python flushes it when it ends)
        return 141
    return 0


def parse(config: type[C], args: Sequence[str], defaults: Mapping[str, Any] | None = None) -> C:
    """Make a Config from `args`: flags first, then the file of `--config`, then `defaults`.

    Raises:
        UserError: the file is missing, is no YAML, or has a key or value that does not fit; or a
            flag does not exist, is what another tool calls one of ours, lacks its value or is
            missing.
        SystemExit: help was asked for (0), or tyro refused a value (2); it is printed.
    """
    args = list(args)
    if {"-h", "--help"} & set(args):
        print(short_help(config))
        raise SystemExit(0)
    file = take(args, "--config")
    values = read_settings(Path(file), config) if file is not None else {}
    refuse_synonyms(args, config)
    base = with_values(config, defaults or {})
    default: C = with_values(config, values, missing=tyro.MISSING, base=base)
    about = f"{config.__doc__}\n\n--config FILE.yaml reads settings from a file; flags override it."
    if "--help-all" not in args:
        check_flags(args, config, default)
    args = ["--help" if arg == "--help-all" else arg for arg in args]
    parsed = tyro.cli(config, args=args, default=default, description=about)
    if file is not None:
        _require_named_urls(values, to_dict(parsed), args, f"{file} names", "--")
    return parsed


def _require_named_urls(
    values: Mapping[str, Any], used: Mapping[str, Any], args: Sequence[str], start: str, flag: str
) -> None:
    """Refuse a URL that only a file of settings names: one from elsewhere must fetch nothing.

    Raises:
        UserError: the URL is used, and no flag names it.
    """
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(used.get(name), dict):
            _require_named_urls(value, used[name], args, start, f"{flag}{name}.")
        elif isinstance(value, str) and value == used.get(name):
            for url in urls_in(value):
                require(
                    any(url in arg for arg in args),
                    f"{start} {url}, and nothing is fetched because a file names it: give "
                    f"{flag}{name.replace('_', '-')} {value!r} as well",
                )


def from_file(config: type[C], file: Path) -> C:
    """Read the settings of a file that `config` has; others, such as a method's, are ignored.

    Raises:
        UserError: the file is missing, is no YAML, lacks a required setting or has a value that
            does not fit.
    """
    settings: C = with_values(config, read_settings(file, config, strict=False))
    for field in dataclasses.fields(typing.cast(Any, config)):
        if getattr(settings, field.name) is dataclasses.MISSING:
            raise UserError(f"{file} has no setting {field.name!r}")
    return settings


def read_settings(file: Path, config: type, *, strict: bool = True) -> dict[str, Any]:
    """Read a file's settings, each checked against the Config's fields.

    Unknown ones are refused if `strict`, else left out.
    """
    tree, values = read_yaml(file)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold settings as `name: value`, one a line")
    return checked(
        values,
        config,
        place=lambda path: f"{file}, line {line_of(tree, path)}: ",
        strict=strict,
    )


def take(args: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from `args` and return the value.

    Raises:
        UserError: the flag is there twice, or without a value.
    """
    found = [i for i, arg in enumerate(args) if arg.split("=")[0] == flag]
    if not found:
        return None
    require(len(found) == 1, f"{flag} is given {len(found)} times: give it once")
    arg = args.pop(found[0])
    if "=" in arg:
        return arg[len(flag) + 1 :]
    require(found[0] < len(args), f"{flag} needs a value")
    return args.pop(found[0])
