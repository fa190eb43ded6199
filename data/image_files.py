"""Image files decoded into one uint8 array, by as many threads as there are cores."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from models.errors import InputError


def read_image(path: Path) -> np.ndarray:
    """(S, S, 3) uint8. Raises InputError naming the file if it is missing or no image."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"no image {path}; check the list or folder that names it") from None
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path} cannot be read as an image ({type(error).__name__}); replace or remove it") from None


def read_images(paths: Sequence[Path], sides: Sequence[int], what: str) -> np.ndarray:
    """(N, S, S, 3) uint8. Raises InputError unless all are square, of one size, and that is one of `sides`."""
    with ThreadPoolExecutor() as pool:
        images = list(tqdm(pool.map(read_image, paths), what, len(paths), leave=False, disable=None))
    shape = images[0].shape
    for path, image in zip(paths, images):
        height, width, _ = image.shape
        if height != width or height not in sides:
            raise InputError(
                f"{path} is {height}x{width} pixels; images must be square, {' or '.join(map(str, sides))} a side: resize them"
            )
        if image.shape != shape:
            raise InputError(
                f"{path} is {height}x{width} pixels, but {paths[0]} is {shape[0]}x{shape[1]}; resize them to one size"
            )
    return np.stack(images)
