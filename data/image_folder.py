"""Image files, and a data set of your own: FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, square images, 32 or 64 a side."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from data.files import check_regular, list_files, list_folders, report_left_out
from data.folders import dataset_name
from data.images import IMAGENET_MEAN, IMAGENET_STD, ImageSet, make_images, split_by_class
from models.errors import InputError

# Pillow reads more: it would pass PostScript, whatever the file's name, to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SIDES = (32, 64)  # pixels
SPLIT_SEED = 0
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
NOT_READ = {suffix for suffix, name in Image.registered_extensions().items() if name not in FORMATS}
NOT_READ |= {".avif", ".heic", ".heif", ".jxl", ".svg"}
PARTS = ("train", "val", "test")
# What Pillow turns into RGB of 8 bits rightly. It would clip 16 bits a pixel, integers of 32 and floats.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
PLANAR, SAMPLE_FORMAT = 284, 339


def read_image(path: Path, sides: Sequence[int]) -> np.ndarray:
    """Return an image as (S, S, 3) uint8, as `rgb_pixels` does.

    Raise InputError if it is missing, not an image, not square with S in `sides`, or of a kind of pixel that has no 8 bits.
    The size in the header is checked before the pixels are decoded.
    """
    if not os.path.lexists(path):
        raise InputError(f"no image {path}; check the list or folder that names it")
    check_regular(path)  # opening a FIFO would wait for ever
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            pixels = rgb_pixels(image) if width == height and width in sides else None
    except Exception as error:  # what a broken file raises depends on its bytes
        raise InputError(f"{path} cannot be read as an image ({type(error).__name__}); replace or remove it") from None
    if isinstance(pixels, str):
        raise InputError(f"{path} has pixels of Pillow's mode {pixels}; save it with 8 bits a channel, grey or RGB")
    if pixels is None:
        raise InputError(
            f"{path} is {height}x{width} pixels; images must be square, {' or '.join(map(str, sides))} a side: resize them"
        )
    return pixels


def rgb_pixels(image: Image.Image) -> np.ndarray | str:
    """Return an image's (first) picture as (H, W, 3) uint8, upright as its EXIF says, or its mode if that has no 8 bits.

    Of grey values of 16 bits the upper byte is taken. What is transparent is laid over white. Colour profiles are ignored.
    """
    image.load()
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]  # TIFF has 12, too
    if set(tags.get(SAMPLE_FORMAT, (1,))) != {1} or (tags.get(PLANAR) == 2 and bits > 8):
        return f"{image.mode}, signed or in planes"  # which Pillow reads as if they were neither
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if sixteen_bits:
        grey = np.asarray(image).astype(np.int64)
        transparent = grey == image.info.get("transparency", -1)  # one value of PNG
        grey = grey >> (bits - 8)
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # which Pillow heeds in images of 8 bits only
            grey = 255 - grey
        grey[transparent] = 255
        image, upright = Image.fromarray(grey.astype(np.uint8)), orientation(image)
    elif image.mode in MODES:
        upright = orientation(image)
        if image.has_transparency_data:
            coloured = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured)
    else:
        return image.mode
    if upright in TURNED:
        image = image.transpose(TURNED[upright])
    return np.asarray(image.convert("RGB"))


def orientation(image: Image.Image) -> int:
    """Return how the picture lies, a number of EXIF; 1, upright, if nothing readable says so."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # what broken EXIF raises depends on its bytes; the picture is there all the same
        return 1


def read_images(paths: Sequence[Path], sides: Sequence[int], what: str) -> np.ndarray:
    """Return images as (N, S, S, 3) uint8, decoded by as many threads as there are cores.

    Raise InputError unless all are square and of one size that is in `sides`.
    """
    with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="ignore"):  # broken metadata is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
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


def list_part(folder: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...], list[tuple[Path, str]]]:
    """Return image paths, labels, class names in alphabetical order, and what was left out, with its reason.

    Images in subfolders of a class folder are the class's, too. Raise InputError for a class without images.
    """
    expected = f"{folder} has no class folders with images; expected {folder}/CLASS/IMAGE"
    if not folder.is_dir():
        raise InputError(expected)
    classes = list_folders(folder)
    beside = list_files(folder, SUFFIXES).files
    left_out = [*classes.left_out, *((path, "in no class folder") for path in beside)]
    paths, labels = [], []
    for label, class_folder in enumerate(classes.files):
        images = list_files(class_folder, SUFFIXES | NOT_READ, subfolders=True)
        wanted = [path for path in images.files if path.suffix.lower() in SUFFIXES]
        if not wanted:
            raise InputError(f"{class_folder} has no images; add some or remove the folder")
        paths += wanted
        labels += [label] * len(wanted)
        left_out += images.left_out
        left_out += [
            (path, "a kind of image that is not read") for path in images.files if path.suffix.lower() in NOT_READ
        ]
    if not paths:
        raise InputError(expected)
    return paths, np.array(labels), tuple(path.name for path in classes.files), left_out


def load_image_folder(folder: Path) -> ImageSet:
    """Load class folders. `train/` trains, `val/` validates, `test/` is the test set.

    Without `val/`, 80 % of each class in `train/` train and 20 % validate. What is left out is named on stderr. The folder's
    name is the data set's. Raise InputError if a folder or its images do not have this form.
    """
    name = dataset_name(os.path.join(folder, ""))  # a folder's, never a known data set's
    parts = [part for part in PARTS if part != "val" or os.path.lexists(folder / part)]
    left_out = [(path, "only train, val and test are read") for path in list_folders(folder).files]
    left_out = [(path, reason) for path, reason in left_out if path.name not in PARTS]
    paths: list[Path] = []
    labels_of: dict[str, np.ndarray] = {}
    chosen: dict[str, np.ndarray] = {}  # indices of the images in `paths`
    class_names: tuple[str, ...] = ()
    for part in parts:
        found, labels_of[part], names, odd_ones = list_part(folder / part)
        if part == "train":
            class_names = names
        elif names != class_names:
            odd = sorted(set(class_names) ^ set(names))[0]
            raise InputError(
                f"class '{odd}' is in only one of {folder}/train and {folder}/{part}; both must have the same classes"
            )
        chosen[part] = np.arange(len(paths), len(paths) + len(found))
        paths += found
        left_out += odd_ones
    pixels = read_images(paths, SIDES, name)
    if "val" not in chosen:
        train, val = split_by_class(labels_of["train"], 0.8, SPLIT_SEED)
        if not len(val):
            raise InputError(f"{folder}/train has too few images for validation; every class needs at least 3")
        chosen |= {"train": train, "val": val}
        labels_of |= {"train": labels_of["train"][train], "val": labels_of["train"][val]}
    report_left_out(left_out)
    padding = pixels.shape[1] // 8
    train_images, val_images, test_images = (
        make_images(pixels[chosen[part]], labels_of[part], IMAGENET_MEAN, IMAGENET_STD, padding) for part in PARTS
    )
    return ImageSet(name, train_images, val_images, test_images, class_names=class_names)
