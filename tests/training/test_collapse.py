"""The alarm: a run made to collapse is caught, a starving one is named, healthy ones are let be."""

import json
import re
from pathlib import Path

import pytest
from launch import called, recipe
from pictures import folder

from recipes import finetune_triplet
from selfsup.config import EncoderConfig, OptimConfig, TripletConfig, ViewsConfig

pytestmark = pytest.mark.slow

NET = "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
FLAGS = (
    *(
        "--encoder.args",
        NET,
        "--views.size",
        "16",
        "--method.dim",
        "16",
        "--classes",
        "6",
        "--images",
        "4",
    ),
    *("--steps", "200", "--log-every", "10", "--save-every", "1000"),
)
HARD = ("--method.miner", "batch-hard", "--optim.lr", "100")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "images", classes=6, each=8)


def states(out: Path) -> list[str]:
    return [json.loads(line)["state"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_made_to_collapse_is_stopped_within_200_steps(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("--data", data, "--out", out, *FLAGS, *HARD, "--on-collapse", "stop")
    done = recipe("recipes/finetune_triplet.py", *flags)
    assert done.returncode == 4
    told = done.stderr.strip().splitlines()[-1]
    assert told.startswith("error: at step ")
    assert re.search(r"the run is (collapsed|collapsing): ", told)
    assert "try --miner semi-hard, or else a quarter of --optim.lr" in told
    assert int(told.split()[3]) <= 200
    assert states(out)[0] == "healthy"


def test_a_collapsed_run_goes_on_where_it_is_only_warned_of(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("--data", data, "--out", out, *FLAGS, *HARD, "--steps", "160")
    done = called("recipes/finetune_triplet.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "warning: at step " in done.stdout
    assert {"collapsed", "collapsing"} & set(states(out))


def test_a_run_whose_miner_finds_nothing_starves_and_is_not_harmed(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    mining = ("--method.miner", "semi-hard", "--method.margin", "1e-7", "--steps", "20")
    done = called("recipes/finetune_triplet.py", "--data", data, "--out", out, *FLAGS, *mining)
    assert done.returncode == 0, done.stderr
    assert "starving" in states(out)
    assert "no triplet or pair of the batch has a loss to learn from" in done.stdout
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert all(line["loss"] < 1e-6 for line in lines)


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.grid) for seed in range(5, 20))]
)
def test_a_healthy_run_never_raises_the_alarm(data: Path, tmp_path: Path, seed: int) -> None:
    finetune_triplet.main(
        finetune_triplet.Config(
            data=str(data),
            out=str(tmp_path / "run"),
            encoder=EncoderConfig(args=NET),
            views=ViewsConfig(views=1, size=16, area=(0.5, 1), blur=0),
            optim=OptimConfig(name="adamw", lr=1e-3),
            method=TripletConfig(dim=16),
            classes=6,
            images=4,
            steps=60,
            log_every=2,
            save_every=1000,
            seed=seed,
        )
    )
    assert set(states(tmp_path / "run")) == {"healthy"}
