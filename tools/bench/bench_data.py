"""Time of reading small images beside usual data sets, and of a SimCLR epoch beside lightly's.

    pip install -e '.[bench]' && python tools/bench/bench_data.py

One thread, CPU time, shuffled rounds; a ratio is the median of the rounds' ratios, with their
smallest and largest. Reading ends in floats [b, 3, 32, 32] in [0, 1], in batches of 256, shuffled
(webdataset in its own order: it has no other); "as levels" ends in uint8, as views take them. The
epoch is of random images of 32 pixels through a ResNet of one block a stage, 16 to 64 wide:
lightly's example script with its loader in process, against the step that recipes take.
"""

import io
import statistics
import tarfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timing import Elsewhere, Work, machine, paired, ratio, serve

from selfsup.core.cli import run as launch
from selfsup.core.errors import UserError

READ, BATCH, EPOCH = 2048, 256, 1024
NET = "{layers: [1, 1, 1, 1], channels: [16, 32, 64, 64], stem_type: deep, stem_width: 8}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time of reading small images beside data sets, and of an epoch beside lightly's."""

    rounds: int = 7
    """Of each table, after one that is not counted."""
    only: str = ""
    """reading or epoch; by default both."""
    side: str = ""
    """For the tool's own use: run this side of the epoch whenever a line comes in."""


