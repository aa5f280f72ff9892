"""Names of weights, images and folders that a new user may type: one sentence, exit status 2."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import called
from pictures import folder, picture

from selfsup.config import EncoderConfig, ViewsConfig
from selfsup.encoders.encoder import build, export

pytestmark = pytest.mark.slow

LONG = "x" * 5000
BROKEN = {
    "text.txt": b"hello\n",
    "note.pdf": b"%PDF-1.4",
    "bad.pth": b"junk",
    "empty.pth": b"",
    "bad.safetensors": b"junkjunkjunk",
    "bad.npz": b"nonsense",
    "bad.parquet": b"x" * 30,
    "settings.yaml": b"seed: 1\n",
    "list.pkl": pickle.dumps([1, 2], 4),
    "json/config.json": b"no json",
    "list/config.json": b"[1]",
    "other/config.json": b'{"model_type": "vit"}',
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with whatever may be named by mistake."""
    root = tmp_path_factory.mktemp("place")
    folder(root / "images")
    picture(0, 0).save(root / "one.png")
    for name, content in BROKEN.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    torch.save([1, 2], root / "list.pth")
    np.savez(root / "two.npz", images=np.zeros((8, 16, 16, 3), np.uint8), labels=np.arange(8) % 2)
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        encoder = build(EncoderConfig(name="test_resnet"), 16)
        export(encoder, root / name / "encoder", ViewsConfig(size=16))
    flags = ("--model", "a", "--data", "images", "--out", "index")
    done = called("tools/index.py", *flags, cwd=root)
    assert done.returncode == 0, done.stderr
    return root


def sentence(place: Path, tool: str, *flags: str) -> str:
    """The only line that a refused command has to say."""
    done = called(tool, *flags, cwd=place)
    assert done.returncode == 2, done.stdout
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "\0" not in done.stdout
    return said


RUN = ("--classes", "2", "--images", "2", "--steps", "1", "--out", "run")


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("text.txt", "text.txt is not a file of weights, or it is damaged"),
        ("one.png", "one.png is not a file of weights, or it is damaged"),
        ("two.npz", "two.npz is not a file of weights, or it is damaged"),
        ("bad.pth", "bad.pth is not a file of weights, or it is damaged"),
        ("settings.yaml", "settings.yaml is not a file of weights, or it is damaged"),
        ("index/embeddings-1.npy", "embeddings-1.npy is not a file of weights, or it is damaged"),
        ("empty.pth", "empty.pth is not a file of weights, or it is empty"),
        ("bad.safetensors", "bad.safetensors is not a file of weights, or it is damaged (Error"),
        ("list.pkl", "list.pkl is not a file of weights, or it is damaged"),
        ("list.pth", "list.pth holds no named tensors"),
        ("images", "images holds no exported encoder: no encoder/config.json"),
        ("index", "index holds no exported encoder: it is an index. Give the run or bundle"),
        ("json", "json cannot be loaded: its config.json is none of timm's"),
        ("list", "list cannot be loaded: its config.json is none of timm's"),
        ("other", "other cannot be loaded: its config.json is none of timm's"),
        ("resnet18", "timm:resnet18 are the published weights of that timm model"),
        ("timm:", "timm has no model ''"),
        (LONG, "does not exist"),
        ("/dev/null", "--init /dev/null does not exist"),
    ],
)
def test_what_is_no_start_is_named(place: Path, init: str, said: str) -> None:
    for tool in ("tools/finetune.py", "tools/pretrain.py"):
        flags = RUN if "finetune" in tool else RUN[4:]
        assert said in sentence(place, tool, "--init", init, "--data", "images", *flags)
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "a name of images is empty"),
        (" + ", "a name of images is empty"),
        ("images + ", "a name of images is empty"),
        ("images * inf + two.npz * 1", "the weight of images must be a number above 0, not 'inf'"),
        (LONG, "does not exist"),
        ("one.png", "Cannot read one.png: expected a folder or one of"),
        ("bad.npz", "cannot read bad.npz"),
        ("bad.parquet", "cannot read bad.parquet"),
        ("a", "a holds no images"),
        ("index", "index holds no images"),
        ("images,two.npz", "images,two.npz does not exist"),
    ],
)
def test_what_holds_no_images_is_named(place: Path, data: str, said: str) -> None:
    for tool in ("tools/finetune.py", "tools/pretrain.py"):
        flags = RUN if "finetune" in tool else RUN[4:]
        assert said in sentence(place, tool, "--data", data, *flags)
    assert said in sentence(place, "tools/knn.py", "--model", "a", "--data", data)
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--other": "missing"}, "'missing' is neither a folder, a file nor a timm model"),
        ({"--other": LONG}, "is neither a folder, a file nor a timm model"),
        ({"--model": "images"}, "images holds no exported encoder"),
        ({"--other": "index"}, "index holds no exported encoder: it is an index"),
        ({"--other": "text.txt"}, "text.txt is not a file of weights"),
        ({"--other": "a"}, "--model and --other are both a: there is nothing between the two"),
        ({"--other": "resnet18"}, "resnet18 names a network with random weights: timm:resnet18"),
        ({"--on": "missing"}, "missing does not exist"),
        ({"--on": ""}, "a name of images is empty"),
        ({"--on": "a"}, "a holds no images"),
        ({"--out": "images"}, "images exists and is no blend; choose another --out"),
        ({"--out": "a"}, "a exists and is no blend; choose another --out"),
        ({"--out": "text.txt"}, "text.txt exists and is no blend; choose another --out"),
        ({"--out": "text.txt/x"}, "--out text.txt/x cannot be made: text.txt is a file"),
        ({"--mixes": "-3"}, "--mixes must be 2 or more, not -3"),
    ],
)
def test_what_cannot_be_blended_is_named(place: Path, changed: dict[str, str], said: str) -> None:
    before = (place / "a" / "encoder" / "model.safetensors").read_bytes()
    flags = {"--model": "a", "--other": "b", "--on": "two.npz", "--mixes": "2"} | changed
    assert said in sentence(place, "tools/blend.py", *(x for pair in flags.items() for x in pair))
    assert (place / "a" / "encoder" / "model.safetensors").read_bytes() == before
    assert not (place / "images" / "encoder").exists()


