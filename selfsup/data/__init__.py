"""Images and labels by position: sources, decoding, samplers and the loader.

Nothing here knows of networks or losses.

>>> import numpy as np
>>> from selfsup.data import ShuffleSampler, python_source
>>> source = python_source([np.zeros((8, 8, 3), np.uint8)] * 6)
>>> sampler = ShuffleSampler(len(source), batch=4, seed=0)
>>> source.pixels(int(sampler(0)[0])).shape
(8, 8, 3)
"""

from selfsup.data.open import open_source
from selfsup.data.python_objects import python_source
from selfsup.data.samplers import PKSampler, ShuffleSampler, UnitSampler, WeightedSampler
from selfsup.data.sources import Source

__all__ = [
    "PKSampler",
    "ShuffleSampler",
    "Source",
    "UnitSampler",
    "WeightedSampler",
    "open_source",
    "python_source",
]
