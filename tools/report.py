"""One page on a run: verdict, curves, views, neighbours, map, figures, data, settings.

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
    """Images to show, labelled or not; by default those of --probe.data, else of training."""
    split: str = ""
    """Only the manifest's rows with this `split`."""
    labels: str = "label"
    """The manifest's column with the labels."""
    most: int = 3000
    """Images that are embedded, at most."""
    map: bool = True
    """Lay the map out by t-SNE; else by PCA, at once."""
    seed: int = 0
    """Of the choice of images."""
    out: str = ""
    """The page; by default report.html in the run's folder, or here for several."""


def main(config: Config) -> None:
    """Read the runs, write the page."""
    from selfsup.core.errors import require
    from selfsup.report.page import write_page
    from selfsup.report.run import read_run, report
    from selfsup.report.sections import image_sections

    require(bool(config.runs), "give a run folder")
    require(config.most > 1, f"--most must be above 1, not {config.most}")
    runs = [read_run(Path(folder)) for folder in config.runs]
    more: list[str] = []
    if len(runs) == 1:
        more = image_sections(
            runs[0],
            data=config.data,
            split=config.split,
            labels=config.labels,
            most=config.most,
            tsne=config.map,
            seed=config.seed,
        )
    default = runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html")
    out = Path(config.out) if config.out else default
    write_page(out, report(runs, more))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
