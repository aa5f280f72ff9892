"""The one place that random numbers come from: every draw is a function of (seed, step, stream)."""

import hashlib

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
