"""Mining: which triplets or pairs of a batch to learn from.

A miner returns index tensors and has no gradient; a loss of `selfsup.losses` takes them.
"""

from selfsup.mining.distances import (
    all_triplets,
    batch_easy_hard,
    batch_hard,
    semi_hard,
    semi_hard_all,
)
from selfsup.mining.multi_similarity import multi_similarity_pairs
from selfsup.mining.sampled import distance_weighted, random_triplets

__all__ = [
    "all_triplets",
    "batch_easy_hard",
    "batch_hard",
    "distance_weighted",
    "multi_similarity_pairs",
    "random_triplets",
    "semi_hard",
    "semi_hard_all",
]
