"""Evaluation tools as a person runs them: known answers, wrong inputs, any number of processes."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from launch import ROOT, called, recipe, run, unplugged
from pictures import folder

import selfsup
from selfsup.config import ViewsConfig
from selfsup.data.decode import decode
from selfsup.encoders.encoder import Encoder, export

pytestmark = pytest.mark.slow
ALONE = ("--baselines",)  # without any


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with an encoder of random weights."""
    out = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    encoder = Encoder(timm.create_model("test_resnet", num_classes=0))
    export(encoder, out / "encoder", ViewsConfig(size=32))
    return out


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain colours in two far groups of ten, one image with the label of the other group.

    Within a group, steps grow: of every image the nearest is the one before it.
    """
    root = tmp_path_factory.mktemp("known")
    rows = []
    for i in range(20):
        label, level = i // 10, 20 + 150 * (i // 10) + (i % 10) * (i % 10 + 1) // 2
        images = np.full((16, 16, 3), level, np.uint8)
        images[..., 1] = 255 - level  # cosine tells colours apart, not brightness
        rows.append((images, 1 - label if i == 3 else label))
    images, labels = (np.stack(part) for part in zip(*rows, strict=True))
    np.savez(root / "known.npz", images=images, labels=labels, camera=np.arange(20) % 2)
    return root / "known.npz"


def figures(tool: str, *flags: Any, out: Path, cwd: Path = ROOT) -> dict[str, Any]:
    done = called(f"tools/{tool}.py", *flags, "--out", out, cwd=cwd)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(out.read_text())
    return record


def test_a_model_with_a_known_answer_gets_it_from_every_tool(known: Path, tmp_path: Path) -> None:
    """Raw pixels of plain colours: everything is right but the one image with a wrong label."""
    flags = ("--model", "pixels", "--data", known, "--size", "16", *ALONE)
    record = figures("knn", *flags, "--k", "3", "5", out=tmp_path / "knn.json")
    assert record["figures"]["k-NN, k 3, T 0.1"]["value"] == pytest.approx(19 / 20)
    assert record["figures"]["k-NN, k 5, T 0.1"]["value"] == pytest.approx(19 / 20)
    record = figures("retrieval", *flags, "--all", out=tmp_path / "ret.json")["figures"]
    # image 3 finds none of its label first, and image 4 finds image 3
    assert record["Recall@1"]["value"] == pytest.approx(18 / 20)
    # nine right ones see eight of theirs; ten of the other label nine of ten;
    # image 3 has its own group before it, and then one of its label
    assert record["R-precision"]["value"] == pytest.approx((9 * r_of_nine() + 10 * 0.9 + 0.1) / 20)
    record = figures("verify", *flags, out=tmp_path / "ver.json")["figures"]
    assert 0.8 < record["AUC"] < 1
    record = figures("health", *flags, "--views", "0", out=tmp_path / "hea.json")["figures"]
    assert record["NMI of k-means"] > 0.6


def r_of_nine() -> float:
    """Of an image's 8 nearest in its group of 10, how many are not image 3: 7 or 8 of 8."""
    levels = [i * (i + 1) // 2 for i in range(10)]
    record = []
    for i in set(range(10)) - {3}:
        others = sorted(set(range(10)) - {i}, key=lambda j: abs(levels[i] - levels[j]))
        record.append(sum(j != 3 for j in others[:8]) / 8)
    return sum(record) / 9


MEASURED: dict[str, tuple[str, ...]] = {
    "retrieval": ("--all",),
    "knn": ("--k", "3"),
    "verify": (),
    "health": ("--views", "0"),
}


@pytest.mark.grid
@pytest.mark.parametrize("tool", MEASURED)
def test_several_processes_have_the_figures_of_one(
    data: Path, model: Path, tmp_path: Path, tool: str
) -> None:
    flags: tuple[str | Path, ...] = ("--model", model, "--data", data, *ALONE, *MEASURED[tool])
    one = figures(tool, *flags, out=tmp_path / "one.json")
    out = ("--out", tmp_path / "two.json")
    two = recipe(f"tools/{tool}.py", *flags, *out, processes=2)
    assert two.returncode == 0, two.stderr
    record = json.loads((tmp_path / "two.json").read_text())
    assert record["figures"] == one["figures"]
    assert two.stdout.count("written to") == 1


def test_every_figure_is_compared_with_baselines(data: Path, model: Path, tmp_path: Path) -> None:
    flags = ("--model", model, "--data", data, "--test", data, "--k", "3")
    done = called("tools/knn.py", *flags, "--out", tmp_path / "knn.json", "--against", "test_vit")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "knn.json").read_text())
    baselines = ["random", "pixels", "colours", "test_vit (random weights)"]
    assert list(record["baselines"]) == baselines
    name = "k-NN, k 3, T 0.1"
    best = max(record["baselines"][each][name]["value"] for each in baselines)
    margin = record["margins"][name]["value"]
    assert margin == pytest.approx(record["figures"][name]["value"] - best)
    assert "margin: over the best baseline" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "written to" not in line)


