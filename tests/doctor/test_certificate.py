"""The doctor: right methods pass, and two wrong ways are caught though their loss is right."""

import importlib.metadata
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import ROOT, run

from selfsup.core.errors import UserError
from selfsup.doctor.certificate import (
    LIMITS,
    Line,
    Measurement,
    _line,
    certificate,
    error,
    work,
)
from selfsup.doctor.machine import Package, _module, packages
from selfsup.losses.shares import Share, share_of, shared_out
from tools.doctor import Config as DoctorConfig
from tools.doctor import main as doctor

pytestmark = pytest.mark.slow

NAMES = ["simclr", "byol", "dino", "proxies"]


def measurement(**gradients: Any) -> Measurement:
    return Measurement(1.0, {name: torch.tensor(g) for name, g in gradients.items()}, {})


def test_the_error_is_that_of_the_worst_parameter() -> None:
    reference = measurement(a=[3.0, 4.0], b=[10.0, 0.0])
    assert error(reference, reference) == 0
    assert error(measurement(a=[3.0, 4.5], b=[10.0, 0.1]), reference) == pytest.approx(0.1)
    assert error(measurement(a=[3.0, 4.0], b=[10.0, 3.0]), reference) == pytest.approx(0.3)


def test_a_parameter_with_hardly_a_gradient_is_measured_by_a_tenth_of_all() -> None:
    reference = measurement(a=[0.0, 10.0], b=[1e-9])
    assert error(measurement(a=[0.0, 10.0], b=[1e-3]), reference) == pytest.approx(1e-3, rel=1e-4)


def test_a_gradient_that_is_no_number_is_an_infinite_error() -> None:
    reference = measurement(a=[3.0, 4.0], b=[10.0, 0.0])
    for a, b in ([3.0, 4.0], [math.nan, 0.0]), ([math.inf, 4.0], [10.0, 0.0]):
        broken = measurement(a=a, b=b)
        assert error(broken, reference) == math.inf
        assert not line(broken, reference).passed


def test_numbers_of_ten_bits_are_off_in_a_certificate_and_small_losses_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def measure(names: list[str], **settings: Any) -> dict[str, Measurement]:
        allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        monkeypatch.setattr("selfsup.losses.shares.world", lambda: (0, 2))
        with shared_out():
            seen.append((*allowed, share_of(4, 1, torch.device("cpu")) == Share(0, 2)))
        return {}

    backends: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    before = [backend.allow_tf32 for backend in backends]
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr("selfsup.doctor.certificate.measure", measure)
    try:
        for backend in backends:
            backend.allow_tf32 = True
        work(tmp_path / "found", [])
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
    assert seen == [(False, False, True)] * 2


def test_a_wrong_loss_does_not_pass_with_a_right_gradient() -> None:
    reference = measurement(a=[3.0, 4.0])
    assert line(reference, reference).passed
    assert not line(reference._replace(loss=1.01), reference).passed
    assert not line(reference._replace(loss=math.nan), reference).passed


def line(result: Measurement, reference: Measurement) -> Line:
    return _line("x", 1, 2, "no", "cpu", result, reference)


