"""The certificate, way by way, without starting processes."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from workers.gradients import NORMS

from selfsup.doctor import certificate as module
from selfsup.doctor.cases import CASES
from selfsup.doctor.certificate import (
    FIRST,
    Line,
    Measurement,
    certificate,
    error,
    measure,
    prepare,
    work,
)
from selfsup.doctor.machine import packages
from tools.doctor import plain


def measurement(**gradients: Any) -> Measurement:
    return Measurement(1.0, {name: torch.tensor(g) for name, g in gradients.items()}, {})


def test_gradients_of_other_parameters_are_no_comparison() -> None:
    with pytest.raises(AssertionError):
        error(measurement(a=[1.0], b=[1.0]), measurement(a=[1.0]))


def test_each_way_is_held_against_one_big_batch_by_the_limit_of_its_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    off = {(1, 1): 0.0, (1, 2): 5e-5, (2, 1): 2e-4, (2, 2): 0.06}
    lost = {(1, 1): 0.0, (1, 2): 2e-5, (2, 1): 0.0, (2, 2): 0.5}

    def fake(names: list[str], processes: int, device: str, precision: str, script: str) -> Any:
        return {
            count: {
                name: Measurement(
                    2.0 * (1 + lost[processes, count]),
                    {"w": torch.tensor([1 + off[processes, count]], dtype=torch.float64)},
                    {},
                )
                for name in names
            }
            for count in (1, 2)
        }

    monkeypatch.setattr(module, "_run", fake)
    lines = certificate(["one"])
    by_way = {(x.processes, x.micro_batches, x.precision): x for x in lines}
    assert len(lines) == len(by_way) == 6
    for (processes, count, _), line in by_way.items():
        assert line.error == pytest.approx(off[processes, count], abs=1e-9)
        assert line.loss == pytest.approx(lost[processes, count])
    assert {way for way, line in by_way.items() if line.passed} == {
        (1, 2, "no"),
        (1, 2, "bf16"),
        (2, 1, "bf16"),
    }


def test_processes_are_started_as_many_as_asked_and_in_the_precision_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def fake(command: list[str], *, env: dict[str, str], **more: Any) -> Any:
        asked.append((command, env["ACCELERATE_MIXED_PRECISION"]))
        torch.save({1: {"one": (1.0, {}, {})}}, command[-2])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", fake)
    assert module._run(["one"], 2, "cpu", "bf16", "") == {1: {"one": Measurement(1.0, {}, {})}}
    ((command, precision),) = asked
    assert "--nproc_per_node=2" in command
    assert command[-3] == module.__file__
    assert precision == "bf16"


def test_json_has_no_infinity_and_no_nan() -> None:
    line = Line("x", 1, 2, "no", "cpu", math.inf, math.nan, False)
    assert json.loads(json.dumps(plain(line), allow_nan=False)) == {
        "method": "x",
        "processes": 1,
        "micro_batches": 2,
        "precision": "no",
        "device": "cpu",
        "error": None,
        "loss": None,
        "passed": False,
    }


def test_a_process_measures_with_one_and_with_two_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(names: list[str], *, micro_batches: int, **more: Any) -> dict[str, Measurement]:
        return {name: Measurement(float(micro_batches), {}, {}) for name in names}

    monkeypatch.setattr(module, "measure", fake)
    work(tmp_path / "measurements.pt", ["one"])
    saved = torch.load(tmp_path / "measurements.pt", weights_only=True)
    assert {count: each["one"][0] for count, each in saved.items()} == {1: 1.0, 2: 2.0}


def test_what_is_measured_is_the_state_after_some_steps_and_the_gradient_of_the_next_batch() -> (
    None
):
    queued = measure(["moco-v2"], micro_batches=1, steps=2)["moco-v2"]
    assert int(queued.state["queue.added"]) == 32
    step, batches = prepare(CASES["simclr"], lr=0.0)
    plain = measure(["simclr"], micro_batches=1, steps=2)["simclr"]
    assert plain.loss == step.gradient(batches[FIRST + 2]).item()
    normed = measure(["simclr"], micro_batches=1, steps=2, encoder=NORMS["batch"])["simclr"]
    counts = {int(x) for n, x in normed.state.items() if n.endswith("num_batches_tracked")}
    assert counts == {2}


def test_an_early_version_counts_and_an_extra_that_is_too_old_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "importlib.metadata.requires", lambda name: ["numpy>=1", 'pyarrow>=99; extra == "data"']
    )
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.0rc1")
    early, old = packages()
    assert early.problem == ""
    assert old.problem == "is not >=99"


@pytest.mark.parametrize(
    ("kind", "gpus", "devices"),
    [
        ("cuda", 2, ["cuda", "cuda"]),
        ("cuda", 1, ["cuda", "cpu"]),
        ("cpu", 2, ["cpu", "cpu"]),  # the launcher leaves the GPUs out
        ("mps", 0, ["mps", "cpu"]),
    ],
)
def test_processes_are_on_the_device_of_a_run_if_there_is_one_for_each(
    kind: str, gpus: int, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "kind_of_device", lambda: kind)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert [module._device_of(processes) for processes in (1, 2)] == devices
