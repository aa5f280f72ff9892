"""Extraction: every image once, in order, and the encoder left as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from selfsup.config import ViewsConfig
from selfsup.core.errors import UserError
from selfsup.data.open import open_source
from selfsup.data.sources import ArraySource
from selfsup.evaluate.baselines import Colours, Pixels
from selfsup.evaluate.features import Features, extract, split_rows

CPU = torch.device("cpu")
PLAIN = ViewsConfig(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def colours(n: int) -> ArraySource:
    """Image i is 10 i everywhere; classes 0, 1, 0, 1..."""
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * 10
    return ArraySource(
        np.broadcast_to(images, (n, 8, 8, 3)).copy(), torch.arange(n) % 2, ["cat", "dog"]
    )


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
    )


class Spoiler(nn.Module):
    """Writes to a buffer whatever the mode."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x.flatten(1)


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_each_image_is_embedded_once_in_order_for_any_batch_size(
    batch: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsup.evaluate.features.AHEAD", {"cpu": ahead})
    source = colours(7)
    features = extract(Pixels(), source, PLAIN, device=CPU, batch=batch)
    expected = (torch.arange(7) * 10 / 255)[:, None].expand(7, 3 * 8 * 8)
    torch.testing.assert_close(features.x, expected)
    assert source.labels is not None
    assert torch.equal(features.labels, source.labels)
    assert features.positions.tolist() == list(range(7))
    assert (features.classes, features.bad) == (["cat", "dog"], 0)


def test_channels_are_shifted_and_scaled_by_the_view() -> None:
    views = ViewsConfig(size=8, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    pixels = extract(Pixels(), colours(2), views, device=CPU).x[1].view(3, 8, 8)
    for channel, (mean, std) in enumerate([(0.5, 0.5), (0.25, 0.25), (0.0, 2.0)]):
        assert pixels[channel].mean().item() == pytest.approx((10 / 255 - mean) / std, abs=1e-5)


def test_modes_and_batch_statistics_are_left_as_they_were() -> None:
    encoder = network().train()
    encoder[2].eval()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    modes = [m.training for m in encoder.modules()]
    first = extract(encoder, colours(6), PLAIN, device=CPU, batch=2)
    second = extract(encoder, colours(6), PLAIN, device=CPU, batch=5)
    assert [m.training for m in encoder.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    torch.testing.assert_close(first.x, second.x)  # batch norm and dropout were in evaluation mode
    torch.testing.assert_close(extract(encoder.eval(), colours(6), PLAIN, device=CPU).x, first.x)


def test_features_are_float32_outside_of_any_graph() -> None:
    features = extract(network().double().float(), colours(3), PLAIN, device=CPU)
    assert features.x.dtype == torch.float32
    assert not features.x.requires_grad


def test_an_encoder_that_writes_to_a_buffer_is_caught() -> None:
    with pytest.raises(AssertionError, match="seen"):
        extract(Spoiler(), colours(2), PLAIN, device=CPU)


def test_modes_are_restored_also_after_an_error() -> None:
    encoder = network().train()
    wrong = ArraySource(np.zeros((2, 9, 9, 3), np.uint8), torch.zeros(2).long(), ["cat"])
    with pytest.raises(RuntimeError):  # the linear layer is made for 8 pixels
        extract(encoder, wrong, ViewsConfig(size=9), device=CPU)
    assert all(m.training for m in encoder.modules())


def test_unreadable_images_are_left_out_and_counted(tmp_path: Path) -> None:
    for i, kind in enumerate("abab"):
        (tmp_path / kind).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i * 40, 0, 0)).save(tmp_path / kind / f"{i}.png")
    (tmp_path / "a" / "1.png").write_bytes(b"broken")
    (tmp_path / "b" / "9.png").write_bytes(b"")
    source = open_source(str(tmp_path))  # a/0 a/1 a/2 b/1 b/3 b/9
    for batch in (1, 2, 10):
        features = extract(Pixels(), source, PLAIN, device=CPU, batch=batch, workers=0)
        assert features.bad == 2
        assert features.positions.tolist() == [0, 2, 3, 4]
        assert features.labels.tolist() == [0, 0, 1, 1]
        red = features.x.view(4, 3, 64)[:, 0].mean(1) * 255
        torch.testing.assert_close(red, torch.tensor([0.0, 80.0, 40.0, 120.0]))


def test_a_source_without_one_good_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="none of the 1 images"):
        extract(Pixels(), open_source(str(tmp_path)), PLAIN, device=CPU, workers=0)


