"""Images a second of a pack from the disk, over HTTP and from S3, without and with the cache.

    pip install -e '.[test]' && python tools/bench/bench_remote.py

The servers run on this machine, in Python: what they cost is in the figures, and there is no
network; one of them waits 20 ms before each answer. Epochs of SimCLR views of 96 pixels from JPEGs
of 256, as training reads them; each figure is the median of the rounds, with their smallest and
largest. Then the seconds to list the members of tar shards, for each GB.
"""

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfsup.core.cli import run as launch

TESTS = Path(__file__).parents[2] / "tests"
FAR = 0.02
"""Seconds until a server of another data centre answers."""
SERVE = (
    "import sys, pathlib; from servers import FileServer\n"
    "server = FileServer(pathlib.Path(sys.argv[1])); print(server.url, flush=True)\n"
    "server.faults.delay = float(sys.argv[2])\n"
    "server.serve_forever()"
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Images a second of a pack from the disk, over HTTP and from S3."""

    images: int = 1024
    """JPEGs of 256 pixels in the pack."""
    rounds: int = 3
    """Times that everything is measured."""
    workers: tuple[int, ...] = (0, 2)
    """Numbers of reader processes."""
    shard: int = 200
    """MB of the tar shard that is listed."""


def fill(folder: Path, config: Config) -> None:
    """Write a pack, and a tar of images of 100 kB."""
    import numpy as np

    from selfsup.data.encode import Style
    from selfsup.data.pack_writer import write_pack
    from selfsup.data.sources import ArraySource

    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (config.images, 32, 32, 3), dtype=np.uint8)
    pixels = coarse.repeat(8, 1).repeat(8, 2)
    write_pack(ArraySource(pixels, None, []), folder / "x.pack", Style("jpeg", None, 90))
    with tarfile.open(folder / "x.tar", "w") as out:
        for i in range(config.shard * 10):
            for kind, size in (("jpg", 100_000), ("cls", 1)):
                info = tarfile.TarInfo(f"{i:06}.{kind}")
                info.size = size
                out.addfile(info, io.BytesIO(b"0" * size))


@contextlib.contextmanager
def http(folder: Path, delay: float) -> Iterator[str]:
    """Serve the folder from a process of its own, which waits `delay` seconds for each answer."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", SERVE, str(folder), str(delay)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[str]:
    """Put the files into a bucket of moto's server."""
    import boto3

    sys.path.append(str(TESTS))
    from servers import KEYS, s3_serving

    with s3_serving() as address:
        os.environ |= {**KEYS, "AWS_ENDPOINT_URL": address}
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="images")
        for file in folder.iterdir():
            client.upload_file(str(file), "images", file.name)
        yield "s3://images"


def images_per_second(place: str, cache: str, workers: int) -> tuple[float, float]:
    """Read two epochs of the pack; return the speed of each."""
    from selfsup.config import CacheConfig, ViewsConfig
    from selfsup.data.loader import read_ahead
    from selfsup.data.open import open_source
    from selfsup.data.samplers import ShuffleSampler
    from selfsup.training.pretrain import local_batches

    source = open_source(f"{place}/x.pack", cache=CacheConfig(dir=cache))
    sampler = ShuffleSampler(len(source), batch=64, seed=0)
    batches = local_batches(source, sampler, ViewsConfig(size=96), 0)
    each = sampler.steps_per_epoch
    speeds = []
    for epoch in range(2):
        steps = range(epoch * each, (epoch + 1) * each)
        began = time.perf_counter()
        read = sum(len(batch.positions) for batch in read_ahead(batches, steps, workers=workers))
        speeds.append(read / (time.perf_counter() - began))
    return speeds[0], speeds[1]


def seconds_to_list(place: str, size: int) -> float:
    """Open the tar, for each GB."""
    from selfsup.data import open_remote
    from selfsup.data.open import open_source

    open_remote._listed.clear()  # as in another process
    began = time.perf_counter()
    open_source(f"{place}/x.tar")
    return (time.perf_counter() - began) / (size / 1e9)


def main(config: Config) -> None:
    """Print a table."""
    import torch

    torch.set_num_threads(1)
    results: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stored = folder / "stored"
        stored.mkdir()
        fill(stored, config)
        places = {"disk": str(stored)}
        places["HTTP"] = stack.enter_context(http(stored, 0.0))
        places[f"HTTP, {FAR * 1000:.0f} ms away"] = stack.enter_context(http(stored, FAR))
        places["S3"] = stack.enter_context(s3(stored))
        images_per_second(places["disk"], "", 0)  # loops are compiled
        for turn in range(config.rounds):
            for name, place in places.items():
                for workers in config.workers:
                    key = f"{name}, {workers} workers"
                    cache = "" if name == "disk" else str(folder / f"{name} {turn} {workers}")
                    speed = images_per_second(place, "", workers)
                    results.setdefault(f"{key}, no cache", []).append(speed[1])
                    if cache:
                        first, second = images_per_second(place, cache, workers)
                        results.setdefault(f"{key}, filling the cache", []).append(first)
                        results.setdefault(f"{key}, from the cache", []).append(second)
                (stored / "x.tar.index.json").unlink(missing_ok=True)
                seconds = seconds_to_list(place, (stored / "x.tar").stat().st_size)
                results.setdefault(f"{name}, s/GB to list a tar", []).append(seconds)
    for key, values in results.items():
        spread = f"({min(values):.4g} to {max(values):.4g})"
        print(f"{key:<42}{statistics.median(values):>8.4g} {spread}")


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
