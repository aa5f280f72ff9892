"""Random views: drawn for the global batch from (seed, step), cropped, and applied on the device.

Here is no file, no source and no sampler: see `selfsup.data`.

>>> import torch
>>> from selfsup.augment import random_views
>>> (views,) = random_views(torch.zeros(2, 3, 40, 40, dtype=torch.uint8), seed=0)
>>> views.shape
torch.Size([2, 2, 3, 40, 40])
"""

from selfsup.augment.draws import Change
from selfsup.augment.views import random_views

__all__ = ["Change", "random_views"]
