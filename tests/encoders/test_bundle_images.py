"""What an encoder embeds: a path, a PIL image, an array or a list; what it cannot is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.config import EncoderConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.encoders.bundle import Embedder
from selfsup.encoders.encoder import build

VIEWS = ViewsConfig(size=32)
PIXELS = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    torch.manual_seed(0)
    return Embedder(build(EncoderConfig(name="test_resnet", stem="standard"), 32), VIEWS, {})


@pytest.mark.parametrize(
    "given",
    [
        lambda file: str(file),
        lambda file: file,
        lambda file: Image.open(file),
        lambda file: PIXELS[0],
        lambda file: torch.from_numpy(PIXELS[0]).permute(2, 0, 1),
        lambda file: PIXELS[0].astype(np.float32) / 255,
        lambda file: [file],
        lambda file: (str(file),),
        lambda file: [Image.open(file)],
        lambda file: PIXELS[:1],
        lambda file: torch.from_numpy(PIXELS[:1]).permute(0, 3, 1, 2),
        lambda file: iter([PIXELS[0]]),
    ],
)
def test_one_image_is_taken_in_every_form(embedder: Embedder, tmp_path: Path, given: Any) -> None:
    file = tmp_path / "a b.png"
    Image.fromarray(PIXELS[0]).save(file)
    expected = embedder(torch.from_numpy(PIXELS[:1]).permute(0, 3, 1, 2))
    torch.testing.assert_close(embedder.embed(given(file)), expected.detach())


def test_a_list_may_mix_forms_and_sizes(embedder: Embedder, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(PIXELS[0]).save(file)
    grey = np.full((20, 50), 7, np.uint8)
    rows = embedder.embed([file, PIXELS[1], Image.fromarray(grey), grey])
    assert rows.shape == (4, embedder.encoder.dim)
    torch.testing.assert_close(rows[2], rows[3])
    assert embedder.embed([]).shape == (0, embedder.encoder.dim)


@pytest.mark.parametrize("name", ["missing.png", "folder", "text.png"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_file_that_cannot_be_read_is_named(
    embedder: Embedder, tmp_path: Path, name: str, listed: bool
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("no image")
    file = str(tmp_path / name)
    with pytest.raises(UserError, match=name) as caught:
        embedder.embed([PIXELS[0], file] if listed else file)
    assert "cannot be read" in str(caught.value)


@pytest.mark.parametrize("wrong", [3, object(), np.zeros((4, 4, 3), np.complex64)])
def test_what_is_no_image_is_said_with_its_place(embedder: Embedder, wrong: Any) -> None:
    with pytest.raises(UserError, match="image 1 cannot be read"):
        embedder.embed([PIXELS[0], wrong])
