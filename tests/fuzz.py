"""Damage real files at random and open them: `python tests/fuzz.py --images 20000 --others 2000`.

Every case is drawn from the seed and its number. What is opened has to end with pixels, or with an
error of ours, within LONGEST seconds of the processor; --keep FOLDER keeps the files of cases that
do not. The last line is JSON: cases, refused ones, the problems, the peak memory above the start.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from odd_files import coded, photograph
from pictures import folder
from PIL import Image
from teachers import teacher

from selfsup.config import PretrainConfig
from selfsup.core import run_status
from selfsup.core.cli import from_file
from selfsup.core.errors import UserError
from selfsup.core.json_lines import read_steps
from selfsup.core.yaml_files import read_yaml
from selfsup.data.audit import audit, read_audit, write_audit
from selfsup.data.decode import BadImage, decode_bytes
from selfsup.data.encode import Style
from selfsup.data.open import open_source
from selfsup.data.pack_writer import write_pack
from selfsup.encoders.bundle import load_bundle
from selfsup.encoders.weights import read_file
from selfsup.search import engines
from selfsup.search import index as store
from selfsup.training import checkpoint

LONGEST = 2.0
HANGS = 60
"""Seconds by the clock after which a case is ended."""
MEMORY = 500
"""Megabytes above the start."""
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WORDS = (
    *("null", "-1", "1e999", "[]", "{}", '""', "NaN", "9" * 40, "true", "[[[[[[[[", "{{", "0.5"),
    *("\x00", "../../../../etc/passwd", "/dev/zero", "cifar10", "&a [*a]", "\udcff", "\ufeff"),
)

Opens = Callable[[Path], object]


def damage(data: bytes, draw: random.Random) -> bytes:
    """Change bytes as broken disks, cables and programs do."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5, 30))):
        at = draw.randrange(len(changed) + 1)
        if draw.random() < 0.4:
            at = min(at, draw.randrange(400))  # headers are at the start
        length = draw.choice((1, 2, 4, 16, 100, 512, 5000))
        match draw.randrange(9):
            case 0:
                changed[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del changed[at:]
            case 2:
                changed[at : at + length] = bytes(len(changed[at : at + length]))
            case 3:
                changed[at : at + length] = draw.randbytes(length)
            case 4:
                changed[at:at] = draw.randbytes(length)
            case 5:
                changed[at:at] = changed[max(0, at - length) : at]
            case 6:
                del changed[at : at + length]
            case 7:
                order = draw.choice(("big", "little"))
                number = draw.choice(NUMBERS) & (2 ** (8 * min(length, 8)) - 1)
                changed[at : at + min(length, 8)] = number.to_bytes(min(length, 8), order)
            case 8:
                word = draw.choice(WORDS).encode("utf-8", "surrogateescape")
                changed[at : at + len(word)] = word
    return bytes(changed)


def damage_text(data: bytes, draw: random.Random) -> bytes:
    """Replace a word or a number, so that what is read is well formed and means nonsense."""
    text = data.decode("utf-8", "surrogateescape")
    places = [i for i, c in enumerate(text) if c in ":,\n[" and i + 2 < len(text)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        if not places:
            break
        start = draw.choice(places) + 1
        end = min([i for i in (text.find(c, start) for c in ",\n}]") if i >= 0] or [len(text)])
        text = text[:start] + " " + draw.choice(WORDS) + text[end:]
        places = [i for i, c in enumerate(text) if c in ":,\n[" and i + 2 < len(text)]
    return text.encode("utf-8", "surrogateescape")


def images() -> list[bytes]:
    """Small images of every format and mode that are read."""
    picture, large = photograph(40), photograph(300)
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray((np.arange(1600).reshape(40, 40) * 40).astype(np.uint16))
    made = [coded(x, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
            for x in (picture, large)]  # fmt: skip
    made += [coded(picture, "JPEG", exif=exif), coded(picture, "JPEG", progressive=True)]
    made += [coded(picture.convert("CMYK"), "JPEG"), coded(picture.convert("L"), "JPEG")]
    made += [coded(wide, "PNG"), coded(wide, "TIFF"), coded(picture.convert("P"), "PNG")]
    made += [coded(picture.convert("RGBA"), "PNG"), coded(picture.convert("1"), "PNG")]
    made += [coded(picture.convert("F"), "TIFF"), coded(picture.convert("RGBA"), "WEBP")]
    made += [coded(picture, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits")]
    made += [coded(picture, "PNG", save_all=True, append_images=[picture] * 3)]
    return [*made, coded(picture, "GIF", save_all=True, append_images=[picture.rotate(9)] * 3)]


class Kind:
    """Something on a disk of which one file is damaged, and how it is opened."""

    def __init__(self, name: str, root: Path, opens: Opens, *, text: bool = False) -> None:
        self.name, self.root, self.opens, self.text = name, root, opens, text
        inside = [root] if root.is_file() else [p for p in sorted(root.rglob("*")) if p.is_file()]
        self.files = {p: p.read_bytes() for p in inside}

    @contextlib.contextmanager
    def damaged(self, draw: random.Random) -> Iterator[Path]:
        file = draw.choice(list(self.files))
        textual = self.text or file.suffix in (".json", ".yaml", ".csv", ".jsonl")
        change = damage_text if textual and draw.random() < 0.6 else damage
        file.write_bytes(change(self.files[file], draw))
        try:
            yield file
        finally:
            file.write_bytes(self.files[file])


def read_images(path: Path) -> None:
    """Open a source and read its first images."""
    source = open_source(str(path))
    for position in range(min(len(source), 8)):
        with contextlib.suppress(BadImage):
            assert source.pixels(position).dtype == np.uint8


def read_index(path: Path) -> None:
    index = store.read(path)
    width = index.embeddings.shape[1]
    engines.search(index, torch.nn.functional.normalize(torch.ones(1, width)), 3)


def read_checkpoint(path: Path) -> None:
    found = checkpoint.newest(path / "checkpoints", lambda _: None)
    checkpoint.work_of(path)
    if found is not None:
        model = torch.nn.Linear(3, 2)
        checkpoint.load(found, model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def kinds(root: Path) -> list[Kind]:
    """One of everything that is opened."""
    files = folder(root / "png", 3, 4)
    names = sorted(files.rglob("*.png"))
    with tarfile.open(root / "a.tar", "w") as tar:
        for i, name in enumerate(names):
            tar.add(name, f"{i:03d}.png")
            word = tarfile.TarInfo(f"{i:03d}.cls")
            word.size = 1
            tar.addfile(word, io.BytesIO(str(i % 3).encode()))
    rows = [(str(p.relative_to(root)), p.parent.name) for p in names]
    (root / "a.csv").write_text("path,label\n" + "".join(f"{p},{c}\n" for p, c in rows))
    lines = [json.dumps({"path": p, "label": c, "weight": 1.5}) for p, c in rows]
    (root / "a.jsonl").write_text("\n".join(lines) + "\n")
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"path": [p for p, _ in rows], "label": [c for _, c in rows]}
    pq.write_table(pa.table(columns), root / "a.parquet")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 9, 3), dtype=np.uint8)
    np.savez(root / "a.npz", images=pixels, labels=np.arange(12) % 3)
    np.savez_compressed(root / "b.npz", images=pixels, labels=np.arange(12) % 3)
    np.save(root / "a.npy", pixels)
    write_pack(open_source(str(files)), root / "a.pack", Style("jpeg", None, 90))
    teacher(root / "bundle" / "encoder")
    (root / "bundle" / "bundle.json").write_text(json.dumps({"format": 1, "threshold": 0.4}))
    torch.save({"conv1.weight": torch.ones(4, 3, 3, 3)}, root / "a.pth")
    return [
        *(Kind(name, root / name, read_images)
          for name in ("a.tar", "a.npz", "b.npz", "a.npy", "a.pack", "a.parquet")),
        *(Kind(name, root / name, read_images, text=True) for name in ("a.csv", "a.jsonl")),
        Kind("bundle", root / "bundle", load_bundle),
        Kind("a.pth", root / "a.pth", read_file),
        *_kinds_of_runs(root),
    ]  # fmt: skip


def _kinds_of_runs(root: Path) -> list[Kind]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for step in (1, 2):
        place = root / "run" / "checkpoints"
        checkpoint.save(
            place,
            checkpoint.snapshot(step, model, optimizer, extra=None, work={"settings": {}}),
            keep=2,
        )
    settings = "data: x\nout: y\nseed: 3\nbatch: 16\nviews: {size: 32, blur: 0.5}\noptim: {lr: 1}\n"
    (root / "config.yaml").write_text(settings + "method: {name: simclr, temperature: 0.2}\n")
    status = {"state": "running", "step": 3, "total": 9, "reason": "", "heartbeat": 1e9}
    (root / "state").mkdir()
    (root / "state" / "status.json").write_text(json.dumps(status))
    log = "".join(json.dumps({"step": i, "loss": 0.5}) + "\n" for i in range(20))
    (root / "log.jsonl").write_text(log)
    write_audit(audit(open_source(str(root / "a.npz")), "a.npz"), root / "audit.json")
    index = store.empty(root / "index", "model", "weights", 32)
    rows = {name: [f"{name}{i}" for i in range(9)] for name in store.COLUMNS}
    z = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    store.write(
        store.add(index, z / np.linalg.norm(z, axis=1, keepdims=True), rows), lambda _: None
    )
    return [
        Kind("index", root / "index", read_index),
        Kind("run", root / "run", read_checkpoint),
        Kind("config.yaml", root / "config.yaml", _read_config, text=True),
        Kind(
            "status.json",
            root / "state",
            lambda p: run_status.describe(run_status.read(p)),
        ),
        Kind("log.jsonl", root / "log.jsonl", lambda p: list(read_steps(p))),
        Kind("audit.json", root / "audit.json", read_audit),
    ]


def _read_config(path: Path) -> None:
    read_yaml(path)
    from_file(PretrainConfig, path)


class Problems:
    """Counts cases and collects what should not have happened."""

    def __init__(self, keep: Path | None) -> None:
        self.cases: collections.Counter[str] = collections.Counter()
        self.refused: collections.Counter[str] = collections.Counter()
        self.found: list[str] = []
        self.keep, self.slowest = keep, 0.0

    def run(self, name: str, number: int, work: Callable[[], object], files: list[Path]) -> None:
        began = time.process_time()
        self.cases[name] += 1
        signal.alarm(HANGS)
        try:
            work()
        except (UserError, BadImage):
            self.refused[name] += 1
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            self._add(f"{name} {number}: {type(error).__name__} at {where}: {error}"[:300], files)
        finally:
            signal.alarm(0)
        took = time.process_time() - began
        self.slowest = max(self.slowest, took)
        if took > LONGEST:
            self._add(f"{name} {number}: {took:.1f} s", files)

    def _add(self, problem: str, files: list[Path]) -> None:
        self.found.append(problem)
        for file in files if self.keep else ():
            assert self.keep is not None
            copy = self.keep / f"{len(self.found)}-{file.name}"
            copy.write_bytes(file.read_bytes())


def peak() -> float:
    """Peak memory of this process in megabytes; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def fuzz(count: int, others: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """Try so many damaged images and other files."""
    problems = Problems(keep)
    base, start = images(), 0.0
    with tempfile.TemporaryDirectory() as name:
        made, root = kinds(Path(name)), Path(name)
        os.chdir(root)
        for kind in made:
            kind.opens(kind.root)  # undamaged, all can be read; and what is loaded once is loaded
        start = peak()
        for number in range(count):
            draw = random.Random(f"image {seed} {number}")
            data = damage(draw.choice(base), draw)
            (root / "damaged").write_bytes(data)
            channels = draw.choice((1, 3, 3, 3, 4))
            problems.run("image", number, lambda: _decode(data, channels), [root / "damaged"])  # noqa: B023
        for number in range(others):
            draw = random.Random(f"other {seed} {number}")
            kind = made[number % len(made)]
            with kind.damaged(draw) as file:
                problems.run(kind.name, number, lambda: kind.opens(kind.root), [file])  # noqa: B023
    return {
        "cases": sum(problems.cases.values()),
        "refused": dict(problems.refused),
        "of": dict(problems.cases),
        "problems": problems.found,
        "slowest": round(problems.slowest, 2),
        "memory": round(peak() - start),
    }


def _decode(data: bytes, channels: int) -> None:
    pixels = decode_bytes(data, channels)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == channels


def main() -> None:
    """Print the result; the exit status says whether there are problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--others", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stderr(io.StringIO()):
        result = fuzz(args.images, args.others, args.seed, args.keep and args.keep.resolve())
    print(json.dumps(result))
    sys.exit(bool(result["problems"]) or result["memory"] > MEMORY)


if __name__ == "__main__":
    main()
