"""Read every image once: what is broken, doubled, leaked between splits, and how large it all is.

    python tools/audit.py --data images/ --out audit.json
    python recipes/pretrain_simclr.py --data images/ --audit audit.json --mask-duplicates ...

Writes JSON for training, and a page beside it (audit.html) to look at.
"""

from dataclasses import dataclass

from selfsup.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Read every image once and write down what is wrong with it."""

    data: str
    """Images, as in training; a manifest's column `split` is looked at for leakage."""
    out: str = "audit.json"
    """Where findings go; the page goes beside it."""
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
    from rich.table import Table

    from selfsup.data.audit import audit, write_audit
    from selfsup.data.open import open_source
    from selfsup.errors import require
    from selfsup.progress import bar
    from selfsup.report.audit import audit_page, summary

    require(0 <= config.distance < 16, f"--distance must be 0 to 15 bits, not {config.distance}")
    require(config.workers > 0, f"--workers must be above 0, not {config.workers}")
    source = open_source(config.data, labels=config.labels)
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
    shown.write_text(audit_page(found, source), encoding="utf-8")
    table = Table(show_header=False, box=None)
    for line in summary(found):
        table.add_row(*line)
    console = Console()
    console.print(table)
    for name, why in list(found.bad.items())[:5]:
        console.print(f"bad: {name!r}: {why}", markup=False, highlight=False)
    console.print(f"{out} for --audit, {shown} to look at", markup=False, highlight=False)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
