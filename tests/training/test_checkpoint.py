"""Checkpoints: what is restored goes on bit for bit, and what is damaged is seen."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from selfsup.core.disk import flush
from selfsup.core.errors import UserError
from selfsup.training import checkpoint
from selfsup.training.checkpoint import load, newest, save, snapshot, steps_of, work_of


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def optimizer_of(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    bias = [p for p in model.parameters() if p.ndim < 2]
    weight = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": weight, "weight_decay": 0.1}, {"params": bias, "weight_decay": 0.0}]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    return torch.optim.AdamW(groups, lr=1 / 3, betas=(0.9, 0.95))


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One step on images that depend on its number."""
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


def identical(a: nn.Module, b: nn.Module) -> bool:
    pairs: list[tuple[Tensor, Tensor]] = list(
        zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
    return all(torch.equal(x, y) for x, y in pairs)


def checkpoints(folder: Path, steps: list[int], keep: int = 10) -> nn.Sequential:
    model = network(0)
    optimizer = optimizer_of("sgd", model)
    for step in steps:
        advance(model, optimizer, step)
        save(folder, snapshot(step, model, optimizer, extra=None), keep=keep)
    return model


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))


def quiet(sentence: str) -> None:
    raise AssertionError(sentence)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("done", [0, 3])
def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path, kind: str, done: int) -> None:
    model = network(0)
    optimizer = optimizer_of(kind, model)
    for step in range(done):
        advance(model, optimizer, step)
    save(tmp_path, snapshot(done, model, optimizer, extra={"seen": [1, 2.5], "name": "x"}), keep=2)
    other = network(1)
    restored = optimizer_of(kind, other)
    for group in restored.param_groups:
        group["lr"] = 99.0  # the checkpoint's counts
    path = newest(tmp_path, quiet)
    assert path is not None
    assert load(path, other, restored) == (done, {"seen": [1, 2.5], "name": "x"})
    assert identical(model, other)
    for step in range(done, done + 3):
        advance(model, optimizer, step)
        advance(other, restored, step)
        assert identical(model, other)


def test_saving_does_not_change_the_run(tmp_path: Path) -> None:
    plain, saved = network(0), network(0)
    one, two = optimizer_of("adamw", plain), optimizer_of("adamw", saved)
    for step in range(3):
        advance(plain, one, step)
        advance(saved, two, step)
        save(tmp_path, snapshot(step, saved, two, extra=None), keep=1)
    assert identical(plain, saved)


def test_without_checkpoints_there_is_no_newest(tmp_path: Path) -> None:
    assert newest(tmp_path, quiet) is None
    assert newest(tmp_path / "missing", quiet) is None


def test_the_newest_is_that_of_the_latest_step(tmp_path: Path) -> None:
    checkpoints(tmp_path, [9, 10, 100])
    path = newest(tmp_path, quiet)
    assert path is not None
    assert path.name == "step-00000100"


def test_damaged_checkpoints_are_skipped_and_told(tmp_path: Path) -> None:
    checkpoints(tmp_path, [1, 2, 3, 4])
    whole = tmp_path / "step-00000003" / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:-7])
    flip_a_bit(tmp_path / "step-00000004" / "optimizer.safetensors")
    (tmp_path / "step-00000002" / "manifest.json").write_text('{"step": 2, "fi')
    told: list[str] = []
    path = newest(tmp_path, told.append)
    assert path is not None
    assert path.name == "step-00000001"
    assert len(told) == 3
    assert all(any(f"step-0000000{i}" in line for line in told) for i in (2, 3, 4))
    assert any("optimizer.safetensors has changed" in line for line in told)
    assert any("model.safetensors has" in line and "bytes of" in line for line in told)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "manifest.json"])
def test_a_checkpoint_with_a_missing_file_is_skipped(tmp_path: Path, file: str) -> None:
    checkpoints(tmp_path, [1, 2])
    (tmp_path / "step-00000002" / file).unlink()
    told: list[str] = []
    path = newest(tmp_path, told.append)
    assert path is not None
    assert path.name == "step-00000001"
    assert f"{file} is missing" in told[0]


def test_when_all_are_damaged_the_user_decides(tmp_path: Path) -> None:
    checkpoints(tmp_path, [1, 2])
    for folder in tmp_path.iterdir():
        flip_a_bit(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"no checkpoint .*step-00000002: .*step-00000001: "):
        newest(tmp_path, quiet)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints(tmp_path, [1, 2, 3, 10], keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]


