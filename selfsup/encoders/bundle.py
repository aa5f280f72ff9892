"""Bundles: one folder with an encoder and everything that is needed to use it.

encoder/       config.json and model.safetensors for timm, README.md: the model card
bundle.json    preprocessing, normalisation, distance, threshold, figures
model.onnx     the same network for other runtimes, with --onnx

Shape letters: b images, c channels, h and w of an image, s side in pixels, d width.
"""

import contextlib
import json
import shutil
import warnings
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from selfsup.augment.apply import standardize
from selfsup.augment.resample import resized_array_crops
from selfsup.config import ViewsConfig
from selfsup.core.disk import write_to
from selfsup.core.errors import UserError, require
from selfsup.core.json_files import read_json
from selfsup.core.numerics import normalize
from selfsup.core.paths import check_output
from selfsup.core.version import __version__
from selfsup.core.writer import only_writer
from selfsup.data.decode import BadImage, decode
from selfsup.data.python_objects import image_pixels
from selfsup.encoders.encoder import Encoder, encoder_folder, export, load
from selfsup.encoders.evaluation_view import center_boxes, crop_of
from selfsup.encoders.model_card import CARD, card_to_pass_on
from selfsup.encoders.thresholds import read_threshold

FORMAT = 1  # version of bundle.json
CHECKED_BATCHES = (1, 2, 5)  # batch sizes at which an ONNX file is compared with torch
MAX_DIFFERENCE = 1e-4  # of any number in the embeddings of the two


class Embedder(nn.Module):
    """A module from images to embeddings, preprocessing included."""

    def __init__(self, encoder: Encoder, views: ViewsConfig, facts: dict[str, Any]) -> None:
        """Put together an encoder and its preprocessing, in evaluation mode.

        Args:
            encoder: the network.
            views: settings of the evaluation view: size, interpolation, mean and std.
            facts: the content of bundle.json.
        """
        super().__init__()
        self.encoder = encoder
        self.views = views
        self.facts = facts
        self.eval()

    @property
    def threshold(self) -> float | None:
        """Cosine above which a pair of images shows the same; None if it was not measured.

        For a search in many images it is too low: see `read_threshold`.
        """
        threshold = self.facts.get("threshold")
        return None if threshold is None else float(threshold)

    def forward(self, images: Tensor) -> Tensor:
        """Compute embeddings of length 1.

        Args:
            images: uint8 [b, c, h, w] of any size: the shorter side is resized and the centre is
                cropped. Or floats in [0, 1] that already have the encoder's size, [b, c, s, s].

        Returns:
            float32 [b, d].
        """
        if images.dtype == torch.uint8:
            size = self.views.size
            boxes = center_boxes(len(images), self.views).resolve(*images.shape[2:])
            rows = images.cpu().permute(0, 2, 3, 1)
            crops = resized_array_crops(rows, boxes, size, self.views.resampling)[:, 0]
            images = crops.to(images.device).float() / 255
        x = standardize(images, *self.views.normalization)
        return normalize(self.encoder(x).float())

    @torch.inference_mode()
    def embed(self, images: Any) -> Tensor:
        """Compute embeddings of images.

        Args:
            images: the path of a file, a PIL image, or an array: [h, w] or [h, w, c] of numpy,
                [c, h, w] of torch, uint8 or floats in [0, 1]. Or b of them, as a list or as one
                array with one dimension more.

        Returns:
            float32 [b, d], rows of length 1; b is 1 for one image.

        Raises:
            UserError: an image cannot be read; its file or place is named.
        """
        device = next(self.parameters()).device
        rows = []
        for i, image in enumerate(_as_list(images)):
            try:
                pixels = torch.from_numpy(np.array(self._pixels(image)))
            except BadImage as error:
                name = str(image) if isinstance(image, str | PathLike) else f"image {i}"
                raise UserError(f"{name} cannot be read: {error}") from None
            rows.append(self(pixels.permute(2, 0, 1)[None].to(device)).cpu())
        return torch.cat(rows) if rows else torch.zeros(0, self.encoder.dim)

    def _pixels(self, image: Any) -> np.ndarray:
        """uint8 [h, w, c] of a file or of an image in memory."""
        if isinstance(image, str | PathLike):
            return decode(Path(image), self.views.channels)
        return image_pixels(image, self.views.channels)


