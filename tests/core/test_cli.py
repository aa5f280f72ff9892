"""The command line: settings from a file and flags, quick help."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launch import ROOT, called, environment

from recipes.pretrain_simclr import Config
from selfsup.__main__ import usage
from selfsup.catalog import finetuning_recipe
from selfsup.core.cli import parse
from selfsup.core.errors import UserError
from selfsup.core.settings import to_dict
from tools.search import Config as SearchConfig

NEEDED = ["--data", "images", "--out", "run"]


def test_flags_override_the_file_and_the_file_overrides_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: images\nout: run\nseed: 3\noptim: {lr: 1e-3}\nviews: {area: [0.2, 1]}\n")
    config = parse(Config, ["--config", str(file), "--seed", "4"])
    assert (config.seed, config.optim.lr, config.views.area) == (4, 1e-3, (0.2, 1))
    assert config.optim.momentum == Config.optim.momentum
    assert config.views.size == Config.views.size  # the recipe's default, not the view's


def test_a_written_config_is_read_back_equal(tmp_path: Path) -> None:
    config = parse(Config, [*NEEDED, "--micro-batch", "8", "--optim.lr", "0.3"])
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    assert parse(Config, [f"--config={file}"]) == config


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse(Config, NEEDED).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sede: 1", "line 1: unknown setting 'sede' (did you mean 'seed'?)"),
        ("views:\n  size: big", "line 2: size must be a whole number, not 'big'"),
        (
            "views:\n  interpolation: cubic",
            "line 2: interpolation must be one of bilinear, bicubic",
        ),
        ("views: 3", "line 1: views must hold settings by name (size, views, area...), not 3"),
        ("micro_batch: x", "line 1: micro_batch must be a whole number or empty, not 'x'"),
        ("views: {area: [1]}", "line 1: area must be a list of 2 numbers, not [1]"),
        ("sync_bn: 1", "line 1: sync_bn must be true or false, not 1"),
        ("- a", "must hold settings as `name: value`"),
        ("a: [", "is not YAML"),
    ],
)
def test_the_error_for_a_wrong_file_has_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        parse(Config, ["--config", str(file), *NEEDED])
    assert sentence in str(caught.value)


def test_a_missing_config_file_is_an_error() -> None:
    with pytest.raises(UserError, match=r"cannot read --config nowhere.yaml"):
        parse(Config, ["--config", "nowhere.yaml"])


@pytest.mark.parametrize("command", ["", "pretrain-simclr", "finetune-triplet", "knn", "demo"])
def test_help_comes_without_torch(command: str) -> None:
    code = (
        "import sys, selfsup.__main__ as m\n"
        f"sys.argv = ['selfsup', *{command.split()!r}, '--help']\n"
        "try:\n    m.main()\nexcept SystemExit: pass\n"
        "print('heavy', sorted({'torch', 'timm', 'sklearn', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    assert "usage" in done.stdout, done.stderr
    assert done.stdout.strip().endswith("heavy []")


def test_an_unknown_command_is_an_error_with_a_suggestion() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "selfsup", "retreival"],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert "no command 'retreival' (did you mean 'retrieval'?)" in done.stderr


def test_the_list_of_commands_fits_80_columns() -> None:
    assert max(map(len, usage().splitlines())) <= 80


def test_help_names_what_is_typed_without_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["selfsup search"])
    with pytest.raises(SystemExit):
        parse(SearchConfig, ["--help"])
    text = capsys.readouterr().out
    assert "usage: selfsup search RUN QUERIES... [flags]" in text
    assert "--run" not in text


@pytest.mark.parametrize("command", ["audit", "index"])
def test_help_of_every_flag_names_those_of_groups(command: str) -> None:
    text = called(f"tools/{command}.py", "--help").stdout
    assert "  --cache.dir " in text
    assert "  --cache.gb " in text
    assert "Config(" not in text


@pytest.mark.parametrize("name", ["triplet", "pairs", "proxies", "circle", "arcface"])
def test_a_family_or_a_loss_chooses_its_recipe(name: str) -> None:
    recipe, _ = finetuning_recipe(name)
    assert recipe.Config.method.name in ("triplet", "pairs", "proxies")


@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_help_of_training_names_the_flags_that_choose_a_recipe(flag: str) -> None:
    tuned = called("tools/finetune.py", "--loss", "arcface", flag).stdout
    assert all(name in tuned for name in ("--loss", "--pipeline", "The flags are those of --loss"))
    assert "--miner" not in tuned  # proxies mine nothing
    assert "--miner" in called("tools/finetune.py", flag).stdout
    trained = called("tools/pretrain.py", "--method", "byol", flag).stdout
    assert all(name in trained for name in ("--method", "--pipeline", "of --method byol"))
    views = called("tools/views.py", flag).stdout
    assert all(name in views for name in ("--data", "--step", "--pipeline"))


def test_a_flag_given_twice_or_without_a_value_is_one_sentence(tmp_path: Path) -> None:
    twice = called("tools/pretrain.py", "--method", "byol", "--method=dcl")
    assert twice.stderr == "error: --method is given 2 times: give it once\n"
    alone = called("tools/pretrain.py", "--data", "x", "--config")
    assert alone.stderr == "error: --config needs a value\n"


def test_a_pipeline_beside_a_file_of_settings_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("batch: 8\n")
    for tool in ("pretrain", "finetune", "views"):
        done = called(f"tools/{tool}.py", "--pipeline", "factory", "--config", file, "--data", "x")
        assert "--pipeline and --config both choose the views: give one" in done.stderr


def test_help_into_a_pipe_that_closes_ends_quietly() -> None:
    command = f"{sys.executable} -m selfsup finetune --help-all | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.split()[-1] in ("0", "141")  # 0 where all fitted into the pipe
