"""What users of other tools type is answered with what it is called here."""

import pytest

from recipes.finetune_triplet import Config as Finetune
from recipes.pretrain_distil import Config as Distil
from recipes.pretrain_simclr import Config as Pretrain
from selfsup.config import KNNConfig
from selfsup.core.cli import parse
from selfsup.core.errors import UserError
from selfsup.core.synonyms import SYNONYMS, flags_of, ours

NEEDED = ["--data", "images", "--out", "run"]


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["--batch-size", "3"], "--batch-size: here it is --batch"),
        (["--batch_size=3"], "--batch_size: here it is --batch"),
        (["--model", "resnet50"], "--model: here it is --encoder.name"),
        (["--img-size", "64"], "--img-size: here it is --views.size"),
        (
            ["--pretrained"],
            "--pretrained: here it is --init with a run, a folder, a file",
        ),
        (["--resume", "x"], "--resume: here it is the same command again"),
        (["--output-dir", "x"], "--output-dir: here it is --out"),
        (["--mixed-precision", "bf16"], "here it is accelerate launch --mixed_precision bf16"),
        (["--fp16"], "--fp16: here it is accelerate launch --mixed_precision"),
        (["--device", "cuda"], "--device: here it is CUDA_VISIBLE_DEVICES"),
        (["--num-workers", "4"], "--num-workers: here it is --workers"),
        (["--learning-rate", "1"], "--learning-rate: here it is --optim.lr"),
        (["--recipe", "byol"], "--recipe: here it is --method"),
        (["batch=3"], "batch=3: settings are flags; here it is --batch 3"),
        (["optim.lr=0.1"], "here it is --optim.lr 0.1"),
        (["lr=0.1"], "lr=0.1: settings are flags; here it is --optim.lr"),
    ],
)
def test_a_flag_of_another_tool_is_answered(typed: list[str], answer: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Pretrain, [*NEEDED, *typed])
    assert answer in str(caught.value)


def test_values_with_an_equals_sign_are_values() -> None:
    assert parse(Pretrain, ["--data", "batch=3", "--out", "lr=1"]).data == "batch=3"
    two = ["--against", "resnet18=a.pth", "resnet34=b.pth"]
    config = parse(KNNConfig, ["--model", "x", "--data", "y", *two])
    assert config.against == ("resnet18=a.pth", "resnet34=b.pth")


@pytest.mark.parametrize("typed", ["--resume", "--fp16", "--precision"])
def test_what_only_training_knows_is_not_answered_elsewhere(typed: str) -> None:
    own = set(flags_of(KNNConfig))
    assert ours(typed.lstrip("-"), own) is None
    assert ours("device", own) is not None
    assert ours(typed.lstrip("-"), set(flags_of(Pretrain))) is not None


@pytest.mark.parametrize("typed", ["weights", "checkpoint", "pretrained", "encoder.weights"])
def test_weights_are_answered_with_where_each_command_has_them(typed: str) -> None:
    assert "--init with a run" in str(ours(typed, set(flags_of(Pretrain))))
    assert "--model timm:NAME" in str(ours(typed, set(flags_of(KNNConfig))))


def test_a_teacher_is_that_of_the_method_or_of_the_file() -> None:
    assert ours("teacher", set(flags_of(Distil))) == "--method.teacher"
    assert ours("teacher", set(flags_of(KNNConfig))) == "--moving-average"


def test_a_teacher_beside_a_ranking_loss_is_answered_with_its_flag() -> None:
    own = set(flags_of(Finetune))
    for typed in ("teacher", "distil", "distill", "teacher-model"):
        assert ours(typed, own) == "--distil.teacher"
    assert ours("distil-weight", own) == "--distil.weight"
    assert ours("distill", set(flags_of(Pretrain))) is None


def test_a_flag_that_a_command_has_is_its_own() -> None:
    assert parse(KNNConfig, ["--model", "resnet18", "--data", "y"]).model == "resnet18"


def test_every_answer_is_a_flag_of_some_command() -> None:
    known = {*flags_of(Pretrain), *flags_of(Finetune), *flags_of(KNNConfig), "method"}
    flags = {answer.split()[0] for answer in SYNONYMS.values() if answer.startswith("--")}
    assert {flag.lstrip("-").rstrip(",") for flag in flags} <= known | {"views.mean"}