def test_test_images_that_are_in_train_are_told_and_left_out(data: Path, tmp_path: Path) -> None:
    both = tmp_path / "test"
    for i, kind in enumerate(("class0", "class1", "class2")):
        (both / kind).mkdir(parents=True)
        (both / kind / "leak.png").write_bytes((data / kind / "0.png").read_bytes())
        new = folder(tmp_path / f"new{i}", classes=4, each=9)
        (both / kind / "new.png").write_bytes((new / kind / "8.png").read_bytes())
    flags = ("--model", "colours", "--data", data, "--test", both, "--k", "1", *ALONE)
    record = figures("knn", *flags, out=tmp_path / "knn.json")
    assert record["facts"]["leaked files"] == 3
    assert record["facts"]["leaked by looks"] == 0
    assert {"k-NN, k 1, T 0.1", "k-NN, k 1, T 0.1, not in train"} == record["figures"].keys()


def test_re_identification_leaves_out_ones_own_camera(known: Path, tmp_path: Path) -> None:
    flags = ("--model", "pixels", "--data", known, "--size", "16", *ALONE)
    plain = figures("retrieval", *flags, out=tmp_path / "a.json")
    filtered = figures(
        "retrieval", *flags, "--camera", "camera", "--rerank", out=tmp_path / "b.json"
    )
    assert plain["figures"]["mAP"]["value"] != filtered["figures"]["mAP"]["value"]
    assert "mAP, re-ranked" in filtered["figures"]
    done = called("tools/retrieval.py", *flags, "--camera", "lens")
    assert done.returncode == 2
    assert "the images have no column 'lens'. Columns: camera" in done.stderr


def test_few_shots_labels_and_solvers(data: Path, model: Path, tmp_path: Path) -> None:
    flags = ("--model", model, "--data", data, "--test", data, *ALONE)
    record = figures("knn", *flags, "--shots", "1", "3", "--k", "2", out=tmp_path / "knn.json")
    assert {"k-NN, 1 of each class", "k-NN, 3 of each class"} <= record["figures"].keys()
    assert "deviation of 5 draws of 1" in record["facts"]
    share = ("--shares", "0.5", "1")
    record = figures("linear", *flags, *share, out=tmp_path / "lin.json")
    assert list(record["figures"])[:2] == ["linear probe, 50% of labels", "linear probe"]
    record = figures("linear", *flags, "--solver", "sgd", out=tmp_path / "sgd.json")
    assert "rate" in record["facts"]["linear probe"]


