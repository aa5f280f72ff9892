"""Small exported encoders, for runs that need a teacher."""

import hashlib
from pathlib import Path

import torch

from selfsup.config import EncoderConfig, ViewsConfig
from selfsup.encoders.encoder import build, export

SMALL = "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 12], layers: [1, 1, 1, 1]}"
VIEW = ViewsConfig(size=24, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bilinear")
"""Another view than that of any student here."""


def teacher(folder: Path, *, seed: int = 0, views: ViewsConfig = VIEW) -> Path:
    """Write an encoder of width 12 with random weights, and return its folder."""
    torch.manual_seed(seed)
    encoder = build(
        EncoderConfig(name="resnet18", stem="standard", args=SMALL),
        views.size,
        channels=views.channels,
    )
    export(encoder, folder, views)
    return folder


def exported(root: Path, out: str) -> str:
    """The digest of a run's exported weights."""
    return hashlib.sha256((root / out / "encoder" / "model.safetensors").read_bytes()).hexdigest()
