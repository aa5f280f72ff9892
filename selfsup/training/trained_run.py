"""A finished run, as calls from Python return it."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from selfsup.core.process_state import preserve_process_state
from selfsup.encoders.bundle import Embedder, load_bundle


class TrainedRun(PathLike[str]):
    """A run folder: the encoder, settings, log and report of a finished run."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        """Point at a run folder; nothing is read yet."""
        self.folder = Path(folder)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder)!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, as in its config.yaml."""
        settings: dict[str, Any] = yaml.safe_load((self.folder / "config.yaml").read_text())
        return settings

    @property
    def log(self) -> list[dict[str, Any]]:
        """The figures of each interval, as in its log.jsonl."""
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]

    @property
    def outcome(self) -> list[str]:
        """Which encoder a fine-tuning exported and why, in sentences; empty of other runs."""
        file = self.folder / "validation.json"
        return list(json.loads(file.read_text())["sentences"]) if file.is_file() else []

    @preserve_process_state()
    def load(self) -> Embedder:
        """Load its encoder, see `selfsup.load`."""
        return load_bundle(str(self.folder))
