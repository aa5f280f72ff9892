"""What users of other tools type, and what it is called here."""

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfsup.core.errors import UserError
from selfsup.core.flags import flags_with_types

LAUNCHER = "accelerate launch --mixed_precision bf16 (or fp16) before the script"
DEVICES = "CUDA_VISIBLE_DEVICES=0,1 and accelerate launch --num_processes 2 choose the GPUs"
RESUME = "the same command again: a run goes on from its newest checkpoint in --out"
START = "--init with a run, a folder, a file, timm:NAME or hf-hub:NAME"
WEIGHTS = "--model FILE, --model timm:NAME, or --model NAME --init FILE"
AVERAGE = "--moving-average"

SYNONYMS: dict[str, str] = {
    **dict.fromkeys(["batch-size", "train-batch-size", "per-device-train-batch-size"], "--batch"),
    **dict.fromkeys(["model", "arch", "backbone", "model-name", "encoder"], "--encoder.name"),
    **dict.fromkeys(
        ["img-size", "image-size", "input-size", "imgsz", "crop-size", "size"], "--views.size"
    ),
    **dict.fromkeys(["output-dir", "output", "out-dir", "save-dir", "log-dir"], "--out"),
    **dict.fromkeys(["data-dir", "data-path", "dataset", "train-dir", "train", "input"], "--data"),
    **dict.fromkeys(["num-workers", "dataloader-num-workers", "j"], "--workers"),
    **dict.fromkeys(["learning-rate", "lr", "base-lr"], "--optim.lr"),
    **dict.fromkeys(["weight-decay", "wd"], "--optim.weight-decay"),
    **dict.fromkeys(["optimizer", "opt"], "--optim.name"),
    **dict.fromkeys(["warmup-epochs", "warmup-steps", "warmup-ratio"], "--optim.warmup FRACTION"),
    **dict.fromkeys(["num-train-epochs", "num-epochs", "max-epochs"], "--epochs"),
    **dict.fromkeys(["max-steps", "num-steps", "iterations"], "--steps"),
    **dict.fromkeys(["clip-grad", "max-grad-norm", "gradient-clip-val"], "--optim.clip"),
    **dict.fromkeys(
        ["gradient-accumulation-steps", "accumulate-grad-batches", "grad-accum-steps"],
        "--micro-batch IMAGES",
    ),
    **dict.fromkeys(["save-steps", "save-interval"], "--save-every"),
    **dict.fromkeys(["logging-steps", "log-interval"], "--log-every"),
    **dict.fromkeys(["save-total-limit", "checkpoint-hist"], "--keep"),
    **dict.fromkeys(["report-to", "log-wandb", "logger"], "--track"),
    **dict.fromkeys(["temperature", "t"], "--method.temperature"),
    **dict.fromkeys(["margin"], "--method.margin"),
    **dict.fromkeys(["embedding-dim", "embed-dim", "out-dim"], "--method.dim"),
    **dict.fromkeys(["resume", "resume-from-checkpoint", "resume-training"], RESUME),
    **dict.fromkeys(
        ["pretrained", "initial-checkpoint", "checkpoint", "weights", "encoder.weights"], START
    ),
    **dict.fromkeys(["pretrained-weights", "init-from", "finetune-from", "load-from"], START),
    **dict.fromkeys(["distil", "distill", "distill-from", "teacher-model"], "--distil.teacher"),
    **dict.fromkeys(["distil-weight", "distill-weight", "distillation-weight"], "--distil.weight"),
    **dict.fromkeys(["teacher", "ema", "use-ema", "model-ema"], AVERAGE),
    **dict.fromkeys(["mixed-precision", "fp16", "bf16", "amp", "precision"], LAUNCHER),
    **dict.fromkeys(
        ["device", "devices", "gpu", "gpus", "cuda", "accelerator", "nproc-per-node"], DEVICES
    ),
    **dict.fromkeys(["early-stopping-patience", "early-stopping", "probe.patience"], "--patience"),
    **dict.fromkeys(["val-data", "val-dir", "eval-data", "validation-data"], "--probe.data"),
    **dict.fromkeys(["eval-steps", "eval-interval", "val-interval"], "--probe.every"),
    **dict.fromkeys(
        ["val-fraction", "val-split", "validation-split", "held-out"], "--probe.held-out FRACTION"
    ),
    **dict.fromkeys(["load-best-model-at-end", "save-best"], "--probe.export best"),
    **dict.fromkeys(["random-seed"], "--seed"),
    **dict.fromkeys(["recipe", "algorithm"], "--method"),
    **dict.fromkeys(["sync-batchnorm", "sync-bn-all"], "--sync-bn"),
    **dict.fromkeys(["mean", "std"], "--views.mean and --views.std"),
}
"""What timm, lightly, transformers and others call a setting, without dashes before it."""


