"""Counts of what an epoch of batches holds, drawn before training."""

from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.data.samplers import Sampler
from selfsup.losses.relations import Relations


class Span(NamedTuple):
    """The smallest and the largest of a count."""

    low: int
    high: int

    def __str__(self) -> str:
        """One number where both are the same."""
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


class Census(NamedTuple):
    """Counts over one epoch."""

    steps: int
    images: int
    """Of the source."""
    unseen: int
    """Images in no batch."""
    repeated: int
    """Repetitions of an image within a batch."""
    classes: Span
    """Of a batch."""
    anchors: Span
    """Of a batch, with a positive and a negative."""
    positives: Span
    """Of an anchor."""
    negatives: Span
    """Of an anchor."""


def census(sampler: Sampler, labels: Tensor) -> Census:
    """Count over the first epoch of `sampler`, of images with `labels` [n]."""
    seen = torch.zeros(len(labels), dtype=torch.bool)
    repeated = 0
    counts: dict[str, list[Tensor]] = {n: [] for n in ("classes", "anchors", "pos", "neg")}
    for step in range(sampler.steps_per_epoch):
        positions = sampler(step)
        seen[positions] = True
        repeated += len(positions) - len(positions.unique())
        positives, negatives = Relations(labels[positions]).counts()
        counts["classes"].append(labels[positions].unique().numel() * torch.ones(1))
        counts["anchors"].append(((positives > 0) & (negatives > 0)).sum()[None])
        counts["pos"].append(positives)
        counts["neg"].append(negatives)
    spans = [Span(int(x.min()), int(x.max())) for x in map(torch.cat, counts.values())]
    return Census(sampler.steps_per_epoch, len(labels), int((~seen).sum()), repeated, *spans)
