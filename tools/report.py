"""One page on a run: is it good, what has it learnt, where does it fail, how was it trained.

python tools/report.py runs/simclr
python tools/report.py runs/simclr runs/byol --out both.html
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """One HTML file that needs nothing else: of one run, or of several side by side."""

    runs: Positional[tuple[str, ...]]
    """Run folders."""
    data: str = ""
    """Images to show, labelled or not; by default some that training has not seen, if there are
    any: of --probe.data, an evaluation, or the held-out classes."""
    split: str = ""
    """Only the manifest's rows with this `split`."""
    labels: str = "label"
    """The manifest's column with the labels; of folders "folder:1", the first, or "folder:-1"."""
    most: int = 3000
    """Images that are embedded, at most."""
    map: bool = True
    """Lay the map out by t-SNE; else by PCA, at once."""
    seed: int = 0
    """Of the choice of images."""
    out: str = ""
    """The page; by default report.html in the run's folder, or here for several."""
    open: bool = False
    """Open the page in the browser."""


def main(config: Config) -> None:
    """Write the page and print its size."""
    from selfsup.report.page import open_page
    from selfsup.report.sections import write_report

    out = write_report(
        [Path(folder) for folder in config.runs],
        out=Path(config.out) if config.out else None,
        data=config.data,
        split=config.split,
        labels=config.labels,
        most=config.most,
        tsne=config.map,
        seed=config.seed,
    )
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    if config.open:
        open_page(out)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
