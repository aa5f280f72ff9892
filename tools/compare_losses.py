"""Compare all ranking losses on the demo's photographs: the table of recipes/README.md.

    selfsup compare-losses

For each seed, photographs of 24 of 40 people are used for pretraining and then, with names, for
fine-tuning with each loss, from the pretrained encoder and from random weights. The figures are of
snapshots of the other 16 people. All settings except the loss are equal, and none was tuned on
these people. The same command resumes after the last finished run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.config import (
    ContrastiveConfig,
    EvaluateConfig,
    NPairsConfig,
    OptimConfig,
    PairsConfig,
    ProxiesConfig,
    TripletConfig,
)
from selfsup.core.cli import run as launch
from selfsup.core.paths import make_folder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config:
    """Compare all ranking losses on the demo's photographs."""

    out: str = "runs/losses"
    """Where runs and figures go."""
    seeds: int = 3
    """Number of seeds, each with another choice of people, other initial weights and batches."""
    pretraining: int = 240
    """Number of steps of pretraining."""
    steps: int = 120
    """Number of steps of fine-tuning."""
    resamples: int = 1000
    """Number of bootstrap samples for each 95 % interval, over the queries of all seeds."""


OPTIM = OptimConfig(name="adamw", lr=1e-3, rule="none", weight_decay=0.01)
"""The same for every loss and both starts."""
METHODS: dict[str, TripletConfig | PairsConfig | ProxiesConfig] = {
    "contrastive": PairsConfig(loss="contrastive", contrastive=ContrastiveConfig()),
    "triplet, random": TripletConfig(miner="random"),
    "triplet, semi-hard": TripletConfig(miner="semi-hard"),
    "triplet, batch-hard": TripletConfig(miner="batch-hard"),
    "triplet, batch-hard, soft margin": TripletConfig(miner="batch-hard", loss="soft"),
    "triplet, batch-all": TripletConfig(miner="batch-all", active_only=True),
    "N-pairs": PairsConfig(loss="n-pairs"),
    "Angular": PairsConfig(loss="angular"),
    "N-pairs + Angular": PairsConfig(loss="n-pairs-angular"),
    "N-pairs as in the paper": PairsConfig(
        loss="n-pairs", n_pairs=NPairsConfig(normalize=False, temperature=1, regularizer=0.002)
    ),
    "lifted structure": PairsConfig(loss="lifted"),
    "multi-similarity": PairsConfig(loss="multi-similarity", miner="multi-similarity"),
    "SupCon": PairsConfig(loss="supcon"),
    "Circle": PairsConfig(loss="circle"),
    "Proxy-Anchor": ProxiesConfig(loss="proxy-anchor"),
    "ArcFace": ProxiesConfig(loss="arcface"),
    "CosFace": ProxiesConfig(loss="cosface"),
}


def main(config: Config) -> None:
    """Run what is not there yet, and print the table."""
    import json

    from selfsup.recipes import pretrain_simclr
    from selfsup.tools import demo

    from selfsup.data.demo_faces import write_demo_faces

    out = Path(config.out)
    make_folder(out)
    results: dict[str, list[dict[str, Tensor]]] = {}
    for seed in range(config.seeds):
        folder = out / f"seed{seed}"
        folder.mkdir(exist_ok=True)
        train, test = write_demo_faces(folder, side=demo.SIDE, seed=seed)
        pretrained = str(folder / "pretrained")
        pretrain_simclr.main(
            demo.pretraining(train, pretrained, steps=config.pretraining, seed=seed)
        )
        results.setdefault("no fine-tuning/pretrained", []).append(figures(pretrained, test, seed))
        untrained = figures(demo.ENCODER.name, test, seed)
        results.setdefault("no fine-tuning/random", []).append(untrained)
        for name, method in METHODS.items():
            for start, init in (("pretrained", pretrained), ("random", "")):
                run = folder / f"{name} from {start}".replace(", ", "-").replace(" ", "-")
                settings = demo.finetuning(train, str(run), steps=config.steps, seed=seed)
                finetune(method, settings, init)
                results.setdefault(f"{name}/{start}", []).append(figures(str(run), test, seed))
    table, record = summary(results, config.resamples)
    (out / "losses.json").write_text(json.dumps(record, indent=2) + "\n")
    print(table)


def finetune(
    method: TripletConfig | PairsConfig | ProxiesConfig, settings: dict[str, Any], init: str
) -> None:
    """One run of the recipe that the method belongs to."""
    from selfsup.recipes import finetune_pairs, finetune_proxies, finetune_triplet

    settings |= {"init": init, "log_every": 1000, "optim": OPTIM}
    match method:
        case TripletConfig():
            finetune_triplet.main(finetune_triplet.Config(**settings, method=method))
        case PairsConfig():
            finetune_pairs.main(finetune_pairs.Config(**settings, method=method))
        case ProxiesConfig():
            finetune_proxies.main(finetune_proxies.Config(**settings, method=method))


def figures(model: str, test: Path, seed: int) -> "dict[str, Tensor]":
    """Recall@1 and MAP@R of each query."""
    from selfsup.tools import demo

    from selfsup.evaluate.model import labelled_features, open_model
    from selfsup.evaluate.retrieval_figures import retrieval
    from selfsup.search.gallery import Queries

    settings = EvaluateConfig(model=model, data=str(test), size=demo.SIDE, seed=seed)
    features = labelled_features(open_model(settings), str(test), "", settings)
    values = retrieval(Queries(features.x, features.labels)).figures
    return {name: values[name] for name in ("Recall@1", "MAP@R")}


def summary(
    results: "dict[str, list[dict[str, Tensor]]]", resamples: int
) -> tuple[str, dict[str, Any]]:
    """A table in Markdown and the same with each seed's means."""
    import torch

    from selfsup.evaluate.intervals import figure

    lines = [
        "| loss | Recall@1, pretrained | MAP@R, pretrained | Recall@1, random | MAP@R, random |",
        "| --- | --- | --- | --- | --- |",
    ]
    record: dict[str, Any] = {}
    for name in dict.fromkeys(key.split("/")[0] for key in results):
        cells = [name]
        for start in ("pretrained", "random"):
            runs = results[f"{name}/{start}"]
            for what in ("Recall@1", "MAP@R"):
                pooled = torch.cat([run[what] for run in runs])
                value = figure(pooled, seed=0, resamples=resamples)
                cells.append(f"{value.value:.3f} [{value.low:.2f}, {value.high:.2f}]")
                seeds = [run[what].mean().item() for run in runs]
                record[f"{name}/{start}/{what}"] = value._asdict() | {"seeds": seeds}
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines), record


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
