"""Image files of every kind of pixel, and class folders as people have them."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data.image_folder import read_image
from data.load import load_images
from models.errors import InputError
from tests.test_images import write_cifar10, write_folder, write_png

RAMP = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))  # 0 to 248, from left to right
GREY = RAMP[..., None].repeat(3, axis=2)
RED, GREEN, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 255), (0, 0, 0)


def save(path, pixels, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_16(pixels, colour):
    """Return a PNG of 16 bits a channel, which Pillow cannot write in colour. `pixels` are (H, W, C) uint16."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(pixels, bits, photometric, order="<", sample_format=1):
    """Return an uncompressed TIFF; `pixels` (32, 32, ...) are of the file's byte order."""
    content, samples = pixels.tobytes(), pixels[0, 0].size
    strip = 8 + 2 + 12 * 10 + 4
    tags = [(256, 32), (257, 32), (258, bits), (259, 1), (262, photometric), (273, strip), (277, samples), (278, 32)]
    tags += [(279, len(content)), (339, sample_format)]
    entries = b"".join(struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", value) for tag, value in tags)
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return start + struct.pack(order + "H", len(tags)) + entries + bytes(4) + content


SIXTEEN = RAMP.astype(np.uint16) * 257
KINDS = {  # file name, and what writes it; all show the ramp
    "grey": ("a.png", lambda path: save(path, RAMP)),
    "colours": ("a.png", lambda path: save(path, GREY)),
    "16-bit grey PNG": ("a.png", lambda path: save(path, SIXTEEN)),
    "16-bit grey PNG whose lower bytes differ": ("a.png", lambda path: save(path, RAMP.astype(np.uint16) * 256 + 255)),
    "16-bit grey and alpha PNG": (
        "a.png",
        lambda path: path.write_bytes(png_16(np.stack([SIXTEEN, np.full_like(SIXTEEN, 65535)], -1), 4)),
    ),
    "16-bit RGB PNG": ("a.png", lambda path: path.write_bytes(png_16(SIXTEEN[..., None].repeat(3, 2), 2))),
    "16-bit grey TIFF": ("a.tif", lambda path: save(path, SIXTEEN)),
    "16-bit grey TIFF, big-endian": (
        "a.tiff",
        lambda path: path.write_bytes(tiff(SIXTEEN.astype(">u2"), 16, 1, ">")),
    ),
    "16-bit grey TIFF whose 0 is white": ("a.tif", lambda path: path.write_bytes(tiff(65535 - SIXTEEN, 16, 0))),
    "16-bit PGM": ("a.pgm", lambda path: save(path, SIXTEEN)),
    "PGM of another maximum": (
        "a.pgm",
        lambda path: path.write_bytes(b"P5 32 32 65535\n" + SIXTEEN.astype(">u2").tobytes()),
    ),
    "palette": ("a.png", lambda path: save(path, RAMP, "P")),
    "GIF": ("a.gif", lambda path: save(path, RAMP)),
    "animated GIF": (
        "a.gif",
        lambda path: save(path, RAMP, save_all=True, append_images=[Image.fromarray(255 - RAMP)] * 3),
    ),
    "BMP": ("a.bmp", lambda path: save(path, GREY)),
    "WEBP": ("a.webp", lambda path: save(path, GREY, lossless=True)),
    "CMYK": ("a.tif", lambda path: save(path, GREY, "CMYK")),
    "alpha that is opaque": ("a.png", lambda path: save(path, GREY, "RGBA")),
    "a suffix that is another format's": ("a.jpg", lambda path: save(path, GREY, format="PNG")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_picture_is_read_from_every_kind_of_pixel(tmp_path, kind):
    name, write = KINDS[kind]
    write(tmp_path / name)
    pixels = read_image(tmp_path / name, (32,))
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, GREY)


def test_jpegs_and_ycbcr_show_the_picture_up_to_their_rounding(tmp_path):
    written = [save(tmp_path / f"{mode}.jpg", GREY, mode, quality=100) for mode in ("L", "RGB", "CMYK")]
    for path in (*written, save(tmp_path / "a.tif", GREY, "YCbCr")):
        assert np.abs(read_image(path, (32,)).astype(int) - GREY).max() <= 3


def test_one_bit_is_black_and_white(tmp_path):
    pixels = read_image(save(tmp_path / "a.png", Image.fromarray(RAMP > 100)), (32,))
    assert np.array_equal(pixels, np.where(GREY > 100, 255, 0))


def test_what_is_transparent_is_white(tmp_path):
    """Whatever colour is hidden there; half transparent is half white."""
    alpha = np.zeros((32, 32), np.uint8)
    alpha[:, 16:] = 255
    alpha[0] = 128
    rgba = np.dstack([np.full((32, 32, 3), RED, np.uint8), alpha])
    pixels = read_image(save(tmp_path / "a.png", rgba), (32,))
    assert (pixels[1:, :16] == WHITE).all() and (pixels[1:, 16:] == RED).all()
    assert np.abs(pixels[0].astype(int) - (255, 127, 127)).max() <= 1
    grey_alpha = Image.fromarray(np.dstack([np.zeros((32, 32), np.uint8), alpha]), "LA")
    pixels = read_image(save(tmp_path / "b.png", grey_alpha), (32,))
    assert (pixels[1:, :16] == WHITE).all() and (pixels[1:, 16:] == BLACK).all()
    palette = Image.fromarray(np.repeat([[0, 1]], 32, 0).repeat(16, 1).astype(np.uint8), "P")
    palette.putpalette([*RED, *GREEN])
    for name in ("c.png", "c.gif"):
        palette.save(tmp_path / name, transparency=0)
        pixels = read_image(tmp_path / name, (32,))
        assert (pixels[:, :16] == WHITE).all() and (pixels[:, 16:] == GREEN).all()
    save(tmp_path / "f.png", SIXTEEN, transparency=0)
    assert np.array_equal(
        read_image(tmp_path / "f.png", (32,))[:, :2], GREY[:, :2] | np.array([[[255]], [[0]]]).reshape(1, 2, 1)
    )
    for name, mode, value in (("d.png", "L", 0), ("e.png", "RGB", BLACK)):
        pixels = read_image(save(tmp_path / name, RAMP, mode, transparency=value), (32,))
        assert (pixels[:, 0] == WHITE).all() and np.array_equal(pixels[:, 1:], GREY[:, 1:])


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_picture_is_turned_as_its_exif_says(tmp_path, number, name):
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[16:, :16] = WHITE, (120, 120, 120), (60, 60, 60)
    turns = {  # how the stored rows and columns lie, by the standard
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[274] = number
    options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100}}.get(name, {})
    path = save(tmp_path / name, np.ascontiguousarray(turns[number]), exif=exif, **options)
    assert np.abs(read_image(path, (32,)).astype(int) - upright).max() <= 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_leaves_the_picture_as_it_is(tmp_path):
    path = save(tmp_path / "a.jpg", GREY, quality=100, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert np.abs(read_image(path, (32,)).astype(int) - GREY).max() <= 3


@pytest.mark.parametrize(
    "content",
    [
        tiff(RAMP.astype(np.int32) * 65793, 32, 1),
        tiff(RAMP.astype(np.float32) / 255, 32, 1, sample_format=3),
        tiff(RAMP.astype(np.int16), 16, 1, sample_format=2),
        tiff(GREY, 8, 8),  # CIELAB
        tiff(RAMP.astype(np.int8), 8, 1, sample_format=2),
        tiff(SIXTEEN[..., None].repeat(3, 2), 16, 2).replace(
            struct.pack("<HHII", 278, 4, 1, 32), struct.pack("<HHII", 284, 4, 1, 2)
        ),
    ],
)
def test_pixels_without_8_bits_are_refused_by_name(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif", (32,))


def test_a_bomb_in_a_pngs_text_is_refused(tmp_path):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0))
    bombs = 3 * png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))
    end = png_chunk(b"IDAT", zlib.compress(33 * 32 * b"\0")) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + bombs + end)
    with pytest.raises(InputError, match=r"a\.png"):
        read_image(tmp_path / "a.png", (32,))


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif", "a.webp", "a.jpg", "a.ppm"])
def test_pictures_cut_short_are_refused(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    content = save(tmp_path / name, noise).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        read_image(tmp_path / name, (32,))


def test_only_regular_files_are_images(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for name in ("a.png", ".", "gone.png"):
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name, (32,))


# Class folders


def sizes(images):
    return [len(images.train), len(images.val), len(images.test)]


def pets(tmp_path):
    return write_folder(tmp_path / "pets", classes=("cat", "dog"))


def load(folder):
    return load_images(str(folder), folder.parent)


def test_what_systems_and_tools_leave_in_class_folders_is_ignored_and_said(tmp_path, capsys):
    plain = load(pets(tmp_path)).fingerprint
    assert capsys.readouterr().err == ""
    train = tmp_path / "pets" / "train"
    for path in ("cat/._0.png", "cat/.DS_Store", "dog/Thumbs.db", ".ipynb_checkpoints/0.png", "__MACOSX/cat/._0.png"):
        (train / path).parent.mkdir(parents=True, exist_ok=True)
        (train / path).write_bytes(b"\0\5\x16\7")
    (train.parent / "._train").write_bytes(b"")
    os.mkfifo(train / "cat" / "pipe.png")
    write_png(train / "beside.png")
    (train / "dog" / "new.heic").write_bytes(b"")
    (train.parent / "valid").mkdir()
    images = load(train.parent)
    assert sizes(images) == [8, 2, 4] and images.fingerprint == plain
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: ") and "4 more" in line  # ._0, pipe, beside, heic, valid, two hidden folders


def test_names_of_classes_and_images_may_be_odd(tmp_path):
    names = ("a=1;b", "ü ,", "x\ny", os.fsdecode(b"caf\xe9"))
    images = load(write_folder(tmp_path / "pets", classes=names))
    assert images.class_names == tuple(sorted(names)) and sizes(images) == [16, 4, 8]


def test_links_and_subfolders_are_read_as_files_of_their_class(tmp_path):
    folder = pets(tmp_path)
    before = load(folder).fingerprint
    store = tmp_path / "store"
    store.mkdir()
    for path in sorted((folder / "train" / "cat").iterdir()):
        path.rename(store / path.name)
        path.symlink_to(store / path.name)
    assert load(folder).fingerprint == before
    write_png(folder / "train" / "dog" / "more" / "9.JPG", seed=9)
    assert len(load(folder).train) + len(load(folder).val) == 11


def test_val_validates_where_it_is_there(tmp_path, capsys):
    folder = pets(tmp_path)
    for name, seed in (("dog", 1), ("cat", 0)):
        write_png(folder / "val" / name / "0.png", seed=1000 + seed)
    images = load(folder)
    assert sizes(images) == [10, 2, 4] and images.val.labels.tolist() == [0, 1] and capsys.readouterr().err == ""
    for label, name in enumerate(("cat", "dog")):
        stored = np.asarray(Image.open(folder / "val" / name / "0.png"))
        assert np.array_equal(images.val.pixels[label], stored)
        stored = np.asarray(Image.open(folder / "train" / name / "4.png"))
        assert np.array_equal(images.train.pixels[5 * label + 4], stored)
    write_png(folder / "val" / "emu" / "0.png")
    with pytest.raises(InputError, match="'emu'.*val"):
        load(folder)


def test_a_val_without_images_is_refused(tmp_path):
    (pets(tmp_path) / "val").mkdir()
    with pytest.raises(InputError, match="pets/val"):
        load(tmp_path / "pets")
    with pytest.raises(InputError, match="gone/train|unknown"):
        load(tmp_path / "gone")


def test_a_folder_called_like_a_known_set_is_a_set_of_its_own(tmp_path, monkeypatch):
    write_folder(tmp_path / "cifar10", classes=("cat", "dog"))
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "cifar10"), "./cifar10"):
        images = load_images(path, tmp_path)
        assert (images.name, images.class_names) == ("cifar10-folder", ("cat", "dog"))
    write_cifar10(tmp_path)
    images = load_images("cifar10", tmp_path)  # though there is a folder ./cifar10
    assert (images.name, images.num_classes) == ("cifar10", 10)
