"""kornia's classes in a pipeline: draws of each view's own, and mistakes in one sentence."""

import subprocess
import sys
from dataclasses import replace

import kornia.augmentation as ka
import pytest
import torch
from views import RAW, close, crops, untouched

from selfsup.augment.apply import apply
from selfsup.augment.check import check
from selfsup.augment.draws import draw
from selfsup.augment.kornia_steps import kornia_steps
from selfsup.config import LocalViewsConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.report.views import describe_draws

EXAMPLE = (
    "{RandomMotionBlur: {kernel_size: 3, angle: 35.0, direction: 0.5, p: 0.3}, "
    "RandomJPEG: {jpeg_quality: [30, 90], p: 0.2}}"
)
MANY = {
    "the example": EXAMPLE,
    "an order that kornia draws for a whole batch": "{ColorJitter: {brightness: 0.4, hue: 0.2}}",
    "kernels of several sizes": "{RandomMotionBlur: {kernel_size: [3, 7], angle: 9.0, "
    "direction: 0.5}}",
    "lists of unequal length": "{RandomRain: {number_of_drops: [3, 9], drop_height: [2, 4], "
    "drop_width: [1, 2]}}",
    "noise": "{RandomGaussianNoise: {std: 0.1}, RandomSaltAndPepperNoise: }",
    "geometry": "{RandomPerspective: {distortion_scale: 0.3}, RandomAffine: {degrees: 10}}",
    "shadows": "{RandomPlasmaShadow: , RandomClahe: {p: 0.5}, RandomEqualize: {p: 0.5}}",
}


