"""A table of bad inputs over all scripts and readers: status 2, one line that names file and remedy, nothing written, and
nothing executed that came in a file.

Each row breaks something in a copy of a small project and runs a script there.
"""

import functools
import os
import pickle
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file, save_file

import create_mlp_dataset
import create_nets_dataset_multi
import train_multi_arch
from data import load
from evaluation.summary import print_summary
from models.errors import InputError
from tests import miniature
from tests.test_bad_input import refused

FOLDERS = ("--lists-dir", "lists", "--runs-dir", "runs", "--data-dir", "data")


class Trap:
    """Would leave a file called `ran` where it is unpickled."""

    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


@pytest.fixture(scope="module", autouse=True)
def few_photos():
    images = functools.cache(miniature.few_photos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(load.LOADERS, "photos", lambda data_dir: images())
        yield


def relative(root):
    """Lists that name files from the project's folder."""
    for path in (root / "lists").rglob("*.txt"):
        path.write_text(path.read_text().replace(f"{root.as_posix()}/", ""))
    return root


@pytest.fixture(scope="module")
def projects(tmp_path_factory, few_photos):
    """One of each kind: single, multi, mlps, and nothing."""
    roots = {name: tmp_path_factory.mktemp(name) for name in ("single", "multi", "mlps", "nothing")}
    small = dict(num_train=2, num_val=1, num_test=2, lengths=(3,))
    miniature.create_nets_dataset_single.main(miniature.create_config(roots["single"], **small))
    miniature.train_single_arch.main(miniature.train_config(roots["single"], num_epochs=1))
    changes = dict(teacher="lenetlike", num_epochs=(1, 1, 1, 1), teacher_epochs=1)
    changes |= dict(num_train=(1, 1, 1, 1), num_train_missing=(1, 1), num_val=1, num_test=1)
    create_nets_dataset_multi.main(miniature.create_multi_config(roots["multi"], **changes))
    train_multi_arch.main(miniature.train_multi_config(roots["multi"], num_epochs=1))
    create_mlp_dataset.main(miniature.create_mlp_config(roots["mlps"], num_steps=5))
    miniature.train_mlps.main(miniature.train_mlps_config(roots["mlps"]))
    return {name: relative(root) for name, root in roots.items()}


# What is broken: functions of the project's folder


def text(path, content):
    def do(root):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return do


def line(path, old, new):
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new))


def cut(path, size):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:size])


def code(path):
    """A file that runs code where it is unpickled carelessly."""

    def do(root):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"0": Trap()}, root / path)

    return do


def saved(path, change):
    """A checkpoint in which `change` has changed something, or (None) what it returns."""

    def do(root):
        state = torch.load(root / path, weights_only=True) if (root / path).is_file() else {}
        state = change(state) or state
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, root / path)

    return do


def set_to(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(state):
        for key in keys:
            state = state[key]
        if value is None:
            del state[last]
        else:
            state[last] = value(state[last]) if callable(value) else value

    return change


def instance(change, facts=None, kind="resnet8-adam", dataset="photos"):
    """An instance of the lists: entries changed by name."""

    def do(root):
        path = sorted((root / f"runs/{dataset}/nets/{kind}").glob("*.safetensors"))
        for each in path:
            state = change(load_file(each))
            save_file(state, each, metadata={"facts": "{}" if facts is None else facts})

    return do


def with_entry(name, value):
    return lambda state: {**state, name: value(state.get(name))}


def every_instance(content):
    def do(root):
        for path in (root / "runs/photos/nets/resnet8-adam").glob("*.safetensors"):
            path.write_bytes(content(path.read_bytes()))

    return do


def nan(value):
    return torch.full_like(value, float("nan"))


def listed(path, **more):
    """The test list names this file alone."""

    def do(root):
        (root / "lists/photos/single/test.txt").write_text(f"resnet_fusedbn;d2;d8;sphotos;{path}\n")
        for make in more.values():
            make(root)

    return do


def search(**changes):
    """latspace.pt of the multi project."""

    def do(root):
        test = [each.rsplit(";", 1)[1] for each in (root / "lists/photos/multi/test.txt").read_text().splitlines()]
        constants = {"instances": test[:1], "class_ids": [0]}
        state = dict(constants=constants, initial=torch.zeros(1, 256), best=torch.zeros(1, 256), step=4)
        (root / "runs/photos/multi/latspace").mkdir()
        torch.save({**state, **changes}, root / "runs/photos/multi/latspace/latspace.pt")

    return do


def both(*breaks):
    def do(root):
        for each in breaks:
            each(root)

    return do


def npz(name="a", **arrays):
    def do(root):
        (root / "sdf").mkdir(exist_ok=True)
        np.savez(root / "sdf" / f"{name}.npz", **arrays)

    return do


def rows(num, sign=1):
    return np.column_stack([np.zeros((num, 3)), np.full(num, sign * 0.1)]).astype(np.float32)


def png(path, side=32, width=None):
    def do(root):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((side, width or side, 3), np.uint8)).save(root / path)

    return do


