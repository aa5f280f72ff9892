"""Whether a run folder holds the work that is asked for: its settings, images and versions."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from selfsup.config import PretrainConfig, TrainConfig
from selfsup.core import distributed
from selfsup.core.errors import UnusableError, UserError, require
from selfsup.core.paths import check_output
from selfsup.core.settings import to_dict
from selfsup.core.writer import NAME
from selfsup.core.yaml_files import read_yaml
from selfsup.data.fingerprint import difference, fingerprint
from selfsup.data.sources import Source
from selfsup.training import checkpoint

FOLDERS = ("checkpoints", "encoder")
FILES = ("config.yaml", "about.json", "log.jsonl", "bad_images.csv", "status.json")
VERSIONS = ("selfsup", "torch", "timm", "numpy")
"""Whose versions may change numbers."""

MAY_CHANGE = {
    *("out", "workers", "micro_batch", "log_every", "save_every", "keep", "track", "max_bad"),
    *("on_collapse", "report", "checkpoint_activations", "other_images", "cache"),
    *("probe.every", "probe.k", "probe.export", "patience", "method.cache", "distil.cache"),
}
"""Settings that may differ when a run goes on: they do not change what it trains (a micro-batch
changes only batch statistics)."""
MAY_MOVE = {"method.teacher", "distil.teacher"}
"""Settings that may name another place when a run goes on, but neither come nor go. Of a teacher
its weights count, wherever they lie."""
OF_OLD_RUNS = {
    **{"probe.held_out": 0.0, "optim.settle": 0.0, "optim.layer_decay": 1.0},
    "method.width": 0,
}
"""Settings that runs without them in config.yaml have, where that is not today's default."""
HELD_OUT = "held-out classes"
"""What images of classes that are not trained on are for."""
LOCAL = {"workers", "method.cache", "distil.cache", "cache.dir", "cache.gb", *MAY_MOVE}
"""Settings that may differ between the processes of a run, which may be on several machines."""


def check_folder(folder: Path) -> None:
    """Refuse a run folder that holds something else, or a file where a folder belongs.

    Raises:
        UserError: with the name.
    """
    if not (folder / "config.yaml").exists() and (not folder.is_dir() or has_others(folder)):
        check_output(folder, mark="config.yaml", otherwise="no run folder")
    for name in FOLDERS:
        place = folder / name
        require(
            place.is_dir() or not place.exists(),
            f"{place} is a file where the run's folder of that name belongs: move it away",
        )
    for name in FILES:
        place = folder / name
        require(
            place.is_file() or not place.exists(),
            f"{place} is not a file, as a run's {name} is: move it away",
        )


def has_others(folder: Path) -> bool:
    """Whether a folder holds more than what a run leaves that ended before it began."""
    return any(p.name != "status.json" and not p.name.startswith(NAME) for p in folder.iterdir())


def stored_settings(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the settings that a run began with, and a line to print if its file was damaged.

    A damaged config.yaml is replaced by what the newest whole checkpoint says.

    Raises:
        UnusableError: neither can be read.
    """
    file = folder / "config.yaml"
    try:
        _, settings = read_yaml(file)
        reason = "" if isinstance(settings, dict) else "it holds no settings"
    except UserError as error:
        settings, reason = None, str(error)
    if not reason:
        return settings, ""
    work = checkpoint.work_of(folder)
    if work is None:
        raise UnusableError(
            f"{file} is damaged ({reason}), and no checkpoint has the settings. Restore it, or "
            "choose another --out"
        )
    return work["settings"], f"{file} was damaged ({reason}); its checkpoint has the settings"


def changed_settings(
    config: TrainConfig, stored: dict[str, Any], settings: dict[str, Any]
) -> list[str]:
    """Describe each setting that would change the result of a run: "seed 0 -> 1".

    Args:
        config: of the run.
        stored: the settings that it began with.
        settings: those of now.
    """
    # defaults are for settings that are newer than the run
    old = defaults_of(config) | OF_OLD_RUNS | flat(stored)
    new = flat(settings)
    # of fine-tuning it says which classes are trained on, and by what the best was chosen
    may_change = MAY_CHANGE | ({"probe"} if isinstance(config, PretrainConfig) else set())
    changed = [key for key in new if _differs(key, old.get(key), new[key], may_change)]
    return [f"{key} {old.get(key)!r} -> {new[key]!r}" for key in changed]


def defaults_of(config: TrainConfig) -> dict[str, Any]:
    """Flatten the default settings of this kind of run."""
    return flat(to_dict(type(config)(data="", out="")))


def _differs(key: str, old: Any, new: Any, may_change: set[str]) -> bool:
    """Whether a setting is another than that of the run's start, and has to be the same."""
    if {key, key.split(".")[0]} & may_change or (key in MAY_MOVE and old and new):
        return False
    return bool(old != new)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to {"optim.lr": 0.1}."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def describe_work(
    source: Source,
    settings: dict[str, Any],
    versions: dict[str, str],
    others: Mapping[str, Source],
) -> dict[str, Any]:
    """Return what a checkpoint of this run is of: settings, images and versions, as JSON.

    `others` are images that are not trained on, by what they are for.
    """
    return {
        "settings": settings,
        "images": fingerprint(source),
        "others": {name: fingerprint(each) for name, each in others.items()},
        "versions": {name: versions[name] for name in VERSIONS},
    }


def compare_work(
    folder: Path, sources: Mapping[str, Source], work: dict[str, Any], *, other_images: bool
) -> Iterable[str]:
    """Compare this run's images and versions with those of its newest checkpoint.

    Args:
        folder: of the run.
        sources: the images to train on by the name "", and others by what they are for.
        work: what `describe_work` says of this run.
        other_images: whether the user knows that images are others.

    Returns:
        Lines to print.

    Raises:
        UnusableError: the images are others and `other_images` is false.
    """
    old = distributed.from_main(checkpoint.work_of(folder) if distributed.is_main() else None)
    if old is None:
        return []
    lines = [
        f"warning: {folder} was trained with {name} {old['versions'].get(name)} and goes on with "
        f"{version}: numbers may differ"
        for name, version in work["versions"].items()
        if old["versions"].get(name) != version
    ]
    changed = _changed_images(sources, old, work)
    if changed and not other_images:
        raise UnusableError(
            f"{folder} used other images before ({changed}). Restore them, choose another "
            "--out, or go on with these by --other-images"
        )
    trained = {name: sources[name] for name in sources if name in ("", HELD_OUT)}
    of_training = _changed_images(trained, old, work) if changed else ""
    if of_training and HELD_OUT in {**work["others"], **old.get("others", {})}:
        raise UnusableError(
            f"{folder} holds classes out, which are drawn from the labels: of other images "
            f"({changed}) they would be others, some of them trained on already. Restore the "
            "images, or choose another --out"
        )
    if changed:
        lines.append(f"warning: going on with other images ({changed})")
    return lines


def _changed_images(sources: Mapping[str, Source], old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe the first images that are others than they were; "" if all are the same."""
    if changed := difference(sources[""], old["images"], new["images"]):
        return changed
    for name, before in old.get("others", {}).items():
        now = new["others"].get(name) if name in sources else None
        if now is not None and (changed := difference(sources[name], before, now)):
            return f"of {name}: {changed}"
    return ""