@pytest.mark.grid
@pytest.mark.slow
def test_right_methods_have_one_gradient_on_this_machine() -> None:
    lines = certificate(NAMES)
    assert {line.method for line in lines} == set(NAMES)
    ways = {(line.processes, line.micro_batches, line.precision) for line in lines}
    assert ways == {(p, m, x) for p, m in ((1, 2), (2, 1), (2, 2)) for x in LIMITS}
    assert all(line.passed for line in lines)
    assert max(line.error for line in lines if line.precision == "no") < 2e-5


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("way", ["factor", "gradient"])
def test_a_wrong_way_is_caught_although_its_loss_is_right(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", way)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    lines = certificate(["simclr"], script=str(ROOT / "tests" / "workers" / "wrong.py"))
    assert {line.passed for line in lines if line.processes == 1} == {True}
    two = [line for line in lines if line.processes == 2]
    assert len(two) == 4
    assert not any(line.passed for line in two)
    assert min(line.error for line in two) > 0.3
    assert max(line.loss for line in two if line.precision == "no") < 1e-6
    assert max(line.loss for line in two) < 1e-3


@pytest.mark.slow
def test_processes_that_cannot_train_are_told_in_their_own_words(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise RuntimeError('out of memory on device 3')")
    message = "1 processes on cpu could not train: .*RuntimeError: out of memory on device 3"
    with pytest.raises(UserError, match=message):
        certificate(["simclr"], script=str(script))


@pytest.mark.slow
def test_processes_that_hang_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "stuck.py"
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr("selfsup.doctor.certificate.TIMEOUT", 2)
    with pytest.raises(UserError, match="1 processes on cpu"):
        certificate(["simclr"], script=str(script))


def test_dependencies_are_found_and_extras_may_be_missing() -> None:
    by_name = {p.name: p for p in packages()}
    assert not [p for p in by_name.values() if p.problem and not p.extra]
    assert by_name["torch"].version == torch.__version__.split("+")[0]
    assert by_name["pyarrow"].extra == "data"
    assert "ruff" not in by_name


def test_a_package_that_is_broken_old_or_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["nonesuch>=1", "numpy>=99", "kornia>=0.1", 'neither>=1; extra == "data"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needs)

    def broken(name: str) -> None:
        raise OSError("libfoo.so:\nundefined symbol")

    monkeypatch.setattr("importlib.import_module", broken)
    missing, old, unusable, extra = packages()
    assert missing == Package("nonesuch", "", "", "is not installed")
    assert old.problem == "is not >=99"
    assert unusable.problem == "cannot be imported: OSError: libfoo.so: undefined symbol"
    assert extra == Package("neither", "", "data", "")


def test_an_optional_package_that_is_broken_is_said_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [Package("torch", "9", "", ""), Package("faiss-cpu", "1", "bench", "is not >=99")]
    monkeypatch.setattr("selfsup.doctor.machine.packages", lambda: broken)
    right = Line("x", 1, 2, "no", "cpu", 0.0, 0.0, True)
    monkeypatch.setattr("tools.doctor._certificate", lambda only: [right])
    doctor(DoctorConfig())
    printed = capsys.readouterr().out
    assert "is not >=99 (for selfsup[bench])" in printed
    assert "all is well" in printed


@pytest.mark.parametrize(
    ("name", "module"),
    [("faiss-cpu", "faiss"), ("albumentationsx", "albumentations"), ("pillow", "PIL"),
     ("qdrant-client", "qdrant_client"), ("scikit-learn", "sklearn"), ("torch", "torch"),
     ("pylance", "lance"), ("psycopg", "psycopg"),
     ("pyyaml", "yaml"), ("types-PyYAML", "yaml-stubs")],
)  # fmt: skip
def test_a_package_is_imported_under_its_own_name(name: str, module: str) -> None:
    assert _module(name) == module


def test_packages_of_every_extra_but_the_tests_are_listed() -> None:
    extras = {p.extra for p in packages()}
    known = {"", "ann", "bench", "data", "lance", "onnx", "postgres", "qdrant", "remote", "track"}
    assert extras == known  # faiss-cpu is listed once, for the benchmarks
    names = [p.name for p in packages()]
    assert len(set(names)) == len(names)
    assert {"simplejpeg", "usearch", "qdrant-client", "onnx", "s3fs"} <= set(names)


def test_a_checkout_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.requires", missing)
    assert packages() == [Package("selfsup", "", "", "is not installed: pip install -e .")]


@pytest.mark.slow
def test_the_command_says_that_all_is_well() -> None:
    done = run(sys.executable, "-m", "selfsup", "doctor", "--only", "moco-v2")
    assert done.returncode == 0, done.stderr
    assert "  torch " in done.stdout
    assert "all is well" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


@pytest.mark.grid
@pytest.mark.slow
def test_the_command_says_for_machines_that_all_is_well() -> None:
    done = run(sys.executable, "-m", "selfsup", "doctor", "--only", "byol", "--json")
    record = json.loads(done.stdout)
    assert record["passed"]
    assert len(record["certificate"]) == 6
    assert record["devices"]["processes"].startswith("gloo")
