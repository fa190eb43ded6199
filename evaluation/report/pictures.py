"""PReps as pictures: near-square, in false colours (supplement Fig. 5 and 6)."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image

from evaluation.plots import PREDICTED, TARGET

PARAMETERS, DIFFERENCES = colormaps["viridis"], LinearSegmentedColormap.from_list("", (TARGET, "#F7F7F7", PREDICTED))
SIDE = 128  # pixels of a picture at most; larger PReps are averaged in square blocks
TRANSPARENT = 255  # in the pictures' palettes, for what is no parameter


@dataclass(frozen=True)
class Picture:
    """A PRep as a data URI, and the values of its first and last colour."""

    name: str
    source: str
    low: float
    high: float


@dataclass(frozen=True)
class Prep:
    """Target, predicted and difference of one instance. `block` is the number of parameters that a pixel is the mean of."""

    name: str
    architecture: str
    parameters: int
    block: int
    pictures: list[Picture]


def block_side(size: int) -> int:
    """Return the side of the square of parameters that a pixel is the mean of, in a picture of `size` parameters."""
    return math.ceil(math.ceil(math.sqrt(size)) / SIDE)


def picture(row: np.ndarray, size: int) -> np.ndarray:
    """Return parameters (P,) as a near-square picture (h, w) with room for `size` of them; NaN where there are none."""
    side = math.ceil(math.sqrt(size))
    square = np.full((math.ceil(size / side), side), np.nan, np.float32)
    square.ravel()[: len(row)] = row
    return np.asarray(Image.fromarray(square).reduce(block_side(size)))


def png(values: np.ndarray, low: float, high: float, colors: Colormap) -> str:
    """Return a picture (h, w), in which NaN is transparent, as a data URI."""
    fractions = (np.nan_to_num(values) - low) / max(high - low, 1e-12)
    indices = np.where(np.isnan(values), TRANSPARENT, (fractions.clip(0, 1) * (TRANSPARENT - 1)).round())
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    palette = colors(np.linspace(0, 1, TRANSPARENT))[:, :3]
    image.putpalette((255 * palette).round().astype(np.uint8).tobytes() + b"\0\0\0")
    file = io.BytesIO()
    image.save(file, "png", optimize=True, transparency=TRANSPARENT)
    return data_uri(file.getvalue())


def data_uri(png_bytes: bytes) -> str:
    """Return the bytes of a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png_bytes).decode()


def percentile_range(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the 1st and the 99th percentile of all pixels."""
    low, high = np.nanpercentile(np.concatenate([each.ravel() for each in pictures]), (1, 99))
    return float(low), float(high)


def line_pictures(lines: dict[str, list[np.ndarray]], size: int) -> dict[str, list[str]]:
    """Draw the parameters along lines, K rows by name, as K data URIs, with room for `size` parameters; all on one range."""
    pictures = {name: [picture(row, size) for row in rows] for name, rows in lines.items()}
    low, high = percentile_range([each for line in pictures.values() for each in line])
    return {name: [png(each, low, high, PARAMETERS) for each in line] for name, line in pictures.items()}
