"""Command blocks of the READMEs, and how each runs on a few images of 24 pixels."""

import io
import re
import shlex
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
from launch import PACKAGE, ROOT, SMALL
from pictures import folder, many_classes, picture

from selfsup.data.encode import Style
from selfsup.data.open import open_source
from selfsup.data.pack_writer import write_pack

GUIDES = {
    "README.md": ROOT / "README.md",
    "recipes": ROOT / "recipes" / "README.md",
    "tools": ROOT / "tools" / "README.md",
    "selfsup": PACKAGE / "README.md",
    "data": PACKAGE / "data" / "README.md",
    "augment": PACKAGE / "augment" / "README.md",
    "search": PACKAGE / "search" / "README.md",
}
ELSEWHERE = {"pip", "npm", "tar", "pytest", "sbatch", "aws"}
"""Programs that are not ours."""
LONG = {"doctor", "demo", "pictures", "compare-losses", "compare-methods", "cifar10"}
"""Commands that other tests run in their small form."""
STANDS_FOR = {
    "timm:resnet50": "runs/simclr",
    "timm:vit_small_patch14_dinov2": "runs/simclr",
    "efficientnet-lite0-57934424.pth": "runs/simclr",
    "0.1": "0.5",
    "s3://bucket/images.pack": "memory://bucket/images.pack",
    "s3://bucket/shards/": "memory://bucket/shards/",
    "postgresql://db.example/search#gallery": "qdrant:db#gallery",
}
"""Published weights, a bucket and a server, and what a test takes for them; a tenth of 24 images is
too few."""
TRAINED = {
    "--encoder.name": "resnet18",
    "--encoder.args": SMALL,
    "--encoder.stem": "auto",
    "--views.size": "16",
    "--views.local.size": "8",
    "--method.hidden": "16",
    "--method.dim": "8",
    "--log-every": "2",
    "--steps": "2",
    "--no-report": "",
}
QUICK = {
    "pretrain": {"--batch": "8"},
    "finetune": {"--classes": "3", "--images": "2", "--probe.every": "2"},
    "adapt": {"--resamples": "10", "--views.size": "16", "--steps": "2", "--classes": "3"},
    "blend": {"--mixes": "3"},
    "views": {"--step": "1", "--batch": "8"},
}
JUDGES = ("knn", "linear", "retrieval", "verify", "health", "compare-distilled")
KEPT_BY_INIT = ("--encoder.name", "--encoder.args", "--encoder.stem", "--views.size")
"""Settings that --init brings along."""


def blocks(text: str, kind: str) -> list[str]:
    """The blocks of a README between ```kind and ```."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    """Every command of a README's blocks, as words, without what launches it."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split(" && "):
                words = shlex.split(command, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    words = words[1:]
                if words[:2] == ["accelerate", "launch"]:
                    words = ["selfsup", *words[words.index("selfsup") + 1 :]]
                if words:
                    yield words


def script_of(words: list[str]) -> tuple[str, list[str]]:
    """The file of one of our commands, from the root, and its flags."""
    program, name, *flags = [*words, ""][: len(words) + 1]
    flags = flags[:-1] if len(words) > 1 else []
    if program == "python":
        return name, flags
    assert program == "selfsup", f"{words} is none of our commands"
    file = f"{name.replace('-', '_')}.py"
    return f"{'tools' if (ROOT / 'tools' / file).exists() else 'recipes'}/{file}", flags


def small(script: str, flags: list[str]) -> list[str]:
    """The flags of the same command, for a run of a second."""
    name = Path(script).stem.replace("_", "-")
    kind = name.split("-")[0]
    quick = dict(QUICK.get(kind, {}))
    if kind in ("pretrain", "finetune"):
        quick |= TRAINED
        if "--init" in flags:
            quick = {k: v for k, v in quick.items() if k not in KEPT_BY_INIT}
    if name in JUDGES:
        quick["--resamples"] = "10"
    known = flags_of(name, flags)
    quick = {k: v for k, v in quick.items() if k in known or k == "--no-report"}
    if "--method.dim" in flags:  # whether there is a head matters
        quick.pop("--method.dim", None)
    dropped = {*quick, "--epochs", "--steps", *(KEPT_BY_INIT if "--init" in flags else ())}
    kept = [STANDS_FOR.get(word, word) for word in without(flags, dropped)]
    return kept + [word for pair in quick.items() for word in pair if word]


def flags_of(name: str, flags: list[str]) -> set[str]:
    """The flags that a command has, from its golden file."""
    chosen = flags[flags.index("--method") + 1] if "--method" in flags else "simclr"
    loss = flags[flags.index("--loss") + 1] if "--loss" in flags else "triplet"
    proxies = ("arcface", "cosface", "proxy-anchor")
    recipe = "triplet" if loss == "triplet" else "proxies" if loss in proxies else "pairs"
    file = {"pretrain": f"pretrain-{chosen}", "finetune": f"finetune-{recipe}"}.get(name, name)
    golden = ROOT / "tests" / "golden" / f"{file}.txt"
    return {line.split(" ")[0] for line in golden.read_text().splitlines()}


def without(flags: list[str], dropped: set[str]) -> list[str]:
    """Leave out some flags with their values."""
    kept, skip = [], False
    for word in flags:
        if word.startswith("-"):
            skip = word in dropped
        if not skip:
            kept.append(word)
    return kept


def furnish(room: Path) -> Path:
    """Put everything there that the READMEs' commands name: images, arrays, a manifest."""
    for name in ("images", "products", "other_products", "my_own", "others", "gallery", "unseen"):
        folder(room / name, classes=4, each=6)
    (room / "more_products").symlink_to(room / "products")
    (room / "labelled").symlink_to(room / "products")
    (room / "other").symlink_to(room / "other_products")
    for kind in ("jpg", "png"):
        picture(1, 99).save(room / f"query.{kind}")
    images = np.stack([np.asarray(picture(i % 4, i)) for i in range(24)])
    labels = np.arange(24) % 4
    (room / "data" / "cifar10").mkdir(parents=True)
    names = ("train", "test", "unseen", "general", "emoji", "cifar", "gallery", "query")
    for name in (*names, "data/cifar10/train", "data/cifar10/test"):
        np.savez(room / f"{name}.npz", images=images, labels=labels)
    many_classes(room / "emoji.npz")  # enough for a validation
    _fill_bucket(room)
    rows = [f"images/class{i % 4}/{i // 4}.png,class{i % 4}" for i in range(24)]
    (room / "all.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return room


def _fill_bucket(room: Path) -> None:
    """Put a pack and a tar shard where the READMEs have a bucket."""
    memory = fsspec.filesystem("memory")
    with tempfile.TemporaryDirectory() as made:
        write_pack(open_source(str(room / "images")), Path(made) / "x", Style("jpeg", None, 90))
        memory.pipe("/bucket/images.pack", (Path(made) / "x").read_bytes())
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as out:
        for file in sorted((room / "images").rglob("*.png")):
            out.add(file, str(file.relative_to(room / "images")).replace("/", "-"))
    memory.pipe("/bucket/shards/0.tar", shard.getvalue())
