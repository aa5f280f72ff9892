"""Presets: the length of a run, the encoder and the size of views where a command names none."""

from dataclasses import dataclass
from typing import Literal

from selfsup.config.encoder import EncoderConfig
from selfsup.config.views import LARGEST_SIDE

Preset = Literal["", "quick", "standard", "thorough"]


@dataclass(frozen=True, kw_only=True)
class Length:
    """Number of epochs, and how many steps these may be."""

    epochs: int
    least: int
    """Steps below which a run learns little: few images are used more often."""
    most: int
    """Steps above which more epochs bring little: many images are used less often."""

    def epochs_of(self, steps_per_epoch: int) -> int:
        """Return how many epochs of so many steps a run has.

        >>> length = Length(epochs=200, least=2000, most=500_000)
        >>> [length.epochs_of(steps) for steps in (4, 195, 5000)]
        [500, 200, 100]
        """
        steps = self.epochs * steps_per_epoch
        if steps < self.least:
            return -(-self.least // steps_per_epoch)
        return max(1, min(steps, self.most) // steps_per_epoch)


PRETRAIN = {
    "quick": Length(epochs=50, least=300, most=1000),
    "standard": Length(epochs=200, least=2000, most=500_000),
    "thorough": Length(epochs=800, least=10_000, most=1_500_000),
}
"""Published: 200 to 1,000 epochs of CIFAR-10 (39,000 to 195,000 steps of 256 images), 800 of
Imagenette's 9,469 images (29,600), 100 to 300 of ImageNet (500,000 to 1,500,000)."""
FINETUNE = {
    "quick": Length(epochs=10, least=100, most=500),
    "standard": Length(epochs=50, least=300, most=50_000),
    "thorough": Length(epochs=150, least=1000, most=150_000),
}
"""Of batches of 64 images: the tables in recipes/README.md are of 120 to 300 steps of a few hundred
images; published are 50 to 150 epochs of CUB's 5,864 images (4,600 to 13,700 steps)."""
ADAPT = {
    "quick": Length(epochs=5, least=50, most=300),
    "standard": Length(epochs=20, least=200, most=20_000),
    "thorough": Length(epochs=60, least=600, most=60_000),
}
"""As fine-tuning, and shorter: the encoder knows much already."""


def preset_encoder(preset: Preset, device: str) -> EncoderConfig:
    """Return the network where a method takes any: a small one on a CPU, if it should be quick."""
    if preset == "quick" and device == "cpu":
        return EncoderConfig(name="test_resnet", stem="standard")
    if preset == "thorough" and device != "cpu":
        return EncoderConfig(name="resnet50")
    return EncoderConfig(name="resnet18")


def largest_side(preset: Preset, device: str) -> int:
    """Return the largest side in pixels of views whose size follows from the images."""
    if preset == "quick":
        return 32 if device == "cpu" else 64
    return 224 if preset == "thorough" and device != "cpu" else LARGEST_SIDE
