"""PReps as small images for an HTML page: near-square, in false colours, as data URIs (as in S Fig. 5 and 6)."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image

from evaluation.embedded import Embedded
from evaluation.plots import PREDICTED, TARGET

SIDE = 128  # pixels at most; larger PReps are averaged in square blocks
PARAMETERS, DIFFERENCES = colormaps["viridis"], LinearSegmentedColormap.from_list("", (TARGET, "#F7F7F7", PREDICTED))
TRANSPARENT = 255  # in the images' palettes, for what is no parameter


def block_side(size: int) -> int:
    """How many parameters a side a pixel is the mean of, in the picture of `size` parameters."""
    return math.ceil(math.ceil(math.sqrt(size)) / SIDE)


def picture(row: np.ndarray, size: int) -> np.ndarray:
    """Parameters (P,) as a near-square (h, w) that has room for `size` of them; NaN where there are none."""
    side = math.ceil(math.sqrt(size))
    square = np.full((math.ceil(size / side), side), np.nan, np.float32)
    square.ravel()[: len(row)] = row
    return np.asarray(Image.fromarray(square).reduce(block_side(size)))


def png(values: np.ndarray, low: float, high: float, colors: Colormap) -> str:
    """An image (h, w), NaN transparent, as a data URI."""
    share = (np.nan_to_num(values) - low) / max(high - low, 1e-12)
    indices = np.where(np.isnan(values), TRANSPARENT, (share.clip(0, 1) * (TRANSPARENT - 1)).round())
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    palette = colors(np.linspace(0, 1, TRANSPARENT))[:, :3]
    image.putpalette((255 * palette).round().astype(np.uint8).tobytes() + b"\0\0\0")
    file = io.BytesIO()
    image.save(file, "png", optimize=True, transparency=TRANSPARENT)
    return data_uri(file.getvalue())


def data_uri(png_bytes: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes).decode()


def percentile_range(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """1st and 99th percentile of what images show."""
    low, high = np.nanpercentile(np.concatenate([image.ravel() for image in images]), (1, 99))
    return float(low), float(high)


def prep_pictures(embedded: Embedded, number: int) -> list[dict[str, Any]]:
    """`number` test instances, spread over their list: target, predicted and difference, each with its range."""
    test = embedded.of_split("test")
    chosen = [test[i] for i in np.unique(np.linspace(0, len(test) - 1, number).round().astype(int))]
    sizes = [embedded.sizes[i] for i in chosen]
    targets = embedded.parameters_of(embedded.preps[chosen], sizes)
    shown = []
    for i, target, predicted in zip(chosen, targets, embedded.predict(embedded.embeddings[chosen], sizes)):
        images = [picture(row, len(target)) for row in (target, predicted, predicted - target)]
        low, high = percentile_range(images[:2])
        most = float(np.nanpercentile(np.abs(images[2]), 99))
        names = ("target", "predicted", "difference")
        ranges = ((low, high, PARAMETERS), (low, high, PARAMETERS), (-most, most, DIFFERENCES))
        shown.append(
            {
                "name": embedded.paths[i].stem,
                "architecture": embedded.architectures[i],
                "parameters": len(target),
                "block": block_side(len(target)) ** 2,
                "images": [
                    {"name": name, "source": png(image, *scale), "low": scale[0], "high": scale[1]}
                    for name, image, scale in zip(names, images, ranges)
                ],
            }
        )
    return shown


def line_pictures(lines: dict[str, list[np.ndarray]], size: int) -> list[dict[str, Any]]:
    """Parameters along gamma, K rows by name, each as K images with room for `size` parameters; all on one range."""
    images = {name: [picture(row, size) for row in rows] for name, rows in lines.items()}
    low, high = percentile_range([image for each in images.values() for image in each])
    return [
        {"name": name, "sources": [png(image, low, high, PARAMETERS) for image in each]}
        for name, each in images.items()
    ]
