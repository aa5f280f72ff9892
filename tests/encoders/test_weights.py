"""Weight files: loaded completely or not at all, and their code never runs."""

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from weight_families import load_third_party

from selfsup.config import Format
from selfsup.core.errors import UserError
from selfsup.encoders.third_party import select_tensors
from selfsup.encoders.weights import read_file


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state(seed: int) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in network(seed).state_dict().items()}


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def load(model: nn.Module, file: Path, format: Format = "timm") -> None:
    load_third_party(model, select_tensors(read_file(file), file, format), file, format)


def same(model: nn.Module, tensors: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, tensors[k]) for k, v in model.state_dict().items())


class Trap:
    """An object whose unpickling creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "x.pt"])
def test_weights_of_either_kind_fill_a_network(tmp_path: Path, name: str) -> None:
    model = network(0)
    load(model, write(tmp_path / name, state(1)))
    assert same(model, state(1))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "encoder.", "backbone.", "module.encoder.model."]
)
def test_prefixes_of_wrappers_are_removed(tmp_path: Path, prefix: str) -> None:
    model = network(0)
    file = write(tmp_path / "x.pth", {prefix + k: v for k, v in state(1).items()})
    load(model, file)
    assert same(model, state(1))


@pytest.mark.parametrize(
    ("wrapper", "format"),
    [("state_dict", "timm"), ("model", "timm"), ("teacher", "dino"), ("student", "dino")],
)
def test_weights_are_read_from_entries_of_training_scripts(
    tmp_path: Path, wrapper: str, format: Format
) -> None:
    torch.save({"epoch": 3, wrapper: state(1)}, tmp_path / "x.pth")
    model = network(0)
    load(model, tmp_path / "x.pth", format)
    assert same(model, state(1))


def test_tensors_that_the_network_does_not_have_are_ignored(tmp_path: Path) -> None:
    model = network(0)
    more = {**state(1), "head.weight": torch.ones(3)}
    load(model, write(tmp_path / "x.safetensors", more))
    assert same(model, state(1))


def test_a_file_with_missing_tensors_says_how_many_match_and_changes_nothing(
    tmp_path: Path,
) -> None:
    model = network(0)
    incomplete = state(1)
    del incomplete["2.weight"]
    file = write(tmp_path / "x.safetensors", incomplete)
    with pytest.raises(UserError, match=r"has only 7 of 8 tensors; not 2.weight\. .*--partial"):
        load(model, file)
    assert same(model, state(0))


def test_a_file_of_other_shapes_says_which_and_changes_nothing(tmp_path: Path) -> None:
    model = network(0)
    file = write(tmp_path / "x.pth", {**state(1), "0.weight": torch.ones(4, 5)})
    with pytest.raises(UserError, match=r"its 0.weight has shape \[4, 5\], the model's \[4, 3\]"):
        load(model, file)
    assert same(model, state(0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_with_code_is_refused_and_its_code_does_not_run(
    tmp_path: Path, wrapped: bool
) -> None:
    executed = tmp_path / "executed"
    trap = Trap(executed)
    torch.save({"state_dict": state(1), "args": trap} if wrapped else trap, tmp_path / "x.pth")
    model = network(0)
    with pytest.raises(UserError, match="can run code"):
        load(model, tmp_path / "x.pth")
    assert not executed.exists()
    assert same(model, state(0))


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"<html>" * 50])
def test_garbage_is_a_users_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        select_tensors(read_file(tmp_path / name), tmp_path / name, "timm")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_missing_file_is_a_users_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="does not exist"):
        select_tensors(read_file(tmp_path / name), tmp_path / name, "timm")


@pytest.mark.parametrize("held", [[torch.ones(2)], {"a": 3}, torch.ones(2)])
def test_a_file_without_named_tensors_is_a_users_error(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"no named tensors|has no network where"):
        select_tensors(read_file(tmp_path / "x.pth"), tmp_path / "x.pth", "timm")
