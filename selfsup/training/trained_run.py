"""A finished run, as calls from Python return it."""

from os import PathLike
from pathlib import Path
from typing import Any

from selfsup.core.json_files import read_json
from selfsup.core.json_lines import read_steps
from selfsup.core.process_state import preserve_process_state
from selfsup.core.yaml_files import read_yaml
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
        settings: dict[str, Any] = read_yaml(self.folder / "config.yaml")[1]
        return settings

    @property
    def log(self) -> list[dict[str, Any]]:
        """The figures of each interval, as in its log.jsonl."""
        return list(read_steps(self.folder / "log.jsonl"))

    @property
    def outcome(self) -> list[str]:
        """Which encoder a fine-tuning exported and why, in sentences; empty of other runs."""
        file = self.folder / "validation.json"
        return list(read_json(file)["sentences"]) if file.is_file() else []

    @preserve_process_state()
    def load(self) -> Embedder:
        """Load its encoder, see `selfsup.load`."""
        return load_bundle(str(self.folder))