def with_kornia(text: str, **more: object) -> ViewsConfig:
    return replace(ViewsConfig(size=32), kornia=text, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", MANY.values(), ids=MANY)
def test_a_view_does_not_depend_on_which_others_are_in_its_micro_batch(text: str) -> None:
    """To 1e-5: kornia's sums may come in another order; all but a few are equal bit by bit."""
    config, x = with_kornia(text), crops(12, 2, 32)
    (draws,) = draw(config, 12, seed=1, step=4)
    whole = apply(x, draws, config)
    for size in (6, 1):
        blocks = [slice(start, start + size) for start in range(0, 12, size)]
        close(torch.cat([apply(x[b], draws.rows(b), config) for b in blocks]), whole, 1e-5)
    assert torch.equal(whole, apply(x, draws, config))
    assert (whole - apply(x, draws._replace(kornia=()), replace(config, kornia=""))).abs().max() > 0


def test_views_of_the_example_are_equal_bit_by_bit_however_they_are_divided() -> None:
    config, x = with_kornia(EXAMPLE), crops(8, 2, 32)
    (draws,) = draw(config, 8, seed=1, step=4)
    single = [apply(x[i : i + 1], draws.rows(slice(i, i + 1)), config) for i in range(8)]
    assert torch.equal(apply(x, draws, config), torch.cat(single))


def test_a_view_is_what_kornia_makes_with_the_seed_of_the_view() -> None:
    config, x = replace(RAW, kornia="{RandomPerspective: {p: 1.0}}"), crops(2, 3)
    seeds = torch.arange(6).view(2, 3)
    seeds[0, 1] = -1
    views = apply(x, untouched(2, 3)._replace(kornia=(seeds,)), config)
    for i in range(2):
        for j in range(3):
            expected = x[i, j : j + 1].float() / 255
            if seeds[i, j] >= 0:
                torch.manual_seed(int(seeds[i, j]))
                expected = ka.RandomPerspective(p=1.0)(expected)
            close(views[i, j : j + 1], expected, 1e-6)


def test_kornia_comes_after_ours_and_before_the_normalisation() -> None:
    x = crops(2, 2, 12)
    config = replace(ViewsConfig(size=12), kornia="{RandomInvert: {p: 1.0}}", erase=0.5)
    (draws,) = draw(config, 2, seed=0, step=1)
    assert 0 < draws.erase.sum() < 4
    raw = replace(config, mean=RAW.normalization[0], std=RAW.normalization[1], kornia="")
    plain = apply(x, draws._replace(kornia=(), erase=torch.zeros_like(draws.erase)), raw)
    mean, std = (torch.tensor(m)[:, None, None] for m in config.normalization)
    expected = (1 - plain - mean) / std
    seen = apply(x, draws, config)
    close(torch.where(seen == 0, 0, expected), seen, 1e-5)
    assert (seen == 0).any()  # erased to the mean, not inverted


def test_values_stay_in_0_to_1() -> None:
    config = replace(RAW, size=32, kornia="{RandomGaussianNoise: {std: 2.0}, RandomJPEG: }")
    (draws,) = draw(config, 4, seed=0, step=0)
    views = apply(crops(4, 2, 32), draws, config)
    assert views.isfinite().all()
    assert views.min() >= 0
    assert views.max() <= 1


def test_draws_are_of_seed_step_and_view_and_leave_all_others_as_they_were() -> None:
    config = with_kornia(EXAMPLE)
    before = torch.get_rng_state()
    (draws,) = draw(config, 500, seed=3, step=8)
    apply(crops(500, 2, 32), draws, config)
    assert torch.equal(torch.get_rng_state(), before)
    (again,), (later,) = draw(config, 500, seed=3, step=8), draw(config, 500, seed=3, step=9)
    for seeds, same, other, p in zip(
        draws.kornia, again.kornia, later.kornia, (0.3, 0.2), strict=True
    ):
        assert torch.equal(seeds, same)
        assert not torch.equal(seeds, other)
        applied = seeds[seeds >= 0]
        assert len(applied.unique()) == len(applied)
        # a binomial of 1,000 draws
        assert abs((seeds >= 0).double().mean() - p) < 4 * (p * (1 - p) / 1000) ** 0.5
    (plain,) = draw(ViewsConfig(size=32), 500, seed=3, step=8)
    assert torch.equal(plain.sigma, draws.sigma)
    (longer,) = draw(with_kornia(EXAMPLE[:-1] + ", RandomInvert: }"), 500, seed=3, step=8)
    assert torch.equal(longer.kornia[1], draws.kornia[1])


def test_local_views_have_draws_of_their_own() -> None:
    config = with_kornia("{RandomInvert: {p: 0.5}}", local=LocalViewsConfig(views=2, size=16))
    large, small = draw(config, 50, seed=0, step=0)
    assert not torch.equal(large.kornia[0], small.kornia[0])


def test_what_was_drawn_is_described_in_words() -> None:
    blur, jpeg = kornia_steps(EXAMPLE)
    said = blur.describe(5, (3, 32, 32))
    assert said.startswith("RandomMotionBlur, ksize 3, angle ")
    assert ", direction " in said
    assert jpeg.describe(5, (3, 32, 32)).startswith("RandomJPEG, jpeg quality ")
    assert jpeg.describe(5, (3, 32, 32)) == jpeg.describe(5, (3, 32, 32))
    (noise,) = kornia_steps("{RandomGaussianNoise: {std: 0.1}}")
    assert noise.describe(5, (3, 32, 32)) == "RandomGaussianNoise"


def test_a_sheet_of_views_lists_what_kornia_does_to_each_view() -> None:
    config = with_kornia(EXAMPLE)
    (draws,) = draw(config, 20, seed=0, step=0)
    for i in range(20):
        lines = describe_draws(draws, config, i, 1, None)
        for name, seeds in zip(("RandomMotionBlur", "RandomJPEG"), draws.kornia, strict=True):
            assert (name in lines) == bool(seeds[i, 1] >= 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{RandomJPG: }", r"kornia has no augmentation 'RandomJPG' \(did you mean 'RandomJPEG'\?"),
        ("{RandomJPEG: {quality: 3}}", "RandomJPEG has no argument 'quality'"),
        ("{RandomJPEG: {same_on_batch: true}}", "no argument 'same_on_batch'.*; it has jpeg_qual"),
        ("{RandomJPEG: {p: 20}}", "p of RandomJPEG is a probability, 0 to 1, not 20"),
        ("{RandomMotionBlur: {kernel_size: 3}}", "RandomMotionBlur refuses its arguments: .*angle"),
        ("{RandomGaussianBlur: {kernel_size: 4, sigma: x}}", "RandomGaussianBlur"),
        ("{RandomJPEG: {", "valid YAML"),
        ("RandomJPEG", "names with arguments"),
        ("{RandomJPEG: 50}", "names with arguments"),
        ("{RandomMixUpV2: }", "RandomMixUpV2 is not an augmentation of single images"),
        ("{RandomAffine3D: {degrees: 3}}", "RandomAffine3D is not an augmentation of single"),
        ("{VideoSequential: }", "VideoSequential is not an augmentation of single images"),
        ("{AugmentationBase2D: }", "AugmentationBase2D is not an augmentation of single images"),
        ("{RandomCrop: {size: [16, 16]}}", "RandomCrop changes views of 32 x 32 pixels to 16 x 16"),
        ("{PadTo: {size: [40, 40]}}", "PadTo changes views of 32 x 32 pixels to 40 x 40"),
        ("{RandomElasticTransform: {kernel_size: [63, 64]}}", "RandomElasticTransform fails on vi"),
    ],
)
def test_a_mistake_is_one_sentence_before_training(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^--views.kornia.* {message}") as raised:
        check(with_kornia(text))
    assert "\n" not in str(raised.value)


def test_a_class_that_draws_while_it_is_applied_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As noise did before kornia 0.9: not even the seed of a view would fix it."""

    def unseeded(
        self: ka.RandomInvert, input: torch.Tensor, *args: object, **kwargs: object
    ) -> torch.Tensor:
        return input * torch.rand(())

    monkeypatch.setattr(ka.RandomInvert, "apply_transform", unseeded)
    with pytest.raises(UserError, match="RandomInvert gives another result each time"):
        check(with_kornia("{RandomInvert: {p: 0.75}}"))


def test_a_class_has_to_fit_the_local_views_too() -> None:
    text = "{RandomCrop: {size: [32, 32]}}"
    check(with_kornia(text))
    with pytest.raises(UserError, match="changes views of 24 x 24 pixels to 32 x 32"):
        check(with_kornia(text, local=LocalViewsConfig(views=2, size=24)))


@pytest.mark.slow
def test_kornia_is_imported_where_it_is_used_only() -> None:
    code = (
        "import sys; from selfsup.augment import apply, check, draws; "
        "from selfsup.config import ViewsConfig; check.check(ViewsConfig(size=8)); "
        "draws.draw(ViewsConfig(size=8), 2, seed=0, step=0); assert 'kornia' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
