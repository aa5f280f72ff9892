"""Adapt published weights to your labelled images, and say whether it helped.

    selfsup adapt --data products/ --init timm:resnet50 --out runs/mine
    selfsup adapt --data mine/ --init runs/a --out runs/b --test apart/ --remember general.npz

Fine-tunes with triplets, mixes the weights with the published ones as far as held-out classes gain,
and judges published, fine-tuned and mixed weights on classes that nothing else has seen. What leads
is in OUT/encoder; where no lead is proven, these are the published weights.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.config import AdaptConfig, BlendConfig, EvaluateConfig
from selfsup.core.cli import run as launch
from selfsup.core.errors import require

if TYPE_CHECKING:
    from selfsup.data.sources import Source
    from selfsup.evaluate.adaptation import Adaptation, Sets


def main(config: AdaptConfig) -> None:
    """Adapt, and print the verdict."""
    adapt(config)


def adapt(config: AdaptConfig) -> "Adaptation":
    """Divide the images, train, mix, judge, keep what leads, print the verdict.

    Raises:
        UserError: a setting does not fit, or images are too few to judge by.
    """
    from selfsup.recipes import finetune_triplet

    from selfsup.core.distributed import is_main, wait
    from selfsup.core.paths import check_output
    from selfsup.core.progress import say
    from selfsup.encoders.encoder import copy_export, export
    from selfsup.encoders.model_card import refresh_card
    from selfsup.evaluate.adaptation import ADAPTED, PUBLISHED, TRAINED, judge_all
    from selfsup.evaluate.blend import blend
    from selfsup.training.fill_in import fill_in
    from selfsup.training.start import opened

    class Training(finetune_triplet.Config):  # type: ignore[misc]  # it is any recipe to mypy
        LENGTHS = config.LENGTHS

    require(bool(config.init), "--init names the weights to adapt: timm:resnet50, a run, a file...")
    out = Path(config.out)
    check_output(out, mark="published", otherwise="no adaptation")
    require(
        config.method.dim == 0,
        f"--method.dim {config.method.dim}: published weights have no such head to be mixed with; "
        "leave it out, or use selfsup finetune",
    )
    published, trained, mix = out / "published", out / "run", out / "mix"
    goes_on = (published / "config.json").exists()
    weights = replace(config, out="")  # whose own folder would describe a network without weights
    if goes_on:  # --init may have moved
        weights = replace(weights, init=str(published), format="", moving_average=False)
    start = opened(weights)
    sets = _sets(config, len(config.views.mean) or start.views.channels)
    names = [field.name for field in fields(finetune_triplet.Config)]
    settings = {name: getattr(config, name) for name in names}
    own, *others = sets.choice
    probe = replace(config.probe, data=own, held_out=0.0, keep=others[0] if others else "")
    settings |= {"data": sets.train, "out": str(out / "run"), "probe": probe}
    run = fill_in(Training(**settings))
    if is_main() and not goes_on:
        export(start.encoder, published, run.views)
    finetune_triplet.main(run)
    how: dict[str, Any] = {"size": run.views.size, "workers": run.workers, "seed": run.seed}
    mixed = blend(
        BlendConfig(model=str(published), other=str(trained), on=sets.choice, out=str(mix), **how)
    )
    wait()
    say(mixed.table())
    models = {PUBLISHED: published, TRAINED: trained, ADAPTED: mix}
    evaluate = EvaluateConfig(model="", data="", resamples=config.resamples, **how)
    found = judge_all(sets, {name: str(model) for name, model in models.items()}, evaluate)
    if is_main():
        chosen = mix / "encoder" if found.helped else published
        copy_export(chosen, out / "encoder")
        found.save(out / "adapt.json", mix=mixed.fractions[mixed.best])
        refresh_card(out)
        print(f"\n{found.table()}\nencoder in {out / 'encoder'}, to be searched with:")
        print(f"  selfsup index --model {out} --data IMAGES")
        print(f"  selfsup search {out} IMAGE")
    wait()
    return found


def _sets(config: AdaptConfig, channels: int) -> "Sets":
    """Open and divide the images of so many channels, as names that settings take."""
    from selfsup.data.in_memory import Opened
    from selfsup.data.open import open_source
    from selfsup.data.parts import divide, halve
    from selfsup.data.subset import labelled_images, searchable_images
    from selfsup.evaluate.adaptation import Sets

    def labelled(data: str) -> "Source":
        return searchable_images(opened(data), data)

    def opened(data: str, split: str = "") -> "Source":
        common: dict[str, Any] = {"labels": config.labels, "channels": channels}
        return open_source(data, split=split, cache=config.cache, **common)

    found = opened(config.data, config.split)
    source = labelled_images(found, config.data)
    parts = divide(source, config.data, seed=config.seed, verdict=not config.test)
    judges = parts.verdict or labelled(config.test)
    choice, remembered = [parts.choice], None
    if config.remember:
        first, remembered = halve(labelled(config.remember), seed=config.seed)
        choice.append(first)
    names = (f"{config.data}, to choose by", f"{config.remember}, to choose by")
    return Sets(
        train=Opened(parts.train, f"{config.data}, to train on ({parts})"),
        choice=tuple(Opened(x, name) for x, name in zip(choice, names, strict=False)),
        own=Opened(judges, config.test or f"{config.data}, apart"),
        remembered=None if remembered is None else Opened(remembered, config.remember),
        facts=(f"{config.data}: {parts}",),
    )


def command() -> None:
    """Run from the command line."""
    launch(main, AdaptConfig)


if __name__ == "__main__":
    command()
