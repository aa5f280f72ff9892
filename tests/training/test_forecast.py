"""What a run says of its needs: disk, memory, time, a busy machine and what would be quicker."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small import encoder as small_encoder

from recipes.finetune_triplet import Config as Finetune
from recipes.pretrain_simclr import Config as Pretrain
from selfsup.config import EncoderConfig, ViewsConfig
from selfsup.encoders.encoder import build
from selfsup.training import forecast
from selfsup.training.forecast import (
    Forecast,
    needs,
    quicker_precision,
    seconds_of_image,
    size,
    small_stem_ratio,
)

CPU = torch.device("cpu")


class FakeRun:
    """What a forecast asks of a run, with the lines that it prints."""

    def __init__(self, config: Any, folder: Path = Path()) -> None:
        self.config, self.folder, self.main = config, folder, True
        self.accelerator = SimpleNamespace(device=CPU, num_processes=1)
        self.lines: list[str] = []

    def print_line(self, sentence: str) -> None:
        self.lines.append(sentence)


class Clock:
    """A clock that tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("selfsup.training.forecast.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(forecast, "seconds_of_image", lambda encoder, side, *_: side / 1e4)
    monkeypatch.setattr(forecast, "waited_for_cores", lambda: None)
    return Clock(monkeypatch)


def config(**more: Any) -> Pretrain:
    views = ViewsConfig(size=96)
    settings: dict[str, Any] = {"batch": 256, "epochs": 500, "preset": "standard", "workers": 0}
    encoder = EncoderConfig(name="resnet18")
    return Pretrain(data="x", out="y", views=views, encoder=encoder, **(settings | more))


def forecast_of(run: FakeRun, clock: Clock, *, total: int, step: float, first: float) -> list[str]:
    """The lines of a run of such steps, and after how many of them they came."""
    batches: Any = SimpleNamespace(sampler=SimpleNamespace(steps_per_epoch=4))
    of_run: Any = run
    ended = Forecast(of_run, batches, batch=256, total=total, start=0)
    for done in range(1, total + 1):
        clock.now += first if done == 1 else step
        ended(done)
        if run.lines:
            return [f"step {done}", *run.lines]
    return []


def test_the_first_steps_say_how_long_a_run_takes(clock: Clock) -> None:
    run = FakeRun(config())
    said = forecast_of(run, clock, total=800, step=40.0, first=300.0)
    assert said[0] == "step 2"  # one step is long enough
    assert said[1].startswith("about 9 h left on this CPU: 40 s a step, ")  # 798 x 40 s
    assert said[1].endswith(" of memory so far")
    assert "--preset quick" in said[2]
    assert "300 steps" in said[2]


def test_a_forecast_comes_once_and_only_of_steps_that_were_measured(clock: Clock) -> None:
    short = FakeRun(config())
    assert forecast_of(short, clock, total=50, step=0.01, first=9.0) == []  # over at once
    run = FakeRun(config())
    said = forecast_of(run, clock, total=5000, step=0.5, first=60.0)
    assert said[0] == "step 7"  # six steps of half a second are three seconds
    assert said[1].startswith("about 42 min left on this CPU: 0.5 s a step")


def test_steps_whose_images_were_read_before_the_first_are_not_trusted(clock: Clock) -> None:
    said = forecast_of(FakeRun(config(workers=4)), clock, total=5000, step=1.5, first=1.5)
    assert said[0] == "step 10"


@pytest.mark.parametrize(
    ("more", "step"),
    [
        ({"preset": "quick"}, 40.0),  # it is quick already
        ({}, 0.6),  # it does not take half an hour
    ],
)
def test_no_other_preset_is_named_where_it_would_not_be_wiser(
    clock: Clock, more: dict[str, Any], step: float
) -> None:
    said = forecast_of(FakeRun(config(**more)), clock, total=800, step=step, first=1.0)
    assert len(said) == 2


def test_a_quicker_fine_tuning_is_shorter_with_the_same_steps(clock: Clock) -> None:
    tuned = Finetune(data="x", out="y", preset="standard", views=ViewsConfig(size=96, views=1))
    run = FakeRun(replace(tuned, workers=0))
    said = forecast_of(run, clock, total=1000, step=30.0, first=1.0)
    assert said[2].endswith("takes about 50 min")  # 100 steps of 30 s


@pytest.mark.parametrize(
    ("threads", "waited", "fewer"), [(2, 0.5, 1), (2, 0.1, 0), (16, 0.5, 8), (8, 0.9, 1)]
)
def test_a_busy_machine_is_named_with_the_threads_that_would_be_quicker(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, threads: int, waited: float, fewer: int
) -> None:
    times = iter([(10.0, 1.0), (20.0, 1.0 + 10 * waited / (1 - waited))])
    monkeypatch.setattr(forecast, "waited_for_cores", lambda: next(times))
    monkeypatch.setattr("selfsup.training.forecast.torch.get_num_threads", lambda: threads)
    said = forecast_of(FakeRun(config(preset="quick")), clock, total=99, step=9.0, first=9.0)
    busy = [line for line in said if "this machine is busy" in line]
    assert bool(busy) == bool(fewer)
    if fewer:
        assert f"OMP_NUM_THREADS={fewer} would be faster" in busy[0]
        assert f"the {threads} threads of this run wait {waited:.0%} of their time" in busy[0]


def test_comparing_networks_leaves_random_states_as_they_were() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network = EncoderConfig(name="test_resnet", stem="standard")
    assert seconds_of_image(network, 16, 3, CPU) > 0
    assert small_stem_ratio(replace(config(), encoder=network)) == 0
    auto = replace(config(), encoder=EncoderConfig(name="test_resnet"), views=ViewsConfig(size=32))
    assert small_stem_ratio(auto) > 2
    assert torch.equal(torch.get_rng_state(), before)


def test_the_work_of_a_small_stem_is_that_of_its_products() -> None:
    """A stem of stride 1 without pooling has 16 times the pixels in every later layer."""
    auto = replace(config(), views=ViewsConfig(size=64))
    assert small_stem_ratio(auto) == pytest.approx(16, rel=0.25)
    assert small_stem_ratio(replace(auto, views=ViewsConfig(size=96))) == 0
    assert small_stem_ratio(replace(auto, encoder=EncoderConfig(name="test_mlp_mixer"))) == 0


@pytest.mark.parametrize(
    ("make", "moments"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 4),
        (lambda p: torch.optim.AdamW(p, lr=0.1), 8),
    ],
)
def test_the_need_of_disk_is_that_of_the_checkpoints_which_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, moments: int
) -> None:
    network = build(EncoderConfig(name="test_resnet"), 64)
    method: Any = SimpleNamespace(
        exported=network, parameters=network.parameters, state_dict=network.state_dict
    )
    numbers = sum(p.numel() for p in network.parameters())
    state = sum(x.numel() * x.element_size() for x in network.state_dict().values())
    run: Any = FakeRun(config(keep=3), tmp_path)
    rows = needs(run, method, make(network.parameters()))
    disk = next(row for row in rows if "disk" in row)
    assert f"3 checkpoints of {size(state + moments * numbers)} and an encoder of" in disk
    assert all(len(row) <= 80 for row in rows)
    monkeypatch.setattr(forecast, "free_bytes", lambda folder: 1_000_000)
    rows = needs(run, method, make(network.parameters()))
    assert rows[-1].startswith(f"warning: {tmp_path} needs up to ")
    assert rows[-1].endswith("and 1 MB are free")


