"""Results: a table for the eye and a JSON file for the record."""

import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import selfsup
from selfsup.cli import to_dict
from selfsup.config import EvaluateConfig
from selfsup.distributed import is_main
from selfsup.errors import UserError
from selfsup.evaluate.intervals import Figure
from selfsup.evaluate.subject import Subject


def report(
    tool: str,
    subject: Subject,
    config: EvaluateConfig,
    figures: dict[str, Figure],
    facts: dict[str, Any],
) -> None:
    """Print the figures with what they mean, and write them beside the run.

    Args:
        tool: its name, for the file.
        subject: what was evaluated.
        config: with which settings.
        figures: by name.
        facts: numbers of images, what was left out, what was chosen.
    """
    if not is_main():
        return
    table = Table(title=f"{tool}: {subject.name}", title_justify="left")
    table.add_column("figure")
    table.add_column("value [95 % interval]", justify="right")
    for name, value in figures.items():
        table.add_row(name, str(value))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    file = Path(config.out) if config.out else _beside(tool, subject)
    record = {
        "tool": tool,
        "model": subject.name,
        "figures": {name: value._asdict() for name, value in figures.items()},
        "facts": facts,
        "settings": to_dict(config),
        "selfsup": selfsup.__version__,
    }
    try:
        file.write_text(json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    console.print(f"written to {file}", highlight=False, soft_wrap=True)


def _beside(tool: str, subject: Subject) -> Path:
    """In the run folder; for other models here, under the model's name."""
    if subject.folder is not None:
        return subject.folder / f"{tool}.json"
    return Path(f"{tool}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', subject.name).strip('-')}.json")
