"""The model card of an exported encoder: `encoder/README.md`, as Hugging Face's hub reads it.

It says what the encoder was trained on and how, what was measured, with intervals, what is known of
its licence, and how to load it. Everything comes from the files in the folder around it:

config.yaml, log.jsonl, checkpoints/    recipe, steps, number of images
validation.json, adapt.json             why this encoder was exported
knn.json, retrieval.json...             what evaluations wrote

It is written again after each evaluation, unless its last line is removed.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import yaml

from selfsup.core.errors import UserError
from selfsup.core.json_lines import read_steps
from selfsup.core.notices import notice
from selfsup.core.paths import run_in
from selfsup.core.version import __version__
from selfsup.core.yaml_files import read_yaml
from selfsup.encoders.published import TIMM, is_published, published_name, timm_settings

CARD = "README.md"
UNUSABLE = (OSError, ValueError, TypeError, KeyError, AttributeError)
"""What records from elsewhere, names and disks may raise."""
MARK = (
    "<!-- written by selfsup, and again after each evaluation; remove this line to keep yours -->"
)
"""Last line of a card that may be written again."""
SETTINGS = {
    "method.name": "method",
    "method.loss": "loss",
    "method.miner": "miner",
    "init": "starts from",
    "encoder.name": "network",
    "views.size": "size of training images, pixels",
    "batch": "images in a step",
    "classes": "classes in a step",
    "images": "images of each class in a step",
    "optim.name": "optimiser",
    "optim.lr": "learning rate for 256 images",
    "freeze": "frozen blocks",
    "lora": "rank of LoRA",
    "seed": "seed",
}
"""Settings of a recipe that a reader of the card wants to know; the run's config.yaml has all."""


def refresh_card(folder: Path) -> None:
    """Write the card of the encoder in a run, a bundle or an adaptation, if it has one.

    A card that somebody has made theirs stays. Where it cannot be written a line says so.
    """
    encoder = folder / "encoder"
    file = encoder / CARD
    if not (encoder / "config.json").is_file():
        return
    try:
        if file.exists() and MARK not in file.read_text(encoding="utf-8", errors="replace"):
            return
        card = model_card(folder)
        file.write_text(card, encoding="utf-8", errors="backslashreplace")
    except UNUSABLE as error:  # a card is no reason to lose what it is about
        notice(f"warning: {file} cannot be written ({error})")


def card_to_pass_on(folder: Path, encoder: Path) -> str:
    """Return the card that goes with a copy of an encoder, and is not written again there.

    Args:
        folder: of the run or the bundle.
        encoder: the folder with its `config.json`.
    """
    file = encoder / CARD
    ours = encoder.parent == folder
    card = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    card = model_card(folder) if ours and (not card or MARK in card) else card
    return card.replace(MARK, "").rstrip() + "\n"


def model_card(folder: Path) -> str:
    """Write down what is known of an exported encoder, in Markdown with a head in YAML.

    Args:
        folder: of a run, a bundle or an adaptation, with `encoder/config.json`.
    """
    architecture = _read(folder / "encoder" / "config.json")
    settings = _settings(folder)
    start = str(settings.get("init") or "")
    records = dict(_records(folder))
    name = folder.resolve().name
    parts = [
        _head(name, start, records),
        f"# {name}\n\n{_first_line(architecture, settings)}",
        f"## Load it\n\n{_loading(architecture)}",
        f"## Data and recipe\n\n{_recipe(folder, settings)}",
        f"## Figures\n\n{_figures(folder, records)}",
        f"## Licence\n\n{_licence(start)}",
        MARK,
    ]
    return "\n\n".join(parts) + "\n"


def _read(file: Path) -> dict[str, Any]:
    """A JSON file's object; an empty one where there is none."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of the run, flat: {"optim.lr": 0.1}; none of a bundle."""
    with contextlib.suppress(UserError, OSError):
        settings = read_yaml(run_in(folder) / "config.yaml")[1]
        if isinstance(settings, dict):
            nested = {k: v for k, v in settings.items() if isinstance(v, dict)}
            inner = {f"{k}.{name}": x for k, v in nested.items() for name, x in v.items()}
            return settings | inner
    return {}


