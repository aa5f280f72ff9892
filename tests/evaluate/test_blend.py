"""Mixes of two encoders: weights between theirs, figures of each, the best exported."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import called

from selfsup.config import BlendConfig, EncoderConfig, RetrievalConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.encoders.encoder import build, export, load
from selfsup.evaluate.blend import blend, mix
from selfsup.evaluate.run import retrieval


def encoder_at(folder: Path, seed: int, head: int = 0, size: int = 32) -> str:
    torch.manual_seed(seed)
    encoder = build(EncoderConfig(name="test_resnet"), size)
    encoder.set_head(head)
    export(encoder, folder / "encoder", ViewsConfig(size=size))
    return str(folder)


def images(file: Path, seed: int) -> str:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 4, 4, 3)).repeat(8, 1).repeat(8, 2).repeat(4, 0)
    pixels = np.clip(coarse + rng.normal(0, 40, coarse.shape), 0, 255).astype(np.uint8)
    np.savez(file, images=pixels, labels=np.arange(24) // 4)
    return str(file)


def test_a_mix_lies_between_the_two(tmp_path: Path) -> None:
    first, second = (load(Path(encoder_at(tmp_path / str(i), i)))[0] for i in (1, 2))
    mixed = load(tmp_path / "1")[0]
    mix(first, second, 0.25, into=mixed)
    tensors = zip(
        mixed.parameters(), first.parameters(), second.parameters(), strict=True
    )  # fmt: skip
    for m, a, b in tensors:
        torch.testing.assert_close(m, 0.75 * a + 0.25 * b)
    mix(first, second, 1.0, into=mixed)
    for m, b in zip(mixed.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(m, b)


def test_the_ends_have_the_figures_of_each_and_the_best_is_exported(tmp_path: Path) -> None:
    first, second = encoder_at(tmp_path / "a", 1), encoder_at(tmp_path / "b", 2)
    sets = (images(tmp_path / "x.npz", 3), images(tmp_path / "y.npz", 4))
    out = tmp_path / "mix"
    result = blend(BlendConfig(model=first, other=second, on=sets, mixes=3, out=str(out)))
    assert result.fractions == [0.0, 0.5, 1.0]
    for data in sets:
        for end, model in ((0, first), (-1, second)):
            alone = retrieval(RetrievalConfig(model=model, data=data, baselines=(), resamples=10))
            value = alone.figures["MAP@R"]
            assert result.figures[data][end]["MAP@R"] == pytest.approx(value.value)  # type: ignore[union-attr]
    means = [sum(result.figures[d][i]["MAP@R"] for d in sets) for i in range(3)]
    assert result.best == max(range(3), key=means.__getitem__)
    record = json.loads((out / "blend.json").read_text())
    assert record["best"] == result.fractions[result.best]
    best = retrieval(RetrievalConfig(model=str(out), data=sets[0], baselines=(), resamples=10))
    assert best.figures["MAP@R"].value == pytest.approx(  # type: ignore[union-attr]
        result.figures[sets[0]][result.best]["MAP@R"], abs=1e-6
    )
    assert f"the best mix is in {out}" in result.table()


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({"head": 5}, r"other networks: 2 tensors differ, .*--method.dim 0"),
        ({"size": 48}, "give --size"),
    ],
)
def test_encoders_that_cannot_be_mixed_are_refused(
    tmp_path: Path, second: dict[str, int], sentence: str
) -> None:
    first, other = encoder_at(tmp_path / "a", 1), encoder_at(tmp_path / "b", 2, **second)
    with pytest.raises(UserError, match=sentence):
        blend(BlendConfig(model=first, other=other, on=(images(tmp_path / "x.npz", 3),)))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--other", "pixels"), "pixels has no weights to mix"),
        (("--other", "OTHER", "--mixes", "1"), "--mixes must be 2 or more, not 1"),
    ],
)
def test_wrong_settings_are_one_sentence(
    tmp_path: Path, flags: tuple[str, ...], sentence: str
) -> None:
    other = encoder_at(tmp_path / "b", 2)
    more = [other if flag == "OTHER" else flag for flag in flags]
    on = images(tmp_path / "x.npz", 3)
    done = called("tools/blend.py", "--model", encoder_at(tmp_path / "a", 1), "--on", on, *more)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_the_curve_fits_a_terminal(tmp_path: Path) -> None:
    first, second = encoder_at(tmp_path / "a", 1), encoder_at(tmp_path / "b", 1)
    on = images(tmp_path / "x.npz", 3)
    flags = ("--model", first, "--other", second, "--on", on, "--mixes", "2")
    done = called("tools/blend.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "<- best" in done.stdout
    assert "no mix is better than the first encoder alone" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
