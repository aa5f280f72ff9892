"""Test images that train knows already: looked for once, whichever models are measured."""

from typing import Any

from torch import Tensor

from selfsup.config import EvaluateConfig
from selfsup.data.open import open_source
from selfsup.evaluate.features import Features
from selfsup.evaluate.leaks import Leaks, leaks
from selfsup.evaluate.subject import Subject
from selfsup.progress import bar


class KnownImages:
    """Those among the images that are asked about."""

    def __init__(self, config: EvaluateConfig, asked: str, split: str) -> None:
        """Of the images `asked`, or of that split of the data; none where both are empty."""
        self.config, self.asked, self.split = config, asked, split
        self.found: Leaks | None = None
        self.channels = 3

    def of(self, subject: Subject) -> None:
        """Images are opened with the channels that this model takes."""
        self.channels = subject.views.channels

    def clean(self, queries: Features) -> tuple[Tensor | None, dict[str, Any]]:
        """Which queries are in train neither by bytes nor by looks, bool [q], and what to say."""
        if not self.config.leaks or not (self.asked or self.split):
            return None, {}
        if self.found is None:
            config = self.config
            first, second = (
                open_source(data, split=split, labels=config.labels, channels=self.channels)
                for data, split in (
                    (config.data, config.split),
                    (self.asked or config.data, self.split),
                )
            )
            with bar("leakage", len(first) + len(second), shown=True) as advance:
                self.found = leaks(first, second, progress=advance)
        return ~self.found.near[queries.positions], self.found.facts()
