"""What an encoder knows is measured before a run without any trace, and the same everywhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import ROOT, called, run, torchrun
from workers.known import DROPS, begun

from selfsup.config import EncoderConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.data.open import training_source
from selfsup.encoders.encoder import build, export
from selfsup.training.first_rate import known_share

NORMS = EncoderConfig(name="test_resnet")


def shapes(folder: Path, classes: int = 6) -> str:
    """Noisy images of a few patterns, which an encoder tells apart now and then."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (classes, 16, 16, 3)).repeat(8, 0)
    images = patterns + rng.integers(-250, 251, patterns.shape)
    labels = np.arange(classes).repeat(8)
    np.savez(folder / "shapes.npz", images=images.clip(0, 255).astype(np.uint8), labels=labels)
    return str(folder / "shapes.npz")


@pytest.mark.parametrize("micro_batch", [None, 8])
def test_dropout_is_drawn_from_the_seed_of_the_run_and_leaves_no_trace(
    tmp_path: Path, micro_batch: int | None
) -> None:
    encoder, config = begun(shapes(tmp_path), DROPS, micro_batch)
    source = training_source(config)
    shares = []
    for seed in range(4):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        shares.append(known_share(encoder, source, config))
        assert torch.equal(torch.get_rng_state(), before)
    assert len(set(shares)) == 1
    others = {known_share(encoder, source, replace(config, seed=seed)) for seed in range(4)}
    assert len(others) > 1


@pytest.mark.parametrize(("micro_batch", "most"), [(None, 24), (8, 8), (2, 2)])
def test_chunks_have_no_more_images_than_a_micro_batch(
    tmp_path: Path, micro_batch: int | None, most: int
) -> None:
    encoder, config = begun(shapes(tmp_path), NORMS, micro_batch)
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    known_share(encoder, training_source(config), config)
    assert seen == [most] * (4 * 24 // most)


@pytest.mark.parametrize(
    ("micro_batch", "sentence"),
    [
        (5, "--micro-batch 5 does not divide the 24 images"),
        (0, "--micro-batch 0 does not divide"),
        (1, "batch norms need 2 images or more at a time"),
    ],
)
def test_a_micro_batch_that_does_not_fit_is_refused_before_anything_is_measured(
    tmp_path: Path, micro_batch: int, sentence: str
) -> None:
    encoder, config = begun(shapes(tmp_path), NORMS, micro_batch)
    with pytest.raises(UserError, match=sentence):
        known_share(encoder, training_source(config), config)


@pytest.mark.slow
def test_an_open_rate_with_a_micro_batch_of_one_is_one_sentence(tmp_path: Path) -> None:
    export(build(NORMS, 16), tmp_path / "init" / "encoder", ViewsConfig(size=16))
    flags = ("--data", shapes(tmp_path), "--init", tmp_path / "init", "--micro-batch", "1")
    done = called("tools/finetune.py", *flags, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "batch norms need 2 images or more" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", ["0", "4"])
def test_any_number_of_processes_measures_the_same(tmp_path: Path, micro_batch: str) -> None:
    worker = ROOT / "tests" / "workers" / "known.py"
    data = shapes(tmp_path)
    encoder, config = begun(data, DROPS, int(micro_batch) or None)
    alone = known_share(encoder, training_source(config), config)
    done = run(*torchrun(2), worker, data, micro_batch)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [repr(alone)] * 2
