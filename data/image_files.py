"""Image files decoded into one uint8 array, by as many threads as there are cores."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from models.errors import InputError

# Of all that Pillow reads: formats of pictures alone. It would hand PostScript, whatever the file's name, to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}


def read_image(path: Path, sides: Sequence[int]) -> np.ndarray:
    """(S, S, 3) uint8. Raises InputError naming the file if it is missing, no image, or not S of `sides` pixels square.

    What a header says is checked before the pixels are decoded.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            pixels = np.asarray(image.convert("RGB")) if width == height and width in sides else None
    except FileNotFoundError:
        raise InputError(f"no image {path}; check the list or folder that names it") from None
    except Exception as error:  # what a broken file raises depends on its bytes
        raise InputError(f"{path} cannot be read as an image ({type(error).__name__}); replace or remove it") from None
    if pixels is None:
        raise InputError(
            f"{path} is {height}x{width} pixels; images must be square, {' or '.join(map(str, sides))} a side: resize them"
        )
    return pixels


def read_images(paths: Sequence[Path], sides: Sequence[int], what: str) -> np.ndarray:
    """(N, S, S, 3) uint8. Raises InputError unless all are square, of one size, and that is one of `sides`."""
    with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
        images = list(
            tqdm(pool.map(partial(read_image, sides=sides), paths), what, len(paths), leave=False, disable=None)
        )
    shape = images[0].shape
    for path, image in zip(paths, images):
        height, width, _ = image.shape
        if image.shape != shape:
            raise InputError(
                f"{path} is {height}x{width} pixels, but {paths[0]} is {shape[0]}x{shape[1]}; resize them to one size"
            )
    return np.stack(images)