def test_images_without_labels_are_embedded_too() -> None:
    source = ArraySource(np.zeros((2, 8, 8, 3), np.uint8), None, [])
    assert extract(Pixels(), source, PLAIN, device=CPU).labels.tolist() == [-1, -1]


def test_a_histogram_tells_how_much_of_each_colour_there_is() -> None:
    red, dark = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.1, 0.1, 0.1])
    image = torch.stack([red, red, red, dark]).T.view(1, 3, 2, 2)
    histogram = Colours()(image)[0]
    assert histogram.shape == (512,)
    assert histogram[7 * 64].item() == pytest.approx(0.75**0.5)
    assert histogram[0].item() == pytest.approx(0.25**0.5)
    assert histogram.square().sum().item() == pytest.approx(1.0)


def test_features_that_are_no_numbers_are_an_error() -> None:
    broken = network()
    nn.init.constant_(next(broken.parameters()), torch.nan)
    with pytest.raises(UserError, match="features of 3 of 3 images are not finite"):
        extract(broken, colours(3), PLAIN, device=CPU)


def test_progress_is_told_of_every_image() -> None:
    seen: list[int] = []
    extract(Pixels(), colours(7), PLAIN, device=CPU, batch=3, progress=seen.append)
    assert seen == [3, 3, 1]


def test_pixels_up_to_32_are_the_image_itself_and_larger_ones_are_averaged() -> None:
    small = torch.rand(2, 3, 9, 9)
    assert torch.equal(Pixels()(small), small.flatten(1))
    blocks = torch.rand(2, 3, 32, 32)
    large = blocks.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert Pixels()(large).shape == (2, 3 * 32 * 32)
    means = Pixels()(large).view(2, 3, -1).mean(2)
    torch.testing.assert_close(means, large.mean((2, 3)), atol=2e-3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.floats(0.05, 0.9),
    st.integers(0, 1000),
)
def test_a_split_keeps_and_holds_out_one_of_each_class_where_it_has_two(
    labels: list[int], fraction: float, seed: int
) -> None:
    y = torch.tensor(labels)
    fitted, held_out = split_rows(y, fraction=fraction, seed=seed)
    assert sorted(fitted.tolist() + held_out.tolist()) == list(range(len(labels)))
    assert held_out.tolist() == sorted(held_out.tolist())
    for label in set(labels):
        count = labels.count(label)
        out = int((y[held_out] == label).sum())
        assert out < count
        if count > 1:
            assert out >= 1
            assert abs(out - fraction * count) <= 1
    again = split_rows(y, fraction=fraction, seed=seed)
    assert torch.equal(again[0], fitted)
    assert torch.equal(again[1], held_out)


def test_another_seed_splits_otherwise() -> None:
    labels = torch.zeros(40, dtype=torch.int64)
    assert not torch.equal(
        split_rows(labels, fraction=0.5, seed=0)[1], split_rows(labels, fraction=0.5, seed=1)[1]
    )


def test_labels_of_two_sources_are_aligned_by_the_names_of_classes() -> None:
    rows = torch.arange(4)
    test = Features(torch.eye(4), torch.tensor([0, 1, 2, 0]), rows, ["ant", "cat", "dog"], 1)
    renumbered = test.with_classes(["bee", "cat", "dog"])
    assert list(renumbered.classes) == [
        "bee",
        "cat",
        "dog",
        "ant",
    ]  # one that train lacks comes after
    assert renumbered.labels.tolist() == [3, 1, 2, 3]
    assert [renumbered.classes[i] for i in renumbered.labels.tolist()] == [
        "ant",
        "cat",
        "dog",
        "ant",
    ]
    assert torch.equal(renumbered.x, test.x)
    assert renumbered.bad == 1
