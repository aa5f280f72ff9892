"""Write many images to one file that is mapped and read at any position.

    python tools/pack.py --data images/ --out images.pack --side 256
    python tools/pack.py --check images.pack

The same command resumes after a stop. Images that cannot be read are left out and listed.
"""

from dataclasses import dataclass
from typing import Literal

from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write many images to one file that is mapped and read at any position."""

    data: str = ""
    """Images, as in training."""
    out: str = ""
    """The file to write, ending in .pack."""
    side: int | None = None
    """Shrink images whose shorter side is longer, to this; by default none."""
    format: Literal["jpeg", "raw"] = "jpeg"
    """JPEG, or raw levels: several times larger, and twice as quick to read."""
    quality: int = 90
    """Of JPEG."""
    split: str = ""
    """Only the manifest's rows with this `split`."""
    labels: str = "label"
    """The manifest's column with the labels; of folders "folder:1", the first, or "folder:-1"."""
    channels: int = 3
    """Of the images; 3 reads all as RGB. Others are packed raw."""
    workers: int = 2
    """Images that are encoded at a time."""
    check: str = ""
    """Instead of writing, compare every image of this pack with its sha256."""


def main(config: Config) -> None:
    """Write a pack, or check one."""
    from pathlib import Path

    from selfsup.core.errors import UserError, require
    from selfsup.core.progress import bar
    from selfsup.core.words import counted
    from selfsup.data.encode import Style
    from selfsup.data.open import open_source
    from selfsup.data.pack import Pack
    from selfsup.data.pack_writer import check_pack, write_pack

    if config.check:
        changed = check_pack(Path(config.check))
        if changed:
            names = ", ".join(changed[:5])
            raise UserError(f"{counted(len(changed), 'image')} of {config.check} changed: {names}")
        print(f"{config.check}: all {len(Pack(Path(config.check)))} images are unchanged")
        return
    require(bool(config.data), "--data names the images to pack")
    require(config.out.endswith(".pack"), f"--out must end in .pack, not {config.out!r}")
    require(config.side is None or config.side > 0, f"--side must be above 0, not {config.side}")
    require(1 <= config.quality <= 95, f"--quality must be 1 to 95, not {config.quality}")
    require(config.workers > 0, f"--workers must be above 0, not {config.workers}")
    source = open_source(
        config.data, split=config.split, labels=config.labels, channels=config.channels
    )
    style = Style(config.format, config.side, config.quality)
    with bar("packing", len(source)) as advance:
        bad = write_pack(source, Path(config.out), style, threads=config.workers, progress=advance)
    pack = Pack(Path(config.out))
    size = Path(config.out).stat().st_size
    print(f"{config.out}: {counted(len(pack), 'image')}, {size / 2**20:.1f} MB, {bad} left out")
    for name, why in pack.contents["bad"][:5]:
        print(f"bad: {name!r}: {why}")


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