def test_what_a_killed_save_left_behind_is_ignored_and_replaced(tmp_path: Path) -> None:
    model = checkpoints(tmp_path, [1])
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.part")
    (tmp_path / ".step-00000002.part" / "manifest.json").unlink()
    path = newest(tmp_path, quiet)
    assert path is not None
    assert path.name == "step-00000001"
    save(tmp_path, snapshot(2, model, optimizer_of("sgd", model), extra=None), keep=5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_step_may_be_saved_again(tmp_path: Path) -> None:
    checkpoints(tmp_path, [5])
    model = checkpoints(tmp_path, [5, 5])
    path = newest(tmp_path, quiet)
    assert path is not None
    other = network(1)
    load(path, other, optimizer_of("sgd", other))
    assert identical(model, other)


def test_a_checkpoint_of_another_network_is_a_users_error(tmp_path: Path) -> None:
    checkpoints(tmp_path, [1])
    other = nn.Sequential(nn.Linear(3, 5))
    with pytest.raises(UserError, match="another network"):
        load(tmp_path / "step-00000001", other, torch.optim.SGD(other.parameters(), lr=0.1))


def test_pruning_keeps_the_newest_whole_ones(tmp_path: Path) -> None:
    checkpoints(tmp_path, [1, 2, 3])
    flip_a_bit(tmp_path / "step-00000003" / "model.safetensors")
    (tmp_path / "step-00000002" / "manifest.json").write_text("null")
    model = network(0)
    save(tmp_path, snapshot(4, model, optimizer_of("sgd", model), extra=None), keep=2)
    assert {"step-00000001", "step-00000004"} <= {p.name for p in tmp_path.iterdir()}
    save(tmp_path, snapshot(5, model, optimizer_of("sgd", model), extra=None), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize("name", ["step-best", "step-7", "step-00000009.bak", "notes"])
def test_folders_of_others_are_neither_read_nor_deleted(tmp_path: Path, name: str) -> None:
    checkpoints(tmp_path, [1])
    shutil.copytree(tmp_path / "step-00000001", tmp_path / name)
    checkpoints(tmp_path, [2, 3], keep=1)
    path = newest(tmp_path, quiet)
    assert path is not None
    assert path.name == "step-00000003"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "step-00000003"])


def test_unfinished_checkpoints_of_other_steps_are_cleaned(tmp_path: Path) -> None:
    for name in (".step-00000007.part", ".step-00000001.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    checkpoints(tmp_path, [2])
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("text", ["null", "7", "[]", "", '{"sha256": 1}', "[" * 100_000])
def test_a_manifest_of_other_json_is_damage(tmp_path: Path, text: str) -> None:
    checkpoints(tmp_path, [1, 2])
    (tmp_path / "step-00000002" / "manifest.json").write_text(text)
    told: list[str] = []
    path = newest(tmp_path, told.append)
    assert path is not None
    assert path.name == "step-00000001"
    assert told[0].startswith("skipped step-00000002: manifest.json")


def test_a_file_in_the_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoints(tmp_path, [1])
    (tmp_path / "step-00000002").touch()
    told: list[str] = []
    newest(tmp_path, told.append)
    assert told == ["skipped step-00000002: it is a file"]
    model = network(0)
    with pytest.raises(UserError, match=r"cannot write .*step-00000002"):
        save(tmp_path, snapshot(2, model, optimizer_of("sgd", model), extra=None), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_folders_of_others_beside_checkpoints_are_no_steps(tmp_path: Path) -> None:
    for name in ("step-best", "step-00000007", "step-00000012.part", "notes"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert steps_of(tmp_path) == [7]


def test_all_of_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[str, list[str]]] = []

    def told(path: Path) -> None:
        flushed.append((path.name, [p.name for p in tmp_path.iterdir()]))
        flush(path)

    monkeypatch.setattr(checkpoint, "flush", told)
    checkpoints(tmp_path, [1])
    partial = ".step-00000001.part"
    before = [(name, [partial]) for name in (*checkpoint.FILES, "manifest.json", partial)]
    assert flushed == [*before, (tmp_path.name, ["step-00000001"])]


@pytest.mark.skipif(os.name != "posix", reason="files have no permissions of a group here")
def test_who_may_read_one_file_of_a_checkpoint_may_read_all(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        checkpoints(tmp_path, [1])
    finally:
        os.umask(before)
    files = (tmp_path / "step-00000001").iterdir()
    assert {file.stat().st_mode & 0o777 for file in files} == {0o644}


def test_groups_of_parameters_have_the_names_of_this_run_and_settings_of_the_checkpoint(
    tmp_path: Path,
) -> None:
    model = nn.Linear(2, 2)

    def named(name: str, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": list(model.parameters()), "name": name}], lr=lr)

    save(tmp_path, snapshot(1, model, named("of an older version", 0.5), extra=None), keep=1)
    optimizer = named("weights", 0.1)
    load(tmp_path / "step-00000001", model, optimizer)
    (group,) = optimizer.param_groups
    assert (group["name"], group["lr"]) == ("weights", 0.5)


def test_damage_that_keeps_size_and_time_of_a_file_is_seen(tmp_path: Path) -> None:
    checkpoints(tmp_path, [1, 2])
    file = tmp_path / "step-00000002" / "model.safetensors"
    status = file.stat()
    flip_a_bit(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    told: list[str] = []
    path = newest(tmp_path, told.append)
    assert path is not None
    assert path.name == "step-00000001"
    assert told == ["skipped step-00000002: model.safetensors has changed since it was written"]


def test_what_was_trained_on_what_is_that_of_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    model, folder = network(0), tmp_path / "checkpoints"
    optimizer = optimizer_of("sgd", model)
    for step in (1, 2):
        taken = snapshot(step, model, optimizer, extra=None, work={"images": step})
        save(folder, taken, keep=5)
    assert work_of(tmp_path) == {"images": 2}
    flip_a_bit(folder / "step-00000002" / "model.safetensors")
    assert work_of(tmp_path) == {"images": 1}
    (folder / "step-00000001" / "manifest.json").unlink()
    assert work_of(tmp_path) is None
