"""`photos`: which of ten photographs does this 8x8 grey patch come from? The photographs ship inside scikit-image.

Each photograph is halved in size by averaging 2x2 pixels, so that no pixel mixes two tiles, and cut into blocks of 2x2
tiles of 8x8 pixels. Whole blocks are split into train, val and test (70 / 10 / 20): no pixel is in two tiles, and most
neighbours of a test tile are test tiles too.
"""

import numpy as np
import skimage.data
from skimage.color import rgb2gray
from skimage.transform import downscale_local_mean
from skimage.util import img_as_float, img_as_ubyte, view_as_blocks

from data.images import ImageSet, make_images

PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket")
TILE = 8  # pixels
BLOCK = 2  # tiles
FRACTIONS = (0.7, 0.1, 0.2)  # train, val, test
SPLIT_SEED = 0
MEAN, STD = (0.449,), (0.226,)  # grey ImageNet
PADDING = 0  # mirrored only: a black border of even 1 pixel costs nets of this size 2 points of accuracy


def tile_blocks(name: str) -> np.ndarray:
    """Cut a photograph into blocks, (blocks, BLOCK*BLOCK, TILE, TILE, 1) uint8."""
    photograph = getattr(skimage.data, name)()
    grey = rgb2gray(photograph) if photograph.ndim == 3 else img_as_float(photograph)
    half = img_as_ubyte(downscale_local_mean(grey, (2, 2)))
    size = TILE * BLOCK
    rows, columns = (length // size for length in half.shape)
    blocks = view_as_blocks(half[: rows * size, : columns * size], (size, size)).reshape(-1, size, size)
    tiles = blocks.reshape(-1, BLOCK, TILE, BLOCK, TILE).transpose(0, 1, 3, 2, 4)
    return tiles.reshape(-1, BLOCK * BLOCK, TILE, TILE, 1)


def load_photos() -> ImageSet:
    """Load about 6,200 / 900 / 1,800 tiles."""
    pixels: tuple[list[np.ndarray], ...] = ([], [], [])  # of train, val, test
    labels: tuple[list[np.ndarray], ...] = ([], [], [])
    for label, name in enumerate(PHOTOGRAPHS):
        blocks = tile_blocks(name)
        order = np.random.default_rng((SPLIT_SEED, label)).permutation(len(blocks))
        cuts = np.rint(np.cumsum(FRACTIONS)[:2] * len(blocks)).astype(int)
        for split, chosen in enumerate(np.split(order, cuts)):
            tiles = blocks[chosen].reshape(-1, TILE, TILE, 1)
            pixels[split].append(tiles)
            labels[split].append(np.full(len(tiles), label))
    train, val, test = (
        make_images(np.concatenate(p), np.concatenate(y), MEAN, STD, PADDING) for p, y in zip(pixels, labels)
    )
    return ImageSet("photos", train, val, test, class_names=PHOTOGRAPHS)