def refuse_synonyms(args: Sequence[str], config: type) -> None:
    """Answer a flag or `key=value` of another tool with what it is called here.

    Raises:
        UserError: there is one.
    """
    own = set(flags_of(config))
    expects_value = False
    for arg in args:
        if arg.startswith("--"):
            name = arg[2:].split("=")[0].replace("_", "-")
            expects_value = "=" not in arg
            if name not in own and (answer := ours(name, own)):
                raise UserError(f"{arg.split('=')[0]}: here it is {answer}")
            continue
        pair = re.fullmatch(r"([a-z][\w.-]*)=(.*)", arg)
        if pair and not expects_value:
            name = pair[1].replace("_", "-")
            answer = f"--{name} {pair[2]}" if name in own else ours(name, own)
            if answer:  # else it may be a file, or one of several NAME=FILE
                raise UserError(f"{arg}: settings are flags; here it is {answer}")
        expects_value = False


def refuse_keywords(keywords: Mapping[str, Any], config: type) -> None:
    """Answer a keyword of another tool with what it is called here.

    Raises:
        UserError: there is one.
    """
    own = set(flags_of(config))
    fields = {field.name for field in dataclasses.fields(typing.cast(Any, config))}
    for keyword in keywords:
        answer = None if keyword in fields else ours(keyword.replace("_", "-"), own)
        if answer is not None:
            raise UserError(f"{keyword}: here it is {_as_keyword(answer)}")


def _as_keyword(answer: str) -> str:
    """`--optim.lr` as a call in Python has it: optim={"lr": ...}."""

    def spell(flag: re.Match[str]) -> str:
        first, *inner = flag[1].replace("-", "_").split(".")
        return f'{first}={{"{inner[0]}": ...}}' if inner else first

    return re.sub(r"--([a-z][\w.-]*)", spell, answer)


def ours(name: str, own: set[str]) -> str | None:
    """What a setting of another tool is called here, if this command has it."""
    answer = SYNONYMS.get(name)
    trains = "optim.lr" in own
    if answer == AVERAGE:  # of distillation, the teacher itself
        teachers = [f"--{flag}" for flag in ("method.teacher", "distil.teacher") if flag in own]
        answer = teachers[0] if teachers else answer
    if answer == START and not trains:
        return WEIGHTS if "model" in own else None
    if answer is None or (answer in (RESUME, START, LAUNCHER) and not trains):
        return None
    if answer == DEVICES and not trains and "model" not in own:
        return None
    flags = re.findall(r"--([a-z][\w.-]*)", answer) if answer.startswith("--") else []
    sections = {flag.split(".")[0] for flag in own}  # --method beside --method.temperature
    return answer if not flags or (own | sections) & set(flags) else None


def flags_of(config: Any) -> Iterator[str]:
    """Every flag of a Config, without the two dashes: `batch`, `optim.lr`."""
    for flag in flags_with_types(config, None):
        yield flag.name.lstrip("-").lower()