def test_a_set_that_is_given_twice_is_refused(place: Path) -> None:
    flags = ("--model", "a", "--other", "b", "--on", "two.npz", "two.npz")
    assert "--on names two.npz more than once" in sentence(place, "tools/blend.py", *flags)


def test_a_blend_may_be_made_again(place: Path) -> None:
    flags = ("--model", "a", "--other", "b", "--on", "two.npz", "--mixes", "2", "--out", "mix")
    for _ in range(2):
        done = called("tools/blend.py", *flags, cwd=place)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("tool", "flags", "what"),
    [
        ("tools/finetune.py", ("--data", "images", *RUN[:6], "--out"), "no run folder"),
        ("tools/index.py", ("--model", "a", "--data", "images", "--out"), "no index"),
        ("tools/bundle.py", ("a",), "not a bundle"),
    ],
)
def test_no_result_is_written_where_something_else_is(
    place: Path, tool: str, flags: tuple[str, ...], what: str
) -> None:
    for out in ("images", "text.txt"):
        assert f"{out} exists and is {what}" in sentence(place, tool, *flags, out)
    inside = sentence(place, tool, *flags, "text.txt/deeper/x")
    assert "--out text.txt/deeper/x cannot be made: text.txt is a file" in inside


JUDGES = ("knn", "verify", "health")


@pytest.mark.parametrize(
    ("tool", "flags", "flag"),
    [
        *((tool, ("--model", "a", "--data", "missing"), "--out") for tool in JUDGES),
        ("report", ("missing",), "--out"),
        ("neighbours", ("a", "--data", "missing"), "--out"),
        ("search", ("missing", "missing.png"), "--page"),
        ("views", ("--method", "simclr", "--data", "missing"), "--page"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_the_work(
    place: Path, tool: str, flags: tuple[str, ...], flag: str
) -> None:
    said = {
        "images": f"{flag} images is a folder; name a file in it",
        "text.txt/x": f"text.txt exists and is no folder; choose another {flag}",
        LONG: "File name too long. Choose a place that can be written",
        "text.txt/deeper/x": f"{flag} text.txt/deeper cannot be made: text.txt is a file",
    }
    for out, why in said.items():
        assert why in sentence(place, f"tools/{tool}.py", *flags, flag, out)


@pytest.mark.parametrize(
    "tool", ["demo", "compare_losses", "compare_methods", "pictures", "cifar10", "gpu_check"]
)
def test_a_folder_that_cannot_be_made_is_told_before_the_work(place: Path, tool: str) -> None:
    said = {
        "text.txt": "text.txt exists and is no folder; choose another --out",
        "text.txt/x": "--out text.txt/x cannot be made: text.txt is a file",
        LONG: "File name too long. Choose a place that can be written",
        "/proc/z": "cannot write /proc/z: No such file or directory",
    }
    images = ("--data", "images", "--test", "images") if tool == "compare_methods" else ()
    for out, why in said.items():
        assert why in sentence(place, f"tools/{tool}.py", *images, "--out", out)


@pytest.mark.parametrize(
    ("tool", "flags"),
    [
        ("recipes/pretrain_simclr.py", ("--data", "images", "--out", LONG)),
        ("tools/report.py", (LONG,)),
    ],
)
def test_a_name_that_no_disk_takes_is_told(place: Path, tool: str, flags: tuple[str, ...]) -> None:
    done = called(tool, *flags, cwd=place)
    assert done.returncode == 2
    assert done.stderr.endswith("xxx... is too long for the name of a file or folder\n")
