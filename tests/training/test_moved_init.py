"""A run goes on from its own checkpoint after the weights of --init have moved or are gone."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from launch import called, kill_after, logged, recipe_command, run
from pictures import folder

import selfsup
from selfsup.config import EncoderConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import build, export, load

pytestmark = pytest.mark.slow

STEPS = 8
FLAGS = ("--classes", "3", "--images", "2", "--steps", str(STEPS), "--save-every", "2")


def export_with_head(where: Path) -> tuple[str, ...]:
    """An encoder that selfsup exported, whose head of width 24 is no default."""
    torch.manual_seed(0)
    encoder = build(EncoderConfig(name="test_resnet"), 20)
    encoder.set_head(24)
    views = ViewsConfig(size=20, mean=(0.1, 0.2, 0.3), std=(0.2, 0.3, 0.4), crop=0.7, squash=True)
    export(encoder, where / "encoder", views)
    return ("--init", str(where), "--optim.head-factor", "3")


def timm_folder(where: Path) -> tuple[str, ...]:
    """A ViT that timm saved with a classifier, at a size that is not one of whole patches."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=7, img_size=32)
    view = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    timm.models.save_for_hf(model, str(where), model_config={"pretrained_cfg": view})
    flags = ("--views.size", "40", "--encoder.pooling", "mean", "--lora", "2")
    return ("--init", str(where), *flags, "--method.dim", "8")


def file_of_weights(where: Path) -> tuple[str, ...]:
    """Tensors alone, whose network is named by a flag."""
    where.mkdir()
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)
    safetensors.torch.save_file(model.state_dict(), where / "weights.safetensors")
    flags = ("--encoder.name", "test_vit", "--views.size", "32", "--freeze", "1")
    return ("--init", str(where / "weights.safetensors"), *flags)


def an_older_run(where: Path) -> tuple[str, ...]:
    """A pretrained run of arguments of its own."""
    small = "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
    images = folder(where.parent / "others")
    flags = ("--encoder.args", small, "--views.size", "16", "--batch", "8", "--steps", "1")
    done = called("recipes/pretrain_simclr.py", "--data", images, "--out", where, *flags)
    assert done.returncode == 0, done.stderr
    return ("--init", str(where), "--method.dim", "8")


STARTS = [export_with_head, timm_folder, file_of_weights, an_older_run]


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(
        out / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors"
    )


@pytest.mark.parametrize("start", STARTS)
def test_a_killed_run_goes_on_exactly_without_the_weights_that_it_started_from(
    tmp_path: Path, start: Callable[[Path], tuple[str, ...]]
) -> None:
    data, init = folder(tmp_path / "images"), tmp_path / "init"
    given = start(init)
    flags = ("--data", str(data), *given, *FLAGS, "--log-every", "1", "--out")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    done = called("recipes/finetune_triplet.py", *flags, unbroken)
    assert done.returncode == 0, done.stderr
    again = recipe_command("recipes/finetune_triplet.py", *flags, killed)
    kill_after(random.randint(3, STEPS - 2), again, killed)
    shutil.rmtree(init)
    done = run(*again)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert logged(killed) == STEPS
    whole, resumed = tensors(unbroken), tensors(killed)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(x, resumed[name]) for name, x in whole.items())
    assert load(killed)[1] == load(unbroken)[1]


def test_a_finished_run_needs_nothing_of_what_it_started_from(tmp_path: Path) -> None:
    data, init = folder(tmp_path / "images"), tmp_path / "init"
    export_with_head(init)
    settings: dict[str, Any] = {"classes": 3, "images": 2, "steps": 2}
    first = selfsup.finetune(data, out=tmp_path / "run", init=init, **settings)
    shutil.rmtree(init)
    again = selfsup.finetune(data, out=tmp_path / "run", init=init, **settings)
    assert again.settings == first.settings


def test_a_pretraining_goes_on_without_the_weights_that_it_started_from(tmp_path: Path) -> None:
    data, init = folder(tmp_path / "images"), tmp_path / "init"
    export_with_head(init)
    settings: dict[str, Any] = {"method": "byol", "batch": 8, "steps": 2}
    first = selfsup.pretrain(data, out=tmp_path / "run", init=init, **settings)
    init.rename(tmp_path / "elsewhere")
    again = selfsup.pretrain(data, out=tmp_path / "run", init=init, **settings)
    assert again.settings == first.settings


def test_weights_that_have_changed_since_do_not_change_the_run(tmp_path: Path) -> None:
    data, init = folder(tmp_path / "images"), tmp_path / "init"
    export_with_head(init)
    settings: dict[str, Any] = {"classes": 3, "images": 2, "steps": 2}
    first = selfsup.finetune(data, out=tmp_path / "run", init=init, **settings)
    shutil.rmtree(init)
    export(build(EncoderConfig(name="test_vit"), 32), init / "encoder", ViewsConfig(size=32))
    again = selfsup.finetune(data, out=tmp_path / "run", init=init, **settings)
    assert again.settings == first.settings


def test_a_run_that_has_no_checkpoint_yet_needs_its_weights(tmp_path: Path) -> None:
    data, init = folder(tmp_path / "images"), tmp_path / "init"
    export_with_head(init)
    settings: dict[str, Any] = {"classes": 3, "images": 2, "steps": 2}
    run = selfsup.finetune(data, out=tmp_path / "run", init=init, **settings)
    shutil.rmtree(run.folder / "checkpoints")
    shutil.rmtree(init)
    with pytest.raises(UserError, match="does not exist"):
        selfsup.finetune(data, out=tmp_path / "run", init=init, **settings)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"encoder": {"name": "resnet18"}}, "encoder.name"),
        ({"views": {"size": 24}}, "views.size 20 -> 24"),
        ({"views": {"crop": 0.9}}, "views.crop 0.7 -> 0.9"),
        ({"init": "timm:resnet18"}, "init "),
    ],
)
def test_other_settings_are_refused_although_the_weights_are_gone(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    data, init = folder(tmp_path / "images"), tmp_path / "init"
    export_with_head(init)
    settings: dict[str, Any] = {"init": init, "classes": 3, "images": 2, "steps": 2}
    selfsup.finetune(data, out=tmp_path / "run", **settings)
    shutil.rmtree(init)
    with pytest.raises(UserError, match=f"started with other settings .*{named}"):
        selfsup.finetune(data, out=tmp_path / "run", **settings | changed)