def reading(folder: Path) -> dict[str, tuple[int, Work]]:
    """The same images in four forms."""
    import numpy as np
    import torch
    import webdataset
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    from selfsup.augment.boxes import CenterBoxes, CropSpec
    from selfsup.core.distributed import keep_freed_memory
    from selfsup.data.encode import Style
    from selfsup.data.open import open_source
    from selfsup.data.pack_writer import write_pack

    keep_freed_memory()
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (READ, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    labels = draw.integers(0, 10, READ)
    np.savez(folder / "x.npz", images=images, labels=labels)
    source = open_source(str(folder / "x.npz"))
    write_pack(source, folder / "x.pack", Style("raw", None, 90))
    packed = open_source(str(folder / "x.pack"))
    with tarfile.open(folder / "x.tar", "w") as tar:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            out = io.BytesIO()
            Image.fromarray(image).save(out, "PNG")
            path = folder / "files" / str(label) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(out.getvalue())
            for kind, data in (("png", out.getvalue()), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{i:05}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    class Cifar(torch.utils.data.Dataset):  # type: ignore[type-arg]
        """As torchvision's."""

        def __len__(self) -> int:
            return READ

        def __getitem__(self, i: int) -> Any:
            return ToTensor()(Image.fromarray(images[i])), int(labels[i])

    def through(data: Any, **more: Any) -> Work:
        loader = DataLoader(data, batch_size=BATCH, **more)
        return lambda: [x for x, _ in loader]

    def ours(finish: Callable[[Any], Any]) -> Work:
        cut = CropSpec(CenterBoxes(BATCH, 1.0), 32, "bilinear")

        def work() -> None:
            for rows in torch.randperm(READ).split(BATCH):
                finish(packed.crops(rows.tolist(), cut).images[0])

        return work

    shards = webdataset.WebDataset(str(folder / "x.tar"), shardshuffle=False, empty_check=False)
    shards = shards.decode("pil").to_tuple("png", "cls").map_tuple(ToTensor(), int)
    return {
        "ours, raw pack": (READ, ours(lambda x: x.float().div_(255))),
        "ours, as levels": (READ, ours(lambda x: x)),
        "CIFAR-style data set": (READ, through(Cifar(), shuffle=True)),
        "PNG files": (READ, through(ImageFolder(folder / "files", ToTensor()), shuffle=True)),
        "webdataset": (READ, through(shards)),
    }


SIDES = {
    "lightly's example": "example",
    "ours, bfloat16": "bf16",
    "ours, float32": "no",
    "  reading and views": "views",
    "  loss": "loss",
    "  optimiser": "optimiser",
}
"""Of the epoch, each in a process of its own: ours keeps freed memory, lightly's does not."""


def epochs(folder: Path) -> dict[str, tuple[int, Work]]:
    """An epoch of both, and the parts of ours."""
    return {name: (EPOCH, Elsewhere(__file__, "--side", side)) for name, side in SIDES.items()}


def serve_side(side: str) -> None:
    """Run a side when asked to."""
    import tempfile

    import numpy as np

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (EPOCH, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    if side == "example":
        serve(example(images))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "epoch.npz"
        np.savez(file, images=images)
        epoch, parts = training(file, side if side in ("bf16", "no") else "no")
        serve(parts.get(side, epoch))


def net(*, channels_last: bool) -> Any:
    """The same for both; lightly's example keeps torch's own layout of images."""
    from selfsup.config import EncoderConfig
    from selfsup.encoders.encoder import build

    return build(EncoderConfig(name="resnet18", args=NET, channels_last=channels_last), 32)


def example(images: Any) -> Work:
    """Lightly's examples/pytorch/simclr.py with this network, data in memory and no workers."""
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms.simclr_transform import SimCLRTransform
    from PIL import Image

    transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)

    class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
        """As torchvision's CIFAR-10."""

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> Any:
            return transform(Image.fromarray(images[i])), 0

    backbone = net(channels_last=False)
    model = torch.nn.Sequential(backbone, torch.nn.Flatten(), SimCLRProjectionHead(64, 64, 128))
    loader = torch.utils.data.DataLoader(Images(), batch_size=BATCH, shuffle=True, drop_last=True)
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)

    def epoch() -> None:
        total = torch.zeros(())
        for (first, second), _ in loader:
            loss = criterion(model(first), model(second))
            total += loss.detach()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def training(data: Path, precision: str) -> tuple[Work, dict[str, Work]]:
    """The step of recipes on the same work, and what is not the network by itself."""
    import torch
    from accelerate import Accelerator

    from selfsup.augment.apply import apply
    from selfsup.config import SimCLRConfig, ViewsConfig
    from selfsup.core.distributed import keep_freed_memory
    from selfsup.data.open import open_source
    from selfsup.data.samplers import ShuffleSampler
    from selfsup.losses.contrastive import nt_xent
    from selfsup.methods.simclr import SimCLR
    from selfsup.training.pretrain import local_batches
    from selfsup.training.step import Stepper

    keep_freed_memory()
    views = ViewsConfig(size=32, blur=0.0, interpolation="bilinear")
    source = open_source(str(data))
    batches = local_batches(source, ShuffleSampler(EPOCH, batch=BATCH, seed=0), views, 0)
    method = SimCLR(net(channels_last=True), SimCLRConfig(hidden=64, dim=128, temperature=0.5))
    moved = torch.optim.SGD(method.parameters(), lr=0.06)
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    step = Stepper(accelerator, method, moved, views=views, micro_batch=None, seed=0, total=99)
    steps = range(EPOCH // BATCH)
    embedded = [torch.randn(BATCH, 128).requires_grad_() for _ in range(2)]

    def seen() -> None:
        for i in steps:
            batch = batches[i]
            apply(batch.crops[0], batch.draws[0], views)

    def loss() -> None:
        for _ in steps:
            nt_xent(*embedded, temperature=0.5).backward()

    def optimizer() -> None:
        for _ in steps:
            for parameter in method.parameters():
                parameter.grad = torch.zeros_like(parameter)
            moved.step()

    def epoch() -> None:
        for i in steps:
            step(batches[i])

    return epoch, {"views": seen, "loss": loss, "optimiser": optimizer}


def main(config: Config) -> None:
    """Print a table for reading and one for an epoch."""
    import tempfile

    import torch

    try:
        import lightly.loss  # noqa: F401
        import webdataset  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error}: pip install 'selfsup[bench]'") from None
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if config.side:
        serve_side(config.side)
        return
    print(machine())
    tables = {"reading": (reading, 0), "epoch": (epochs, 1)}
    for name, (sides_of, mine) in tables.items():
        if config.only in name:
            with tempfile.TemporaryDirectory() as folder:
                show(name, sides_of(Path(folder)), mine, config.rounds)


def show(name: str, sides: dict[str, tuple[int, Work]], mine: int, rounds: int) -> None:
    """Microseconds an image, and how many times faster side number `mine` is."""
    spent = paired({side: work for side, (_, work) in sides.items()}, rounds, time.process_time)
    first = list(sides)[mine]
    for work in [work for _, work in sides.values() if isinstance(work, Elsewhere)]:
        work.close()
    print(f"\n{name:26s}{'us/image':>10s}{'ours is x faster':>22s}")
    for side, (images, _) in sides.items():
        each = statistics.median(spent[side]) / images * 1e6
        print(f"{side:26s}{each:10.2f}{ratio(spent[first], spent[side])!s:>22s}", flush=True)


if __name__ == "__main__":
    launch(main, Config)