def test_needs_of_a_network_without_a_stem_are_told_too(tmp_path: Path) -> None:
    network = small_encoder()
    method: Any = SimpleNamespace(
        exported=network, parameters=network.parameters, state_dict=network.state_dict
    )
    run: Any = FakeRun(config(init="runs/a"), tmp_path)
    rows = needs(run, method, torch.optim.SGD(network.parameters(), lr=0.1))
    assert not any("stem" in row for row in rows)


@pytest.mark.parametrize(
    ("count", "words"),
    [(1_500_000, "1.5 MB"), (44_700_000, "45 MB"), (1_340_000_000, "1.3 GB"), (3.1e11, "310 GB")],
)
def test_bytes_are_told_in_two_digits_or_three(count: float, words: str) -> None:
    assert size(int(count)) == words


@pytest.mark.parametrize(
    ("device", "precision", "supported", "named"),
    [
        ("cuda", "no", True, True),
        ("cuda", "no", False, False),
        ("cuda", "bf16", True, False),
        ("cuda", "fp16", True, False),
        ("cpu", "no", True, False),
    ],
)
def test_bfloat16_is_named_where_a_gpu_that_has_it_computes_in_float32(
    device: str, precision: str, supported: bool, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    of_run: Any = SimpleNamespace(device=torch.device(device), mixed_precision=precision)
    assert ("bf16" in quicker_precision(of_run)) == named
