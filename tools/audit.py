"""Read every image once: what is broken, doubled, leaked between splits, and how large it all is.

    python tools/audit.py --data images/ --out audit.json
    python recipes/pretrain_simclr.py --data images/ --audit audit.json --mask-duplicates ...

Writes JSON for training, and a page beside it (audit.html) to look at.
"""

from dataclasses import dataclass

from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Read every image once and write down what is wrong with it."""

    data: str
    """Images, as in training; a manifest's column `split` is looked at for leakage."""
    out: str = "audit.json"
    """Where findings go; the page goes beside it."""
    split: str = ""
    """Only the manifest's rows with this `split`, or a data set's."""
    channels: int = 3
    """Of the images; 3 reads all as RGB."""
    labels: str = "label"
    """The manifest's column with the labels."""
    distance: int = 4
    """Bits of 64 in which near duplicates may differ (their difference hashes)."""
    workers: int = 2
    """Images read at a time."""


def main(config: Config) -> None:
    """Read, write, tell."""
    from pathlib import Path

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from selfsup.core.errors import require
    from selfsup.core.progress import bar
    from selfsup.data.audit import audit, write_audit
    from selfsup.data.open import open_source
    from selfsup.report.audit import audit_page, summary
    from selfsup.report.page import write_page

    require(0 <= config.distance < 16, f"--distance must be 0 to 15 bits, not {config.distance}")
    require(config.workers > 0, f"--workers must be above 0, not {config.workers}")
    require(config.out.endswith(".json"), f"--out must end in .json, not {config.out!r}")
    source = open_source(
        config.data, split=config.split, labels=config.labels, channels=config.channels
    )
    with bar("images", len(source)) as advance:
        found = audit(
            source,
            config.data,
            distance=config.distance,
            threads=config.workers,
            progress=advance,
        )
    out = Path(config.out)
    write_audit(found, out)
    shown = out.with_suffix(".html")
    write_page(shown, audit_page(found, source))
    table = Table(show_header=False, box=None)
    for line in summary(found):
        table.add_row(*map(escape, line))
    console = Console()
    console.print(table)
    for i in list(found.bad)[:5]:
        told = f"bad: {found.names[i]!r}: {found.bad[i]}"
        console.print(told, markup=False, highlight=False)
    console.print(f"{out} for --audit, {shown} to look at", markup=False, highlight=False)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
