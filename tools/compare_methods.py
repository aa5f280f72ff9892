"""Every pretraining method in the same time on the same images: the table of recipes/README.md.

    selfsup compare-methods --data data/cifar10/train.npz --test data/cifar10/test.npz

Each method is first timed for a few steps, alone; the steps that fill its minutes are written to
plan.json, so that the same command continues where it stopped. Figures are of the last step, on
test images that no choice depends on. Methods are the recipes `pretrain_*.py`.
"""

import importlib
import json
import pkgutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfsup.config import (
    LARS,
    BYOLConfig,
    DINOConfig,
    DINOv2Config,
    DistilConfig,
    EncoderConfig,
    KNNConfig,
    LocalViewsConfig,
    MoCoV2Config,
    OptimConfig,
    SecondViewConfig,
    TeacherConfig,
    ViewsConfig,
)
from selfsup.core.cli import run as launch
from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.paths import make_folder

ENCODER = EncoderConfig(name="test_resnet", stem="standard")
VIT = EncoderConfig(name="test_vit", args="{global_pool: avg, fc_norm: false}")
"""For methods that mask patches: 64 patches of 4 pixels."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every pretraining method in the same time on the same images."""

    data: str
    """Images to train on, with labels: they are the bank of k-NN and train the linear probe."""
    test: str
    """Labelled images for the figures."""
    out: str = "runs/methods"
    """Where runs and figures go."""
    minutes: float = 15.0
    """Minutes of training for each method."""
    size: int = 32
    """Side of the images in pixels."""
    batch: int = 256
    """Images of one step."""
    only: str = ""
    """Train only this method; by default all."""
    teacher: str = ""
    """Teacher of distil, which is left out without one."""
    seed: int = 0
    """Seed of every run."""
    resamples: int = 1000
    """Number of bootstrap samples for each 95 % interval."""


FAST = TeacherConfig(momentum=0.99)  # for a run of a few thousand steps
CHANGES: dict[str, dict[str, Any]] = {
    "moco-v2": {
        "method": MoCoV2Config(teacher=TeacherConfig(momentum=0.99, final=0.99)),
        "optim": OptimConfig(lr=0.12),
    },
    "byol": {"method": BYOLConfig(teacher=FAST), "optim": replace(LARS, lr=3.0)},
    "simsiam": {"optim": OptimConfig(lr=0.12)},
    "dino": {
        "method": DINOConfig(prototypes=1024, teacher=replace(FAST, export="teacher")),
        "optim": OptimConfig(name="adamw", lr=2e-3, weight_decay=0.04, clip_each=3.0),
    },
    "dinov2": {
        "encoder": VIT,
        "method": DINOv2Config(prototypes=1024, teacher=replace(FAST, export="teacher")),
    },
    "mae": {"encoder": VIT, "optim": OptimConfig(name="adamw", lr=1e-3, weight_decay=0.05)},
}
"""Changes of a recipe's defaults, for so short a run on small images."""
TIMED = 40  # steps, of which the second half is measured


