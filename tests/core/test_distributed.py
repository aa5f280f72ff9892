"""What a launcher asks for and a run cannot do is refused before anything starts."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from launch import environment

from selfsup.core import distributed, processors
from selfsup.core.errors import UserError
from selfsup.doctor import machine


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ACCELERATE_USE_FSDP", "true", "FSDP, which splits weights"),
        ("ACCELERATE_USE_DEEPSPEED", "True", "DeepSpeed, which splits weights"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "parallelism config"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "over 4 steps.*--micro-batch"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "fp8 precision: choose no, fp16 or bf16"),
    ],
)
def test_what_would_train_wrongly_is_refused(name: str, value: str, words: str) -> None:
    with patch.dict(os.environ, {name: value}), pytest.raises(UserError, match=words):
        distributed.start()


def test_usual_launchers_pass() -> None:
    usual = {
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_MIXED_PRECISION": "no",
    }
    with patch.dict(os.environ, usual):
        assert distributed.start().num_processes == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, True),
        ({"CUDA_VISIBLE_DEVICES": ""}, False),
        ({"ACCELERATE_USE_CPU": "true"}, False),
        ({"ACCELERATE_TORCH_DEVICE": "cpu"}, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, True),
    ],
)
def test_a_driver_that_torch_cannot_use_is_told(
    settings: dict[str, str],
    told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU", processors.DEVICE):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert processors.unused_gpu() == ""
    monkeypatch.setattr("selfsup.core.notices._printed", set())
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27")
    monkeypatch.setattr(processors, "DRIVER", driver)
    distributed.start()
    assert ("NVIDIA's driver 470.82.01, and torch" in capsys.readouterr().err) is told


def test_an_apple_gpu_is_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(processors.DEVICE, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert distributed.local_device().type == "cpu"
    assert processors.unused_apple_gpu().startswith("ACCELERATE_TORCH_DEVICE=mps before")
    assert machine.devices()["gpus"] == processors.unused_apple_gpu()
    monkeypatch.setenv(processors.DEVICE, "mps")
    assert distributed.local_device().type == "mps"
    assert processors.unused_apple_gpu() == ""
    assert machine.devices()["gpus"] == "Apple's"
    started = distributed.launch_environment("no", "mps")
    assert started[processors.DEVICE] == "mps"
    assert started["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
    assert processors.DEVICE not in distributed.launch_environment("no", "cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="takes one process"):
        distributed.start()


@pytest.mark.parametrize(
    ("device", "answer"),
    [
        ("mps", "ACCELERATE_TORCH_DEVICE=mps asks for a device that torch"),
        ("cuda:1", "ACCELERATE_TORCH_DEVICE=cuda asks for a device that torch"),
        ("xpu", "ACCELERATE_TORCH_DEVICE is xpu: it may be cuda, mps, cpu"),
    ],
)
def test_a_device_that_is_not_here_is_refused(
    device: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv(processors.DEVICE, device)
    for ask in (distributed.start, distributed.local_device):
        with pytest.raises(UserError, match=answer):
            ask()


@pytest.mark.parametrize("asked", [{"ACCELERATE_USE_CPU": "true"}, {processors.DEVICE: "cpu"}])
def test_a_gpu_that_is_not_wanted_is_left_alone(
    asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name in ("ACCELERATE_USE_CPU", processors.DEVICE):
        monkeypatch.delenv(name, raising=False)
    assert distributed.local_device() == torch.device("cuda", 0)
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert distributed.local_device() == torch.device("cpu")


def test_a_new_process_does_not_take_the_place_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    started = distributed.launch_environment("no", "cpu")
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(started)


def test_a_gpu_that_is_used_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (tmp_path / "version").write_text("Kernel Module  570.1")
    monkeypatch.setattr(processors, "DRIVER", tmp_path / "version")
    assert processors.unused_gpu() == ""


def test_what_an_apple_gpu_lacks_is_computed_on_the_cpu() -> None:
    code = (
        "import os, sys; from selfsup.core.cli import attempt;"
        "name = 'PYTORCH_ENABLE_MPS_FALLBACK';"
        "attempt(lambda: print(os.environ.get(name), 'torch' in sys.modules))"
    )
    for device, answer in (("mps", "1 False"), ("cpu", "None False")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(**{processors.DEVICE: device}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == answer


@pytest.mark.parametrize(
    ("number", "gpus", "device"),
    [("0", 0, "cpu"), ("1", 2, "cuda:1"), ("3", 2, "cuda:1"), ("1", 1, "cuda:0")],
)
def test_processes_of_a_machine_take_its_gpus_in_turn(
    number: str, gpus: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", number)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert distributed.local_device() == torch.device(device)


@pytest.mark.parametrize("number", ["0", "1"])
def test_the_first_process_of_a_machine_is_waited_for_by_the_others(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setenv("LOCAL_RANK", number)
    monkeypatch.setattr(distributed, "wait", lambda: done.append("waited"))
    with distributed.main_process_first():
        done.append("worked")
    assert done == (["worked", "waited"] if number == "0" else ["waited", "worked"])


def test_new_processes_on_the_cpu_see_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    found = {
        device: distributed.launch_environment("bf16", device)["CUDA_VISIBLE_DEVICES"]
        for device in ("cpu", "cuda")
    }
    assert found == {"cpu": "", "cuda": "0,1"}