def pets(*broken, per_class=5, classes=("cat", "dog")):
    """A folder of images, PNG."""
    good = [
        png(f"pets/{part}/{name}/{i}.png") for part in ("train", "test") for name in classes for i in range(per_class)
    ]
    return both(*good, *broken)


def bomb(side):
    """A PNG of few bytes whose header says it is side x side."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(ran) (w) file closefile\nshowpage\n"
HUGE_PLY = (
    b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 1000000000\nproperty list uchar int vertex_indices\nend_header\n" + 36 * b"\0" + b"\3" + 12 * b"\0"
)
HUGE_STL = 80 * b" " + struct.pack("<I", 10**9) + 50 * b"\0"


def cifar(**changes):
    arrays = {f"{part}_images": np.zeros((10, 32, 32, 3), np.uint8) for part in ("train", "test")}
    arrays |= {f"{part}_labels": np.arange(10, dtype=np.uint8) for part in ("train", "test")}

    def do(root):
        (root / "data").mkdir()
        np.savez(root / "data/cifar10.npz", **{**arrays, **changes})

    return do


def tiny(*broken):
    folder = "data/tiny-imagenet-200"
    files = [text(f"{folder}/wnids.txt", "n1\nn2\n"), text(f"{folder}/val/val_annotations.txt", "a.JPEG\tn1\t0\t0\n")]
    files += [text(f"{folder}/train/{name}/images/{i}.JPEG", "") for name in ("n1", "n2") for i in range(5)]
    return both(*files, *broken)


def nothing(root):
    pass


BEST, LAST = "runs/photos/single/best.pt", "runs/photos/single/last.pt"
TEST_LIST = "lists/photos/single/test.txt"
TRAIN = ("train_single_arch", "--prep-shape", "8", "640", "--emb-size", "256", "--grid", "16", "--row-length", "64")
TRAIN += ("--image-batch", "128", "--num-epochs", "1")
CREATE = ("create_nets_dataset_single", "--image-batch", "64")
IN_TRAINING = "runs/photos/nets/resnet8-adam/seed0-in-training-000.pt"
EVAL_SEARCH = ("eval_latspace_multi",)
MLP_TEST = "lists/chairs/mlps/test.txt"
INTERPOLATE = ("interpolate_mlps", "--num-pairs", "1", "--resolution", "8", "--split", "test")
MESHES = ("create_mlp_dataset", "meshes", "--dataset", "meshes", "--num-test", "1", "--num-samples", "100")
DEEPSDF = ("create_mlp_dataset", "deepsdf", "--dataset", "sdf", "--num-test", "1", "--num-samples", "100")
PETS = ("create_nets_dataset_single", "cifar10", "--dataset", "pets")
SIREN = "siren-adam"

# Which project; what is broken in it; the command; what its one line says.
TABLE = {
    # lists
    "list that is no text": ("single", text(TEST_LIST, b"\xff\xfe\x00"), ("eval_single",), ("test.txt", "text")),
    "list that names a folder": ("single", listed("runs"), ("eval_single",), "no instance file runs"),
    "list that points outside": ("single", listed("/etc/hostname"), ("eval_single",), "/etc/hostname cannot be read"),
    "list that points nowhere": ("single", listed("../a.pt"), ("eval_single",), ("no instance file ../a.pt", "again")),
    "list with a null in a path": ("single", listed("a\0b"), ("eval_single",), "no instance file"),
    "list of another data set": (
        "single",
        line(TEST_LIST, "sphotos", "scifar10"),
        ("eval_single",),
        "expected resnet8 on",
    ),
    "list with an empty argument": ("single", line(TEST_LIST, "d2;d8", ";"), ("eval_single",), "is not typed"),
    "list that others made": ("single", nothing, (*CREATE, "--num-train", "3"), ("names other instances", "move")),
    # instances
    "instance cut short": (
        "single",
        every_instance(lambda all_: all_[:-100]),
        ("eval_single",),
        "cannot be read as an inst",
    ),
    "instance of no bytes": (
        "single",
        every_instance(lambda _: b""),
        ("eval_single",),
        "cannot be read as an instance",
    ),
    "instance with a huge header": (
        "single",
        every_instance(lambda _: struct.pack("<Q", 2**60) + b"{}"),
        ("eval_single",),
        "cannot be read as an instance",
    ),
    "instance of text": (
        "single",
        every_instance(lambda _: b"weights"),
        ("eval_single",),
        "cannot be read as an instance",
    ),
    "instance of integers": (
        "single",
        instance(with_entry("fc.bias", lambda value: value.int())),
        ("eval_single",),
        ("'fc.bias' holds torch.int32", "float32"),
    ),
    "instance of another shape": (
        "single",
        instance(with_entry("fc.bias", lambda _: torch.zeros(3))),
        ("eval_single",),
        "'fc.bias' is (3,), expected (10,)",
    ),
    "instance with a strange name": (
        "single",
        instance(with_entry("fc.extra", lambda _: torch.zeros(3))),
        ("eval_single",),
        "it has 'fc.extra'",
    ),
    "instance with NaN": ("single", instance(with_entry("fc.bias", nan)), ("eval_single",), "'fc.bias' holds NaN"),
    "instance with infinity": (
        "single",
        instance(with_entry("conv1.weight", lambda value: value / 0)),
        ("eval_single",),
        "holds NaN or infinity",
    ),
    "instance whose facts are none": (
        "single",
        instance(dict, facts="{"),
        ("eval_single",),
        "cannot be read as an instance",
    ),
    "instance whose facts are a number": ("single", instance(dict, facts="3"), ("eval_single",), "cannot be read"),
    "instance that runs code": (
        "single",
        listed("a.pt", make=code("a.pt")),
        ("eval_single",),
        ("a.pt", "UnpicklingError"),
    ),
    "instance that is a list": (
        "single",
        listed("a.pt", make=saved("a.pt", lambda _: [torch.zeros(3)])),
        ("eval_single",),
        "not a state dict",
    ),
    "instance that runs code, without torch": (
        "single",
        listed("a.pt", make=text("a.pt", pickle.dumps(Trap()))),
        ("eval_single",),
        "a.pt cannot be read",
    ),
    "instance of other facts": (
        "single",
        nothing,
        (*CREATE, "--seed", "5", "--num-train", "2", "--num-val", "1", "--num-test", "2", "--lists-dir", "new"),
        ("was made with", "move it away"),
    ),
    # checkpoints of NetSpace
    "checkpoint that runs code": (
        "single",
        code(BEST),
        ("eval_single",),
        ("best.pt cannot be read", "train_single_arch.py"),
    ),
    "checkpoint that is a list": ("single", saved(BEST, lambda _: [1]), ("eval_single",), "best.pt is of another kind"),
    "checkpoint with NaN": (
        "single",
        saved(BEST, set_to("1", "scalelayer.bias", nan)),
        ("eval_single",),
        "scalelayer.bias holds NaN",
    ),
    "checkpoint of integers": (
        "single",
        saved(BEST, set_to("0", "conv1.0.bias", lambda value: value.int())),
        ("eval_single",),
        "conv1.0.bias holds",
    ),
    "checkpoint of other shapes": (
        "single",
        saved(BEST, set_to("0", "conv1.0.bias", torch.zeros(3))),
        ("eval_single",),
        ("conv1.0.bias is (3,)", "another NetSpace"),
    ),
    "checkpoint with words for tensors": (
        "single",
        saved(BEST, set_to("0", "conv1.0.bias", "none")),
        ("eval_single",),
        "no NetSpace checkpoint",
    ),
    "checkpoint without a decoder": (
        "single",
        saved(BEST, set_to("1", None)),
        ("eval_single",),
        "no NetSpace checkpoint",
    ),
    "checkpoint of strange sizes": (
        "single",
        saved(BEST, set_to("sizes", {"colour": 3})),
        ("eval_single",),
        "no NetSpace checkpoint",
    ),
    "checkpoint that is an instance": (
        "single",
        saved(BEST, lambda _: {"fc.bias": torch.zeros(3)}),
        ("visualize_prep",),
        "no NetSpace checkpoint",
    ),
    "checkpoint that is nowhere": ("single", nothing, ("eval_single", "--checkpoint", "a.pt"), "no checkpoint a.pt"),
    "checkpoint of one architecture": (
        "multi",
        cut("runs/photos/multi/best.pt", 999),
        ("eval_multi",),
        "cannot be read",
    ),
    "last.pt that runs code": ("single", code(LAST), TRAIN, "last.pt cannot be read"),
    "last.pt without constants": ("single", saved(LAST, set_to("constants", None)), TRAIN, "it has no constants"),
    "last.pt of another rate": (
        "single",
        nothing,
        (*TRAIN, "--learning-rate", "1"),
        "was made with learning_rate 0.003",
    ),
    "last.pt of another seed": (
        "single",
        nothing,
        (*TRAIN, "--seed", "1"),
        ("was made with seed 0, now it is 1", "delete"),
    ),
    "last.pt without Adam's state": (
        "single",
        saved(LAST, set_to("2", "param_groups", [])),
        TRAIN,
        "holds no state of this Adam",
    ),
    # stacks that were stopped
    "stack that runs code": ("single", both(code(IN_TRAINING)), (*CREATE, "--lists-dir", "new"), "cannot be read"),
    "stack that lacks its steps": (
        "single",
        saved(IN_TRAINING, lambda _: {"constants": {}, "indices": [0], "facts": [{}]}),
        (*CREATE, "--lists-dir", "new"),
        "it has no steps",
    ),
    "stack of other constants": (
        "single",
        saved(IN_TRAINING, lambda _: dict(constants={"seed": 7}, indices=[0], facts=[{}], steps=0, ensemble={})),
        (*CREATE, "--lists-dir", "new"),
        "was made with",
    ),
    # latent space optimization
    "search that runs code": ("multi", code("runs/photos/multi/latspace/latspace.pt"), EVAL_SEARCH, "cannot be read"),
    "search without the best": (
        "multi",
        saved("runs/photos/multi/latspace/latspace.pt", lambda _: {}),
        EVAL_SEARCH,
        "has no",
    ),
    "search with NaN": ("multi", search(best=torch.full((1, 256), float("nan"))), EVAL_SEARCH, "'best' holds NaN"),
    "search of other instances": (
        "multi",
        search(constants={"instances": ["a.pt"], "class_ids": [0]}),
        EVAL_SEARCH,
        "is not in test.txt",
    ),
    "search of two for one": ("multi", search(initial=torch.zeros(2, 256)), EVAL_SEARCH, "'initial' are no embeddings"),
    "search of other constants": (
        "multi",
        search(),
        ("train_latspace_multi", "--per-class", "1"),
        ("latspace.pt is of another kind", "delete"),
    ),
    "search whose curve is no scalars": (
        "multi",
        both(search(), text("runs/photos/multi/latspace/scalars.jsonl", "{}\n[1]\n{}")),
        EVAL_SEARCH,
        "no scalars of a run",
    ),
    # SIRENs
    "SIREN list with another net": ("mlps", line(MLP_TEST, "siren;", "mlp;"), INTERPOLATE, "names no SIREN"),
    "SIREN list of mixed widths": (
        "mlps",
        lambda root: line(MLP_TEST, (root / MLP_TEST).read_text(), (root / MLP_TEST).read_text().replace("16", "8", 1))(
            root
        ),
        INTERPOLATE,
        "list one size",
    ),
    "SIREN list of other widths": ("mlps", line(MLP_TEST, "16", "8"), INTERPOLATE, "is no SIREN of widths"),
    "SIREN list of no width": ("mlps", line(MLP_TEST, "16", "0"), INTERPOLATE, "SIREN widths"),
    "SIREN list that is empty": ("mlps", text(MLP_TEST, ""), INTERPOLATE, "is empty"),
    "SIREN list that is no text": ("mlps", text(MLP_TEST, b"\xff\xff"), INTERPOLATE, "cannot be read as text"),
    "SIREN that runs code": (
        "mlps",
        both(
            line(MLP_TEST, ".safetensors", ".pt"),
            lambda root: [code(each.rsplit(";", 1)[1])(root) for each in (root / MLP_TEST).read_text().splitlines()],
        ),
        INTERPOLATE,
        "UnpicklingError",
    ),
    "SIREN without samples": (
        "mlps",
        instance(lambda state: {name: state[name] for name in state if name != "sdf"}, kind=SIREN, dataset="chairs"),
        INTERPOLATE,
        "has no samples 'sdf'",
    ),
    "SIREN with flat samples": (
        "mlps",
        instance(with_entry("sdf", lambda _: torch.zeros(4)), kind=SIREN, dataset="chairs"),
        INTERPOLATE,
        "has no samples 'sdf' (S, 4)",
    ),
    "SIREN with NaN": (
        "mlps",
        instance(with_entry("mlp.0.bias", nan), kind=SIREN, dataset="chairs"),
        INTERPOLATE,
        "'mlp.0.bias' holds NaN",
    ),
    "SIRENs, too few for the pairs": ("mlps", nothing, ("interpolate_mlps", "--num-pairs", "99"), "--num-pairs 99"),
    "SIRENs, too few samples": ("mlps", nothing, ("train_mlps", "--num-measured", "200"), "--num-measured 200"),
    "SIRENs larger than the PRep": ("mlps", nothing, ("train_mlps", "--prep-shape", "4", "8"), "holds 32 parameters"),
    "a grid of one point": (
        "mlps",
        nothing,
        ("interpolate_mlps", "--num-pairs", "1", "--resolution", "1"),
        "--resolution 1",
    ),
    # shapes
    "shapes of another seed": (
        "mlps",
        nothing,
        ("create_mlp_dataset", "--seed", "9", "--num-samples", "800"),
        ("were made with seed 0, not 9", "move"),
    ),
    "shapes whose note is no JSON": (
        "mlps",
        text("runs/chairs/shapes/made_with.json", "{"),
        ("create_mlp_dataset",),
        ("made_with.json is no JSON", "move"),
    ),
    "samples that are no .npz": ("nothing", both(npz("b"), text("sdf/a.npz", "x")), DEEPSDF, "a.npz cannot be read"),
    "samples that run code": (
        "nothing",
        both(npz(pos=np.array([Trap()], object), neg=rows(9, -1)), npz("b")),
        DEEPSDF,
        "a.npz cannot be read as a .npz",
    ),
    "samples of one sign": ("nothing", both(npz(pos=rows(9)), npz("b")), DEEPSDF, "a.npz cannot be read as a .npz"),
    "samples of another shape": (
        "nothing",
        both(npz(pos=np.zeros((3, 3), np.float32), neg=rows(3)), npz("b")),
        DEEPSDF,
        "'pos' is (3, 3)",
    ),
    "samples that are infinite": (
        "nothing",
        both(npz(pos=rows(9, np.inf), neg=rows(9, -1)), npz("b")),
        DEEPSDF,
        "not finite",
    ),
    "samples of which one is negative": (
        "nothing",
        both(npz(pos=rows(9), neg=rows(1, -1)), npz("b")),
        DEEPSDF,
        "1 samples of one sign",
    ),
    "too few shapes": ("nothing", npz(pos=rows(9), neg=rows(9, -1)), DEEPSDF, "there are 1 shapes"),
    "no folder of meshes": ("nothing", nothing, MESHES, "no folder meshes"),
    "a folder without meshes": ("nothing", text("meshes/a.txt", ""), MESHES, "no meshes"),
    "two meshes of one name": (
        "nothing",
        both(text("meshes/a.ply", ""), text("meshes/a.stl", "")),
        MESHES,
        "would be the same shape a",
    ),
    # images
    "image of text": (
        "nothing",
        pets(text("pets/train/cat/0.png", "no image")),
        PETS,
        "0.png cannot be read as an image",
    ),
    "image cut short": ("nothing", pets(cut("pets/train/cat/0.png", 60)), PETS, "0.png cannot be read as an image"),
    "image that says it is huge": (
        "nothing",
        pets(text("pets/test/dog/1.png", bomb(30_000))),
        PETS,
        "1.png cannot be read",
    ),
    "image that says it is large": (
        "nothing",
        pets(text("pets/test/dog/1.png", bomb(5000))),
        PETS,
        "is 5000x5000 pixels",
    ),
    "image that has no pixels": ("nothing", pets(text("pets/test/dog/1.png", bomb(32))), PETS, "1.png cannot be read"),
    "image that is a program": (
        "nothing",
        pets(text("pets/train/dog/2.png", POSTSCRIPT)),
        PETS,
        "2.png cannot be read",
    ),
    "image that is not square": ("nothing", pets(png("pets/train/dog/2.png", 32, 64)), PETS, "is 32x64 pixels"),
    "images of two sizes": ("nothing", pets(png("pets/train/dog/2.png", 64)), PETS, "resize them to one size"),
    "one image a class": ("nothing", pets(per_class=1), PETS, "every class needs at least 3"),
    "a class without images": ("nothing", pets(text("pets/train/emu/a.txt", "")), PETS, "no images"),
    "a class that is not tested": ("nothing", pets(png("pets/train/emu/0.png")), PETS, "class 'emu' is in only one"),
    "more in a batch than images": (
        "nothing",
        pets(),
        PETS,
        ("image batch of 128 is more than the 8 images", "smaller"),
    ),
    "CIFAR-10 that runs code": (
        "nothing",
        cifar(train_images=np.array([Trap()], object)),
        ("create_nets_dataset_single", "cifar10"),
        ("cifar10.npz does not hold", "delete it"),
    ),
    "CIFAR-10 of 11 classes": (
        "nothing",
        cifar(test_labels=np.arange(1, 11, dtype=np.uint8)),
        ("create_nets_dataset_single", "cifar10"),
        "labels (N,) from 0 to 9",
    ),
    "CIFAR-10 of negative labels": (
        "nothing",
        cifar(train_labels=np.arange(-1, 9)),
        ("create_nets_dataset_multi", "cifar10"),
        "labels (N,) from 0 to 9",
    ),
    "CIFAR-10 of floats": (
        "nothing",
        cifar(train_images=np.zeros((10, 32, 32, 3))),
        ("create_nets_dataset_single", "cifar10"),
        "expected uint8",
    ),
    "Tiny-ImageNet with an unknown class": (
        "nothing",
        tiny(text("data/tiny-imagenet-200/val/val_annotations.txt", "a.JPEG\tn9\t0\n")),
        ("create_nets_dataset_single", "tiny-imagenet-200"),
        ("val_annotations.txt, line 1", "n9"),
    ),
    "Tiny-ImageNet with an unknown label": (
        "nothing",
        tiny(*(text(f"data/tiny-imagenet-200/{split}.txt", "a.JPEG,2\n") for split in ("train", "val", "test"))),
        ("create_nets_dataset_single", "tiny-imagenet-200"),
        ("train.txt, line 1", "from 0 to 1"),
    ),
    "Tiny-ImageNet that points nowhere": (
        "nothing",
        tiny(*(text(f"data/tiny-imagenet-200/{split}.txt", "../a.JPEG,1\n") for split in ("train", "val", "test"))),
        ("create_nets_dataset_single", "tiny-imagenet-200"),
        "no image ../a.JPEG",
    ),
    # flags
    "a rate that is no number": (
        "nothing",
        nothing,
        ("train_single_arch", "--learning-rate", "nan"),
        "--learning-rate nan",
    ),
    "an infinite rate": ("nothing", nothing, ("train_multi_arch", "--learning-rate", "inf"), "--learning-rate inf"),
    "a negative seed": ("nothing", nothing, ("train_latspace_single", "--seed", "-1"), "--seed -1: must be 0 or more"),
    "a seed too large": ("nothing", nothing, ("train_mlps", "--seed", str(2**63)), "too large"),
    "half an epoch": ("nothing", nothing, ("train_mlps", "--num-epochs", "1.5"), ("--num-epochs", "1.5")),
    "a list that is unknown": ("nothing", nothing, ("interpolate_mlps", "--split", "val"), ("--split", "val")),
    "a folder that is a file": (
        "nothing",
        text("runs", ""),
        ("create_nets_dataset_single", *FOLDERS),
        ("runs/photos", "cannot be written to"),
    ),
}


@pytest.mark.parametrize("what", TABLE)
def test_bad_input_is_refused_in_one_line(projects, tmp_path, what):
    project, break_it, (script, *arguments), match = TABLE[what]
    root = tmp_path / "project"
    shutil.copytree(projects[project], root)
    break_it(root)
    given = [flag for i in range(0, 6, 2) if FOLDERS[i] not in arguments for flag in FOLDERS[i : i + 2]]
    refused(script, *arguments, *given, cwd=root, match=match)
    assert not (root / "ran").exists()


def test_the_table_is_long_enough_and_over_all_scripts():
    assert len(TABLE) >= 60


def test_the_trap_works(tmp_path):
    """Where it is unpickled carelessly, it runs."""
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        pickle.loads(pickle.dumps(Trap()))
    finally:
        os.chdir(before)
    assert (tmp_path / "ran").is_file()


@pytest.mark.parametrize("name", ["a.ply", "a.stl", "a.off", "a.glb", "a.obj"])
def test_meshes_that_lie_are_left_out_by_name(tmp_path, name, capfd):
    """Headers that promise 10^9 triangles, and nothing that is one."""
    content = {"a.ply": HUGE_PLY, "a.stl": HUGE_STL, "a.off": b"OFF\n3 1000000000 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"}
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / name).write_bytes(content.get(name, b"glTF" + struct.pack("<II", 2, 10**9) + b"v 1"))
    for good in ("b", "c"):
        trimesh.creation.icosphere(1).export(tmp_path / "meshes" / f"{good}.ply")
    config = miniature.create_mlp_config(tmp_path, source="meshes", dataset=str(tmp_path / "meshes"), num_test=1)
    fits = create_mlp_dataset.main(miniature.replace(config, num_steps=2))
    assert sorted(fits) == ["b", "c"]
    said = capfd.readouterr().err.splitlines()
    assert len([each for each in said if each.startswith("left out: ") and name in each]) == 1


def test_results_that_are_none_are_refused(tmp_path):
    path = tmp_path / "photos/single/eval_single.json"
    path.parent.mkdir(parents=True)
    for content in ("", "[1]", "{"):
        path.write_text(content)
        with pytest.raises(InputError, match="eval_single.json is no JSON object; make it again with"):
            print_summary(path.parent)