def _as_list(images: Any) -> Sequence[Any]:
    """One image as a list of one; an array of several as their list."""
    if isinstance(images, str | PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    return list(images)


def model_name(model: Any) -> str:
    """Return the path or name of a model: of a run, a folder, or timm's.

    Raises:
        UserError: it is something else, such as a module.
    """
    require(
        isinstance(model, str | PathLike),
        f"a model is a run, a folder or the name of a timm model, not a {type(model).__name__}",
    )
    name: str = fspath(model)
    return name


def load_bundle(folder: str | Path) -> Embedder:
    """Load the module of a bundle or of a finished run.

    Args:
        folder: the bundle or the run folder.

    Raises:
        UserError: the folder is neither, or a newer version of selfsup wrote it.
    """
    folder = Path(folder)
    encoder, views = load(folder)
    file = folder / "bundle.json"
    facts: dict[str, Any] = {}
    if file.exists():
        try:
            facts = dict(read_json(file))
            facts["format"] = int(facts.get("format", 0))
        except (OSError, ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{file} cannot be read: {error}") from None
        if facts["format"] > FORMAT:
            raise UserError(
                f"{folder} has format {facts['format']} of a newer selfsup; this version reads up "
                f"to format {FORMAT}. Use pip install -U selfsup"
            )
    return Embedder(encoder, views, facts | {"threshold": read_threshold(folder)})


def write_bundle(run: Path, out: Path, *, onnx: bool = False) -> dict[str, float]:
    """Write the bundle of a run.

    It is written to a temporary folder and renamed at the end, so that `out` is never incomplete.

    Args:
        run: a finished run, with the figures and the threshold that tools wrote to its folder.
        out: the new folder, or a bundle to replace.
        onnx: also write model.onnx, and compare it with torch.

    Returns:
        The largest difference between an embedding of ONNX and of torch, by batch size. Empty
        without `onnx`.

    Raises:
        UserError: the run is not finished, `out` contains something else, or a package for ONNX
            is missing.
    """
    encoder, views = load(run)
    check_output(out, mark="bundle.json", otherwise="not a bundle")
    with only_writer(out.parent, f".{out.name}.writer.json"):
        temporary = out.with_name(f".{out.name}.part")
        return write_to(
            out,
            lambda: _write_bundle(run, out, encoder, views, onnx=onnx),
            clean=lambda: shutil.rmtree(temporary, ignore_errors=True),
        )


def _write_bundle(
    run: Path, out: Path, encoder: Encoder, views: ViewsConfig, *, onnx: bool
) -> dict[str, float]:
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    export(encoder, temporary / "encoder", views)
    facts = {
        "format": FORMAT,
        "selfsup": __version__,
        "width": encoder.dim,
        "distance": "cosine",
        "embeddings": "scaled to length 1",
        "preprocessing": {
            "size": views.size,
            "share of the shorter side": crop_of(views),
            "interpolation": views.resampling,
            "mean": views.normalization[0],
            "std": views.normalization[1],
        },
        "threshold": read_threshold(run),
        "figures": _figures(run),
    }
    (temporary / "bundle.json").write_text(json.dumps(facts, indent=2) + "\n")
    card = card_to_pass_on(run, encoder_folder(run))
    file = temporary / "encoder" / CARD
    file.write_text(card, encoding="utf-8", errors="backslashreplace")
    differences: dict[str, float] = {}
    if onnx:
        differences = export_onnx(Embedder(encoder, views, facts), temporary / "model.onnx")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return differences


def _figures(run: Path) -> dict[str, Any]:
    """Collect the figures, facts and settings that tools wrote to a run or a bundle."""
    records: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        records |= read_json(run / "bundle.json")["figures"]  # `run` is a bundle
    for file in sorted(run.glob("*.json")):
        try:
            record = read_json(file)
            kept = {key: record[key] for key in ("figures", "facts", "settings")}
            records[file.stem] = kept | {"details": record.get("details", {})}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no result of a tool
    return records


def export_onnx(embedder: Embedder, file: Path) -> dict[str, float]:
    """Export the network to ONNX and compare its embeddings with torch's.

    The file's input `images` is float32 [b, c, s, s] in [0, 1]; its output `embeddings` is [b, d],
    rows of length 1.

    Args:
        embedder: the module to export.
        file: the new .onnx file.

    Returns:
        The largest difference of any number in the embeddings, by batch size.

    Raises:
        UserError: a package is missing, or the embeddings differ by more than `MAX_DIFFERENCE`.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError:
        raise UserError("--onnx needs pip install 'selfsup[onnx]'") from None
    views = embedder.views
    shape = views.channels, views.size, views.size
    embedder.encoder.channels_last = False
    images = torch.rand(max(CHECKED_BATCHES), *shape, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            embedder,
            (images[:2],),
            file,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("images", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    differences = {}
    for size in CHECKED_BATCHES:
        with torch.inference_mode():
            expected = embedder(images[:size]).numpy()
        (embeddings,) = session.run(None, {"images": images[:size].numpy()})
        differences[str(size)] = float(np.abs(embeddings - expected).max())
    largest = max(differences.values())
    if largest > MAX_DIFFERENCE:
        raise UserError(
            f"embeddings of the ONNX file differ from torch's by {largest:.2g}, more than "
            f"{MAX_DIFFERENCE:.0e}. Leave --onnx out, or use another encoder"
        )
    return differences