def test_pairs_from_a_file(data: Path, model: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = [("class0/0.png", f"class0/{i}.png", 1) for i in range(1, 6)]
    rows += [("class0/0.png", f"class1/{i}.png", 0) for i in range(6)]
    with pairs.open("w", newline="") as out:
        csv.writer(out).writerows([("first", "second", "same"), *rows])
    flags = ("--model", model, "--data", data, "--pairs", pairs, *ALONE)
    record = figures("verify", *flags, out=tmp_path / "ver.json")
    assert (record["facts"]["pairs of one label"], record["facts"]["pairs of two labels"]) == (5, 6)
    pairs.write_text("first,second,same\nclass0/0.png,class0/9.png,1\n")
    done = called("tools/verify.py", *flags)
    assert done.returncode == 2
    assert "pairs.csv, line 2: the data have no image 'class0/9.png' (did you mean" in done.stderr


WRONG = {
    "no k": (("knn", "--k", "0"), "--k, --shots and --draws: above 0"),
    "shots alone": (("knn", "--shots", "1"), "--shots takes labelled images from --data"),
    "memory": (("knn", "--memory", "much"), "--memory must read like 2GB or 500MB, not 'much'"),
    "share": (("linear", "--shares", "0"), "--shares must be above 0 and at most 1"),
    "small share": (
        ("linear", "--shares", "0.1", "1"),
        "--shares 0.1 leaves no class 2 images, one of them to choose the probe's setting with: "
        "the largest has 5 to train on, so give 0.4 or more",
    ),
    "far": (("verify", "--far", "1"), "--far and --keep must be at least 0 and below 1"),
    "too many shots": (
        ("knn", "--test", "DATA", "--shots", "9"),
        "9 shots: class 0 has 6 images",
    ),
    "format alone": (("knn", "--format", "moco"), "--format moco is for a file of weights"),
    "old flag": (("knn", "--checkpoint", "no.pth"), "here it is --model FILE, --model timm:NAME"),
    "no such file": (("knn", "--init", "no.pth"), "--init no.pth does not exist"),
    "weights of a model": (("knn", "--init", "timm:resnet18"), "the encoder of --init timm:"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_of_tools_end_with_one_sentence(data: Path, name: str) -> None:
    (tool, *more), sentence = WRONG[name]
    more = [str(data) if word == "DATA" else word for word in more]
    flags = ["--model", "test_resnet", "--data", str(data), *ALONE, *more]
    done = called(f"tools/{tool}.py", *flags)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_index_is_made_searched_added_to_and_taken_from(
    data: Path, model: Path, tmp_path: Path
) -> None:
    index = ("--model", model, "--out", tmp_path / "index")
    query = data / "class1" / "2.png"
    search = ("tools/search.py", tmp_path / "index", query, "-k", "3")
    done = called(*search)
    assert done.returncode == 2
    assert "is no index: index.json is missing" in done.stderr
    done = called("tools/index.py", *index, "--data", data)
    assert done.returncode == 0, done.stderr
    assert "24 images, 96 wide, exact, no threshold" in done.stdout
    page = ("--page", tmp_path / "search.html", "--threshold", "0.999")
    done = called(*search, *page)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].strip() == "it is in the index itself and no hit: class1/2.png"
    assert not any("class1/2.png  class1" in line for line in lines)
    assert len(lines) == 7
    assert ", same above 0.999, among 24 images" in lines[0]
    assert (tmp_path / "search.html").read_text().count("data:image/") == 4

    done = called("tools/index.py", *index, "--remove", "class1/2.png")
    assert done.returncode == 0, done.stderr
    assert "23 images" in done.stdout
    assert "class1/2.png  class1" not in called(*search, "--page", "").stdout
    done = called("tools/index.py", *index, "--remove", "class1/2.png")
    assert done.returncode == 2
    assert "no image 'class1/2.png'; nothing was removed" in done.stderr
    done = called("tools/index.py", *index, "--data", data, "--remove", "class0/0.png")
    assert done.returncode == 2
    assert "error: --remove and --data are two steps" in done.stderr
    done = called("tools/index.py", *index, "--data", data, "--add")
    assert "24 images" in done.stdout
    more: list[str | Path] = ["--out", tmp_path / "index", "--data", data, "--add"]
    no_run = called("tools/index.py", "--model", "test_resnet", *more)
    assert no_run.returncode == 2
    assert "an index needs the folder of a run or a bundle" in no_run.stderr
    other = called("tools/index.py", "--model", model, "--size", "64", *more)
    assert other.returncode == 2
    assert "with other weights or another --size" in other.stderr


@pytest.mark.parametrize("engine", ["ann", "qdrant"])
def test_other_engines_find_what_the_exact_one_does(
    data: Path, model: Path, tmp_path: Path, engine: str
) -> None:
    record = []
    for name in ("exact", engine):
        engines = {"ann": ["--ann"], "qdrant": ["--qdrant", f"{tmp_path}/db#faces"]}
        more = engines.get(name, [])
        out = tmp_path / name
        flags: tuple[str | Path, ...] = ("--model", model, "--data", data, "--out", out, *more)
        done = called("tools/index.py", *flags)
        assert done.returncode == 0, done.stderr
        query = data / "class2" / "1.png"
        search: list[str | Path] = [out, query, "-k", "5", "--page", ""]
        if name == "qdrant":
            alone = called("tools/search.py", *search)
            assert alone.returncode == 2
            assert "give --qdrant" in alone.stderr
            added = called("tools/index.py", *flags[:6], "--add")
            assert added.returncode == 2
            assert "give --qdrant" in added.stderr
            search += more
        done = called("tools/search.py", *search)
        assert done.returncode == 0, done.stderr
        record.append(done.stdout)
    assert record[0] == record[1]


def test_a_bundle_has_all_that_an_embedding_needs(data: Path, model: Path, tmp_path: Path) -> None:
    figures("verify", "--model", model, "--data", data, *ALONE, out=model / "verify.json")
    done = called("tools/bundle.py", model, tmp_path / "bundle", "--onnx")
    assert done.returncode == 0, done.stderr
    assert "model.onnx differs from torch by at most, for batches of 1: " in done.stdout
    facts = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    kept = json.loads((model / "verify.json").read_text())["facts"]["threshold"]
    assert facts["threshold"] == kept
    assert "AUC" in facts["figures"]["verify"]["figures"]
    knn = ("--data", data, "--k", "3", *ALONE)
    a = figures("knn", "--model", model, *knn, out=tmp_path / "a.json")["figures"]
    b = figures("knn", "--model", tmp_path / "bundle", *knn, out=tmp_path / "b.json")["figures"]
    assert a == b
    done = called("tools/bundle.py", model, data)
    assert done.returncode == 2
    assert "exists and is not a bundle" in done.stderr


def test_an_index_is_not_searched_with_other_weights(
    data: Path, model: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "run")
    done = called("tools/index.py", "--model", tmp_path / "run", "--data", data)
    assert done.returncode == 0, done.stderr
    torch.manual_seed(1)
    other = Encoder(timm.create_model("test_resnet", num_classes=0))
    export(other, tmp_path / "run" / "encoder", ViewsConfig(size=32))
    done = called("tools/search.py", tmp_path / "run", data / "class0" / "0.png", "--page", "")
    assert done.returncode == 2
    assert "has other weights than when the index was made" in done.stderr


def test_a_baseline_of_the_same_name_does_not_take_a_models_place(
    data: Path, model: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "random")
    knn = ("--data", data, "--k", "1", "--baselines", "random")
    record = figures("knn", "--model", "random", *knn, out=tmp_path / "a.json", cwd=tmp_path)
    same = figures("knn", "--model", model, *knn, out=tmp_path / "b.json")
    assert record["figures"] == same["figures"]
    assert list(record["baselines"]) == ["random (2)"]


def test_runs_of_other_seeds_give_a_mean_and_a_deviation(
    data: Path, model: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = Encoder(timm.create_model("test_resnet", num_classes=0))
    export(other, tmp_path / "other" / "encoder", ViewsConfig(size=32))
    knn = ("--data", data, "--k", "3", *ALONE)
    name, means = "k-NN, k 3, T 0.1", []
    for run_of_seed in (model, tmp_path / "other"):
        record = figures("knn", "--model", run_of_seed, *knn, out=tmp_path / "a.json")
        means.append(record["figures"][name]["value"])
    seeds = ("--seeds", tmp_path / "other")
    record = figures("knn", "--model", model, *knn, *seeds, out=tmp_path / "b.json")
    expected = f"{np.mean(means):.3f} +- {np.std(means, ddof=1):.3f}"
    assert record["facts"][f"{name} over 2 seeds"] == expected


def test_broken_weights_end_with_one_sentence(data: Path, model: Path, tmp_path: Path) -> None:
    encoder = Encoder(timm.create_model("test_resnet", num_classes=0))
    torch.nn.init.constant_(next(encoder.parameters()), torch.nan)
    export(encoder, tmp_path / "encoder", ViewsConfig(size=32))
    for tool in ("linear", "verify", "health", "index"):
        done = called(f"tools/{tool}.py", "--model", tmp_path, "--data", data)
        assert done.returncode == 3
        assert "of conv1.0.weight are not finite (nan or infinite)" in done.stderr


def test_an_embedder_gives_the_embeddings_of_the_tools(
    data: Path, model: Path, tmp_path: Path
) -> None:
    done = called("tools/index.py", "--model", model, "--data", data, "--out", tmp_path / "index")
    assert done.returncode == 0, done.stderr
    expected = torch.from_numpy(np.load(tmp_path / "index" / "embeddings-1.npy"))
    embedder = selfsup.load(model)
    files = sorted(data.rglob("*.png"))
    record = embedder.embed(files)
    torch.testing.assert_close(record, expected, atol=1e-4, rtol=0)
    images = torch.stack([torch.from_numpy(np.array(decode(f))) for f in files])
    with torch.inference_mode():
        together = embedder(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(together, expected, atol=2e-2, rtol=0)  # resized at once, in floats


def test_nothing_is_sent_while_searching(data: Path, model: Path, tmp_path: Path) -> None:
    paths = unplugged(tmp_path / "blocked")
    out = tmp_path / "index"
    commands: list[list[str | Path]] = [
        ["tools/index.py", "--model", model, "--data", data, "--out", out],
        ["tools/search.py", out, data / "class0" / "0.png", "--page", tmp_path / "p.html"],
        ["tools/health.py", "--model", model, "--data", data, "--out", tmp_path / "h.json"],
    ]
    for command in commands:
        done = run(sys.executable, *command, PYTHONPATH=paths)
        assert done.returncode == 0, done.stderr
