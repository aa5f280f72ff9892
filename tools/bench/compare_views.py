"""Compare training on these views and on torchvision's transforms: k-NN after short runs.

    python tools/bench/compare_views.py --data data/cifar10/train.npz --test data/cifar10/test.npz

SimCLR from the same weights, on the same images in the same order; only the code of the views
differs, and with it their random numbers. Prints each seed's accuracy on the test images.
"""

import contextlib
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from selfsup.core.cli import run as launch

SIZE, STRENGTH = 32, 0.5


@dataclass(frozen=True, kw_only=True)
class Config:
    """Compare training on these views and on torchvision's transforms."""

    data: str
    """Images to train on, with labels for k-NN."""
    test: str
    """Labelled images for the figures."""
    out: str = "runs/views"
    """Folder of runs and figures; runs that are whole are not repeated."""
    steps: int = 390
    """Of 256 images."""
    seeds: int = 3
    """Runs of each."""


def main(config: Config) -> None:
    """Train with both, evaluate on the test images, print the table."""
    accuracies: dict[str, list[float]] = {"ours": [], "torchvision": []}
    for seed in range(config.seeds):
        for kind, of_kind in accuracies.items():
            out = Path(config.out) / f"{kind}-{seed}"
            if not (out / "knn.json").exists():
                train(config, kind, seed, out)
            of_kind.append(json.loads((out / "knn.json").read_text())["accuracy"])
    print(f"{'views':12s} {'k-NN of each seed':24s} {'mean':>6s} {'deviation':>10s}")
    for kind, of_kind in accuracies.items():
        listed = " ".join(f"{accuracy:.4f}" for accuracy in of_kind)
        spread = statistics.stdev(of_kind) if config.seeds > 1 else 0.0
        print(f"{kind:12s} {listed:24s} {statistics.mean(of_kind):6.4f} {spread:10.4f}")


def train(config: Config, kind: str, seed: int, out: Path) -> None:
    """Train one run, and write its accuracy to knn.json."""
    import torch
    from selfsup.recipes import pretrain_simclr

    from selfsup.config import EncoderConfig, KNNConfig, ViewsConfig
    from selfsup.data.open import open_source
    from selfsup.evaluate.model import open_model, train_and_test
    from selfsup.evaluate.votes import knn_predict

    views = ViewsConfig(size=SIZE, strength=STRENGTH, interpolation="bilinear", blur=0.5)
    settings = pretrain_simclr.Config(
        data=config.data,
        out=str(out),
        encoder=EncoderConfig(name="test_resnet", stem="standard"),
        views=views,
        steps=config.steps,
        seed=seed,
        save_every=config.steps,
    )
    with contextlib.ExitStack() as replaced:
        if kind == "torchvision":
            images = open_source(config.data)

            def unchanged(crops: Any, *args: Any) -> Any:
                return crops

            def read(batches: Any, steps: Any, *, workers: Any) -> Any:
                return (by_torchvision(batches[step], images, seed) for step in steps)

            replaced.enter_context(patch("selfsup.training.step.apply", unchanged))
            replaced.enter_context(patch("selfsup.training.loop.read_ahead", read))
        pretrain_simclr.main(settings)
    asked = KNNConfig(model=str(out), data=config.data, test=config.test, size=SIZE)
    bank, test = train_and_test(open_model(asked), asked, config.test, "")
    assert test is not None
    voted = knn_predict(bank.x, bank.labels, test.x, k=200, temperature=0.1)
    accuracy = (voted == test.labels).to(torch.float64).mean().item()
    (out / "knn.json").write_text(json.dumps({"accuracy": accuracy}) + "\n")


def by_torchvision(batch: Any, images: Any, seed: int) -> Any:
    """Replace a batch's views by those of torchvision's transforms, one image at a time."""
    from dataclasses import replace

    import torch
    from PIL import Image
    from torchvision import transforms as tv

    from selfsup.core.seeds import seed_for

    pipeline = tv.Compose(
        [
            tv.RandomResizedCrop(SIZE),
            tv.RandomHorizontalFlip(),
            tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            tv.RandomGrayscale(0.2),
            tv.RandomApply([tv.GaussianBlur(3)], 0.5),
            tv.ToTensor(),
            tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    torch.manual_seed(seed_for(seed, batch.step, "torchvision"))
    pairs = []
    for position in batch.positions.tolist():
        image = Image.fromarray(images.pixels(position))
        pairs.append(torch.stack([pipeline(image) for _ in range(2)]))
    return replace(batch, crops=(torch.stack(pairs),))


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
