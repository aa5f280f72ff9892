"""Read every image once: what is broken, duplicated, leaked between splits, and its size.

    python tools/audit.py --data images/ --out audit.json
    python recipes/pretrain_simclr.py --data images/ --audit audit.json --mask-duplicates ...

Writes JSON for training, and a page to look at (audit.html).
"""

from dataclasses import dataclass

from selfsup.config import CacheConfig
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Read every image once and write down what is wrong with it."""

    data: str
    """Images, as in training; duplicates across a manifest's column `split` are leaks."""
    out: str = "audit.json"
    """The audit; the page has the same name and ends in .html."""
    split: str = ""
    """Only the manifest's rows with this `split`, or a data set's."""
    channels: int = 3
    """Of the images; 3 reads all as RGB."""
    labels: str = "label"
    """The manifest's column with the labels; of folders "folder:1", the first, or "folder:-1"."""
    difference: float = 0.1
    """Largest difference of two near duplicates, as a fraction of their contrast, after they are
    aligned in place, size and light (data/alignment.py)."""
    workers: int = 2
    """Images that are read at a time."""
    cache: CacheConfig = CacheConfig()


def main(config: Config) -> None:
    """Read the images, write both files, print the summary."""
    from pathlib import Path

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from selfsup.core.errors import require
    from selfsup.core.live import doing
    from selfsup.core.progress import bar
    from selfsup.core.writer import only_writer
    from selfsup.data.alignment import Limits
    from selfsup.data.audit import audit, not_masked, write_audit
    from selfsup.data.open import open_source
    from selfsup.report.audit import audit_page, summary
    from selfsup.report.page import write_page

    require(0 < config.difference <= 0.3, f"--difference must be 0 to 0.3, not {config.difference}")
    require(config.workers > 0, f"--workers must be above 0, not {config.workers}")
    require(config.out.endswith(".json"), f"--out must end in .json, not {config.out!r}")
    doing("opening the images")
    source = open_source(
        config.data,
        split=config.split,
        labels=config.labels,
        channels=config.channels,
        cache=config.cache,
    )
    out = Path(config.out)
    page = out.with_suffix(".html")
    with only_writer(out.parent, f".{out.name}.writer.json"):
        with bar("reading the images", len(source)) as advance:
            report = audit(
                source,
                config.data,
                limits=Limits().scaled(config.difference),
                threads=config.workers,
                progress=advance,
            )
        doing("writing the page")
        write_audit(report, out)
        write_page(page, audit_page(report, source))
    table = Table(show_header=False, box=None)
    for line in summary(report):
        table.add_row(*map(escape, line))
    console = Console()
    console.print(table)
    if note := not_masked(report):
        console.print(f"warning: {note}", markup=False, highlight=False)
    for i in list(report.bad)[:5]:
        message = f"bad: {report.names[i]!r}: {report.bad[i]}"
        console.print(message, markup=False, highlight=False)
    console.print(f"{out} for --audit, {page} to look at", markup=False, highlight=False)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
