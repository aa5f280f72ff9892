"""The one place that random numbers come from: every draw is a function of (seed, step, stream)."""

import hashlib
from typing import NamedTuple

import torch


def seed_for(seed: int, step: int, stream: str) -> int:
    """A seed of 63 bits for one stream of draws of one step.

    Hashing keeps streams independent where sums would collide: seed 0 at step 1 and seed 1 at
    step 0 share nothing.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, step: int, stream: str) -> torch.Generator:
    """A CPU generator at the start of that stream, so that devices do not change the draws."""
    return torch.Generator().manual_seed(seed_for(seed, step, stream))


class StepInfo(NamedTuple):
    """Where a run is: what else may vary is a function of this."""

    step: int
    """Steps done before this one."""
    total: int
    """Steps of the whole run."""
    seed: int
    """The run's."""

    @property
    def progress(self) -> float:
        """How much of the run is done, from 0 to 1."""
        return self.step / self.total

    def generator(self, stream: str) -> torch.Generator:
        """Random numbers of this step, the same on every process."""
        return generator(self.seed, self.step, stream)