def main(config: Config) -> None:
    """Run the methods that have no run yet, and print the table."""
    names = method_names()
    if config.only:
        only = config.only.replace("_", "-")
        if only not in names:
            raise UserError(f"there is no method {config.only!r}{did_you_mean(only, names)}")
        require(only != "distil" or bool(config.teacher), "--only distil needs --teacher")
        names = [only]
    elif not config.teacher:
        names.remove("distil")
    out = Path(config.out)
    make_folder(out)
    plan = _plan(config, names)
    figures: dict[str, Any] = {"random weights": _figures(ENCODER.name, "random", config)}
    for name in names:
        if not (out / name / "encoder" / "config.json").exists():
            _recipe(name).main(settings(name, config, out / name, steps=plan[name]["steps"]))
        figures[name] = plan[name] | _figures(str(out / name), name, config)
    (out / "methods.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(table(figures))


def method_names() -> list[str]:
    """Names of the pretraining methods, from the files of recipes."""
    from selfsup import recipes

    modules = (module.name for module in pkgutil.iter_modules(recipes.__path__))
    stems = (name.removeprefix("pretrain_") for name in modules if name.startswith("pretrain_"))
    return sorted(stem.replace("_", "-") for stem in stems)


def _recipe(name: str) -> Any:
    return importlib.import_module(f"selfsup.recipes.pretrain_{name.replace('-', '_')}")


def settings(name: str, config: Config, out: Path, *, steps: int, log_every: int = 50) -> Any:
    """The recipe's Config at this size: without blur and without small views."""
    recipe = _recipe(name).Config
    changes = CHANGES.get(name, {})
    if name == "distil":
        features = str(Path(config.out) / "features")
        changes = {"method": DistilConfig(teacher=config.teacher, cache=features)}
    views: ViewsConfig = replace(
        recipe.views,
        size=config.size,
        views={"lejepa": 4, "mae": 1, "distil": 1}.get(name, 2),
        blur=0.0,
        second=SecondViewConfig(solarize=recipe.views.second.solarize),
        local=LocalViewsConfig(),
    )
    return recipe(
        data=config.data,
        out=str(out),
        views=views,
        batch=config.batch,
        steps=steps,
        seed=config.seed,
        log_every=min(log_every, steps),
        **{"encoder": ENCODER, **changes},
    )


def _plan(config: Config, names: list[str]) -> dict[str, dict[str, Any]]:
    """Images a second and steps of each method; measured unless plan.json has them."""
    import tempfile

    file = Path(config.out) / "plan.json"
    plan: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    for name in names:
        if name in plan:
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / name
            timed = settings(name, config, run, steps=TIMED, log_every=TIMED // 2)
            _recipe(name).main(timed)
            lines = (run / "log.jsonl").read_text().splitlines()
        rate = json.loads(lines[-1])["images_per_s"]
        steps = max(1, round(config.minutes * 60 * rate / config.batch))
        plan[name] = {"images_per_s": rate, "steps": steps}
        file.write_text(json.dumps(plan, indent=2) + "\n")
    return plan


def _figures(model: str, name: str, config: Config) -> dict[str, Any]:
    """Measure k-NN and linear accuracy on the test images; saved in the folder of figures."""
    import torch

    from selfsup.evaluate.intervals import figure
    from selfsup.evaluate.linear_probe import linear_probe
    from selfsup.evaluate.model import open_model, train_and_test
    from selfsup.evaluate.votes import knn_predict

    file = Path(config.out) / f"{name}.json"
    if file.exists():
        saved: dict[str, Any] = json.loads(file.read_text())
        return saved
    settings = KNNConfig(
        model=model, data=config.data, test=config.test, size=config.size, seed=config.seed
    )
    bank, test = train_and_test(open_model(settings), settings, config.test, "")
    assert test is not None
    voted = knn_predict(bank.x, bank.labels, test.x, k=200, temperature=0.1)
    fitted = linear_probe(bank.x, bank.labels, test.x, seed=config.seed)
    figures: dict[str, Any] = {
        what: figure(
            (predicted == test.labels).to(torch.float64),
            seed=config.seed,
            resamples=config.resamples,
        )._asdict()
        for what, predicted in (("knn", voted), ("linear", fitted.predictions))
    }
    figures["converged"] = fitted.converged
    file.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Format the figures in Markdown."""
    lines = ["| method | images/s | steps | k-NN | linear |", "| --- | --- | --- | --- | --- |"]
    for name, f in figures.items():
        cells = [name.replace("-", " "), f"{f.get('images_per_s', 0):.0f}", f"{f.get('steps', 0)}"]
        for what in ("knn", "linear"):
            cells.append(f"{f[what]['value']:.3f} [{f[what]['low']:.3f}, {f[what]['high']:.3f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
