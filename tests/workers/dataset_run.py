"""Pretraining on a torch Dataset: `dataset_run.py OUT STEPS`."""

import sys

import numpy as np
from torch.utils.data import Dataset
from workers.calls import SMALL

import selfsup


class Squares(Dataset[np.ndarray]):
    """Grey squares on noise."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, position: int) -> np.ndarray:
        image = np.random.default_rng(position).integers(0, 99, (20, 24, 3), dtype=np.uint8)
        image[position % 8 : position % 8 + 9, 4:13] += np.uint8(100)
        return image


if __name__ == "__main__":
    flags = SMALL | {"steps": int(sys.argv[2]), "log_every": 1, "save_every": 3, "workers": 2}
    selfsup.pretrain(Squares(), out=sys.argv[1], method="byol", batch=8, **flags)
