"""A mistake on the command line is one sentence, which names the flag and the mend."""

import sys

import pytest

from recipes.finetune_triplet import Config as Finetune
from recipes.pretrain_simclr import Config as Pretrain
from selfsup.config import KNNConfig
from selfsup.core.cli import parse
from selfsup.core.errors import UserError
from tools.neighbours import Config as Neighbours
from tools.search import Config as Search

NEEDED = ["--data", "a", "--out", "b"]


def sentence(config: type, typed: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["selfsup it"])
    with pytest.raises(UserError) as caught:
        parse(config, typed)
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--rainbow"], "there is no flag --rainbow; selfsup it --help-all lists them"),
        (["--worker", "3"], "there is no flag --worker (did you mean '--workers'?)"),
        (["--blur", "0"], "there is no flag --blur (did you mean '--views.blur'?)"),
        (["--name", "x"], "(did you mean '--encoder.name' or '--optim.name' or '--method.name'?)"),
        (["--optim.nam", "sgd"], "(did you mean '--optim.name'?)"),
        (["--no-batch", "3"], "there is no flag --no-batch: --batch takes a value"),
        (["--gpu"], "--gpu: here it is CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_flag_that_does_not_exist_is_named(
    typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in sentence(Pretrain, [*NEEDED, *typed], monkeypatch)


@pytest.mark.parametrize(
    ("config", "typed", "said"),
    [
        (Pretrain, ["images/"], "'images/' follows no flag: write --data images/"),
        (Pretrain, ["--data", "a", "runs/x"], "'runs/x' follows no flag: write --out runs/x"),
        (Pretrain, [*NEEDED, "x", "y"], "'x y' follows no flag"),
        (Search, ["runs/a", "q.jpg", "--model", "x"], "usage: selfsup it RUN QUERIES... [flags]"),
        (Search, [], "selfsup it needs RUN: usage: selfsup it RUN QUERIES... [flags]"),
    ],
)
def test_a_value_without_its_flag_is_told_where_it_goes(
    config: type, typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in sentence(config, typed, monkeypatch)


@pytest.mark.parametrize(
    ("config", "typed", "said"),
    [
        (Pretrain, ["--data", "a"], "selfsup it needs --out runs/a. The run folder"),
        (Pretrain, ["--out", "a"], "selfsup it needs --data images/. Images: a folder"),
        (KNNConfig, ["--data", "a"], "selfsup it needs --model runs/a. The encoder: "),
        (Pretrain, [*NEEDED, "--batch"], "--batch needs a value. Number of images in one step"),
        (Pretrain, ["--data", "--out", "b"], "--data needs a value. Images: a folder"),
    ],
)
def test_what_is_missing_is_named_with_what_it_is(
    config: type, typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in sentence(config, typed, monkeypatch)


@pytest.mark.parametrize(
    ("config", "typed", "said"),
    [
        (Pretrain, ["--batch", "many"], "--batch must be a whole number, not 'many'"),
        (Pretrain, ["--batch=2.5"], "--batch must be a whole number, not '2.5'"),
        (Pretrain, ["--optim.lr", "fast"], "--optim.lr must be a number, not 'fast'"),
        (Pretrain, ["--optim.name", "adam"], "must be one of sgd, adamw, lars (did you mean"),
        (Pretrain, ["--report", "False"], "takes no value: it is --report or --no-report"),
        (Pretrain, ["--no-report=1"], "takes no value: it is --report or --no-report"),
        (Finetune, ["--method.miner", "hard"], "--method.miner must be one of batch-hard, "),
        (KNNConfig, ["--k", "5", "x"], "--k must be a whole number, not 'x'"),
    ],
)
def test_a_value_of_a_wrong_kind_is_named(
    config: type, typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = ["--data", "a", "--model", "m"] if config is KNNConfig else NEEDED
    assert said in sentence(config, [*needed, *typed], monkeypatch)


def test_what_is_right_is_taken() -> None:
    config = parse(Pretrain, [*NEEDED, "--optim.lr=-0.5", "--no-report", "--save_every", "3"])
    assert (config.optim.lr, config.report, config.save_every) == (-0.5, False, 3)
    assert parse(Search, ["runs/a", "q.jpg", "r.jpg", "-k", "3"]).k == 3
    assert parse(Search, ["-k=3", "runs/a", "q.jpg"]).queries == ("q.jpg",)
    assert parse(KNNConfig, ["--data", "a", "--model", "m", "--k", "1", "5"]).k == (1, 5)
    assert parse(Neighbours, ["a", "b", "--data", "c"]).models == ("a", "b")