def _records(folder: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """What evaluations wrote to the folder, by the tool, or what a bundle keeps of it."""
    kept = _read(folder / "bundle.json").get("figures")
    records = dict(kept) if isinstance(kept, dict) else {}
    records |= {file.stem: _read(file) for file in sorted(folder.glob("*.json"))}
    for name, record in records.items():
        if isinstance(record, dict) and all(
            isinstance(record.get(key), dict) for key in ("figures", "facts", "settings")
        ):
            yield name, record


def _head(name: str, start: str, records: Mapping[str, dict[str, Any]]) -> str:
    """The fields that the hub reads."""
    head: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["image-feature-extraction", "image-similarity", "timm", "selfsup"],
        "license": _known_licence(start) or "unknown",
    }
    if base := _hub_name(start):
        head["base_model"] = base
    results = [_result(tool, record) for tool, record in records.items()]
    if results := [result for result in results if result["metrics"]]:
        head["model-index"] = [{"name": name, "results": results}]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _result(tool: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation as the field `model-index` has it."""
    data = _data_name(record["settings"])
    metrics = [
        {"name": name, "type": name, "value": round(float(value["value"]), 4)}
        for name, value in record["figures"].items()
        if isinstance(value, dict)
    ]
    task = {"type": "image-feature-extraction", "name": tool}
    return {"task": task, "dataset": {"name": data, "type": data}, "metrics": metrics}


def _data_name(settings: Mapping[str, Any]) -> str:
    """The images of an evaluation without the folders that lead to them: a card is for others."""
    for key in ("test", "queries", "data"):
        if settings.get(key):
            return Path(str(settings[key])).name
    return "images"


def _first_line(architecture: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    network = architecture.get("architecture", "a timm model")
    base = architecture.get("model_args", {}).get("base")
    width = architecture.get("num_classes") or architecture.get("num_features")
    side = architecture.get("pretrained_cfg", {}).get("input_size", ["?"])[-1]
    network = f"`{network}`" + (f" ({base})" if base else "")
    labelled = "classes" in settings or settings.get("method.name") == "supcon"
    trained = "trained with labels" if labelled else "trained without labels"
    if not settings:
        trained = "trained"
    return (
        f"Turns an image of {side} pixels into an embedding of {width} numbers, to be compared by "
        f"the cosine. A {network} in timm's format, {trained} by selfsup {__version__}."
    )


def _loading(architecture: Mapping[str, Any]) -> str:
    """Code that works in a folder that holds this card."""
    name = str(architecture.get("architecture", ""))
    foreign = timm.is_model(name) and timm.model_entrypoint(name).__module__.startswith("selfsup")
    more = "import selfsup.encoders.encoder  # registers its network with timm\n" if foreign else ""
    return f"""```python
import selfsup

model = selfsup.load(".")  # the folder of this card
embeddings = model.embed(["a.jpg", "b.jpg"])  # [2, d], rows of length 1
```

The same with timm{" and selfsup's network" if foreign else " alone"}:

```python
import timm
{more}
model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```"""


def _recipe(folder: Path, settings: Mapping[str, Any]) -> str:
    if not settings:
        return "The run is not in this folder; its config.yaml has the recipe."
    run = run_in(folder)
    rows = [("images", _images(run, settings))]
    for key, title in SETTINGS.items():
        value = settings.get(key)
        if value not in (None, "", 0, 0.0):
            rows.append((title, _short(key, value)))
    steps = max((line["step"] for line in read_steps(run / "log.jsonl")), default=None)
    rows.append(("steps", "" if steps is None else f"{steps:,}"))
    about = _read(run / "about.json")
    versions = (f"{key} {about[key]}" for key in ("selfsup", "torch", "timm") if key in about)
    rows.append(("versions", ", ".join(versions)))
    lines = ["| | |", "| --- | --- |", *(_row(row) for row in rows if row[1])]
    return "\n".join(lines)


def _images(run: Path, settings: Mapping[str, Any]) -> str:
    """Name and number of the training images, and a hash of their names."""
    name = " + ".join(Path(part.strip()).name for part in str(settings["data"]).split("+"))
    for manifest in sorted(run.glob("checkpoints/*/manifest.json"), reverse=True):
        images = (_read(manifest).get("work") or {}).get("images", {})
        if images:
            return f"{name}: {images['images']:,}, names {images['names']}"
    return name


def _short(key: str, value: Any) -> str:
    """A setting in words: paths without the folders that lead to them."""
    if key == "init" and not is_published(str(value)):
        return Path(str(value)).name
    return str(value)


def _figures(folder: Path, records: Mapping[str, dict[str, Any]]) -> str:
    parts = []
    if verdict := _read(folder / "adapt.json").get("verdict"):
        parts.append(f"{verdict[0].upper()}{verdict[1:]} (classes that training has not seen).")
    if sentences := _read(run_in(folder) / "validation.json").get("sentences", []):
        parts.append(" ".join(f"{s[0].upper()}{s[1:]}." for s in sentences if s))
    parts += [_adapted(each) for each in _read(folder / "adapt.json").get("sets", [])]
    parts += [_table(tool, record) for tool, record in records.items()]
    if not parts:
        return (
            "None yet: `selfsup retrieval --model RUN --data OTHER_IMAGES` writes them here, "
            "beside baselines. Measure on images that training has not seen."
        )
    return "\n\n".join(parts)


def _adapted(each: Mapping[str, Any]) -> str:
    """The figures of published, fine-tuned and mixed weights on one set."""
    lines = [f"| {Path(each['name']).name} | value [95 % interval] |", "| --- | --- |"]
    for encoder, figures in each["figures"].items():
        lines += [f"| {key}, {encoder} | {_interval(value)} |" for key, value in figures.items()]
    return "\n".join(lines)


def _table(tool: str, record: Mapping[str, Any]) -> str:
    """The figures of an evaluation beside the best of its baselines."""
    baselines = record.get("baselines", {})
    head = ["figure", "value [95 % interval]", *map(_without_folders, baselines)]
    lines = [f"{tool} on {_data_name(record['settings'])}:", "", _row(head)]
    lines.append(_row(["---"] * len(head)))
    for name, value in record["figures"].items():
        others = [_interval(figures.get(name)) for figures in baselines.values()]
        lines.append(_row([name, _interval(value), *others]))
    facts = ", ".join(f"{key} {value}" for key, value in record["facts"].items())
    warnings = [f"Warning: {words}" for words in record.get("warnings", [])]
    return "\n\n".join(["\n".join(lines), *warnings, *([facts] if facts else [])])


def _without_folders(name: str) -> str:
    """The last part of a name that is a path: a card is for others."""
    return Path(name).name if "/" in name and " " not in name else name


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _interval(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return "" if value is None else f"{value:.4g}"


def _licence(start: str) -> str:
    known = _known_licence(start)
    if known:
        return (
            f"Training began from {start}, which is published under {known}. Who passes these "
            "on says in the head of this card under which licence, which theirs has to allow."
        )
    began = (
        f"Training began from {Path(start).name}."
        if start
        else "Training began from random weights."
    )
    return (
        f"{began} Their licence is chosen by whoever trained them, as far as the images allow it: "
        "write it in place of `unknown` in the head of this card. The MIT licence of selfsup is "
        "for its code and says nothing about weights."
    )


def _known_licence(start: str) -> str:
    """The licence of published weights, where timm names it."""
    return str(_published(start).get("license") or "")


def _hub_name(start: str) -> str:
    """The repository of published weights on Hugging Face's hub."""
    if start.startswith(("hf-hub:", "hf_hub:")):
        return start.partition(":")[2]
    return str(_published(start).get("hf_hub_id") or "")


def _published(start: str) -> dict[str, Any]:
    """What timm says of its published weights; nothing of others, which a hub describes."""
    if not start.startswith(TIMM):
        return {}
    with contextlib.suppress(UserError):
        return timm_settings(published_name(start))
    return {}
