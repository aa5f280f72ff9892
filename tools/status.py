"""What a run does now, or how it ended, and the command that goes on with it.

python tools/status.py runs/a
python tools/status.py runs/a --exit-code; test $? = 75 && scontrol requeue $SLURM_JOB_ID
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from selfsup.core.cli import leave
from selfsup.core.cli import run as launch
from selfsup.core.run_status import describe, exit_code, read


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a run does, or how it ended."""

    run: Positional[str]
    """The run folder."""
    exit_code: bool = False
    """Also end with the run's exit status, since launchers replace it by their own: 6 while it
    runs, 1 if it ended without a word."""


def main(config: Config) -> None:
    """Print the status."""
    status = read(Path(config.run))
    print(describe(status))
    if config.exit_code:
        leave(exit_code(status))


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
