"""A table of bad inputs over all scripts: status 2, one line that names the file, nothing written, no code run.

Each row breaks something in a copy of the small project, or in an empty folder, and runs a script there.
"""

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
from evaluation.summary import print_summary
from models.errors import InputError
from tests import miniature
from tests.projects import copy_project
from tests.test_bad_input import FOLDERS, refused


class Trap:
    """Leaves a file called `ran` where it is unpickled."""

    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


# What is broken: functions of the project's folder


def text(path, content):
    def do(root):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return do


def line(path, old, new):
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new))


def change_last_line(path, old, new):
    *first, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*first, last.replace(old, new)]))


def cut(path, size):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:size])


def code(path):
    """Return what makes a file that runs code where it is unpickled carelessly."""

    def do(root):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"0": Trap()}, root / path)

    return do


def saved(path, change):
    """Return what changes a checkpoint by `change`, in place or by what that returns."""

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
    """Return what changes every instance of a kind."""

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
    """Return what lets the test list name this file alone."""

    def do(root):
        (root / "lists/photos/single/test.txt").write_text(f"resnet_fusedbn;d2;d8;sphotos;{path}\n")
        for make in more.values():
            make(root)

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
    """Return what makes a folder of images."""
    good = [
        png(f"pets/{part}/{name}/{i}.png") for part in ("train", "test") for name in classes for i in range(per_class)
    ]
    return both(*good, *broken)


def bomb(side):
    """Return a PNG of few bytes whose header claims side x side."""

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
TRAIN += ("--image-batch", "128", "--num-steps", "48")
CREATE = ("create_nets_dataset_single", "--image-batch", "64")
IN_TRAINING = "runs/photos/nets/resnet8-adam/seed0-in-training-000.pt"
SEARCH = "runs/photos/multi/latspace/last.pt"
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
    "list that is no text": ("project", text(TEST_LIST, b"\xff\xfe\x00"), ("eval_single",), ("test.txt", "text")),
    "list that names a folder": ("project", listed("runs"), ("eval_single",), "no instance file runs"),
    "list that points outside": ("project", listed("/etc/hostname"), ("eval_single",), "/etc/hostname cannot be read"),
    "list that points nowhere": ("project", listed("../a.pt"), ("eval_single",), ("no instance file ../a.pt", "again")),
    "list with a null in a path": ("project", listed("a\0b"), ("eval_single",), "no instance file"),
    "list of another data set": (
        "project",
        line(TEST_LIST, "sphotos", "scifar10"),
        ("eval_single",),
        "expected resnet8 on",
    ),
    "list with an empty argument": ("project", line(TEST_LIST, "d2;d8", ";"), ("eval_single",), "is not typed"),
    "list that others made": ("project", nothing, (*CREATE, "--num-train", "3"), ("names other instances", "move")),
    # instances
    "instance cut short": (
        "project",
        every_instance(lambda all_: all_[:-100]),
        ("eval_single",),
        "cannot be read as an inst",
    ),
    "instance of no bytes": (
        "project",
        every_instance(lambda _: b""),
        ("eval_single",),
        "cannot be read as an instance",
    ),
    "instance with a huge header": (
        "project",
        every_instance(lambda _: struct.pack("<Q", 2**60) + b"{}"),
        ("eval_single",),
        "cannot be read as an instance",
    ),
    "instance of text": (
        "project",
        every_instance(lambda _: b"weights"),
        ("eval_single",),
        "cannot be read as an instance",
    ),
    "instance of integers": (
        "project",
        instance(with_entry("fc.bias", lambda value: value.int())),
        ("eval_single",),
        ("'fc.bias' holds torch.int32", "float32"),
    ),
    "instance of another shape": (
        "project",
        instance(with_entry("fc.bias", lambda _: torch.zeros(3))),
        ("eval_single",),
        "'fc.bias' is (3,), expected (10,)",
    ),
    "instance with a strange name": (
        "project",
        instance(with_entry("fc.extra", lambda _: torch.zeros(3))),
        ("eval_single",),
        "it has 'fc.extra'",
    ),
    "instance with NaN": ("project", instance(with_entry("fc.bias", nan)), ("eval_single",), "'fc.bias' holds NaN"),
    "instance with infinity": (
        "project",
        instance(with_entry("conv1.weight", lambda value: value / 0)),
        ("eval_single",),
        "holds NaN or infinity",
    ),
    "instance whose facts are none": (
        "project",
        instance(dict, facts="{"),
        ("eval_single",),
        "cannot be read as an instance",
    ),
    "instance whose facts are a number": ("project", instance(dict, facts="3"), ("eval_single",), "cannot be read"),
    "instance that runs code": (
        "project",
        listed("a.pt", make=code("a.pt")),
        ("eval_single",),
        ("a.pt", "UnpicklingError"),
    ),
    "instance that is a list": (
        "project",
        listed("a.pt", make=saved("a.pt", lambda _: [torch.zeros(3)])),
        ("eval_single",),
        "not a state dict",
    ),
    "instance that runs code, without torch": (
        "project",
        listed("a.pt", make=text("a.pt", pickle.dumps(Trap()))),
        ("eval_single",),
        "a.pt cannot be read",
    ),
    "instance of other facts": (
        "project",
        nothing,
        (*CREATE, "--seed", "5", "--num-train", "2", "--num-val", "1", "--num-test", "2", "--lists-dir", "new"),
        ("was made with", "move it away"),
    ),
    # checkpoints of NetSpace
    "checkpoint that runs code": (
        "project",
        code(BEST),
        ("eval_single",),
        ("best.pt cannot be read", "train_single_arch.py"),
    ),
    "checkpoint that is a list": (
        "project",
        saved(BEST, lambda _: [1]),
        ("eval_single",),
        "best.pt is of another kind",
    ),
    "checkpoint with NaN": (
        "project",
        saved(BEST, set_to("1", "scalelayer.bias", nan)),
        ("eval_single",),
        "scalelayer.bias holds NaN",
    ),
    "checkpoint of integers": (
        "project",
        saved(BEST, set_to("0", "conv1.0.bias", lambda value: value.int())),
        ("eval_single",),
        "conv1.0.bias holds",
    ),
    "checkpoint of other shapes": (
        "project",
        saved(BEST, set_to("0", "conv1.0.bias", torch.zeros(3))),
        ("eval_single",),
        ("conv1.0.bias is (3,)", "another NetSpace"),
    ),
    "checkpoint with words for tensors": (
        "project",
        saved(BEST, set_to("0", "conv1.0.bias", "none")),
        ("eval_single",),
        ("best.pt", "not a NetSpace checkpoint"),
    ),
    "checkpoint without a decoder": (
        "project",
        saved(BEST, set_to("1", None)),
        ("eval_single",),
        ("best.pt", "not a NetSpace checkpoint"),
    ),
    "checkpoint of strange sizes": (
        "project",
        saved(BEST, set_to("sizes", {"colour": 3})),
        ("eval_single",),
        ("best.pt", "not a NetSpace checkpoint"),
    ),
    "checkpoint that is an instance": (
        "project",
        saved(BEST, lambda _: {"fc.bias": torch.zeros(3)}),
        ("visualize_prep",),
        ("best.pt", "not a NetSpace checkpoint"),
    ),
    "checkpoint that is nowhere": ("project", nothing, ("eval_single", "--checkpoint", "a.pt"), "no checkpoint a.pt"),
    "checkpoint of one architecture": (
        "project",
        cut("runs/photos/multi/best.pt", 999),
        ("eval_multi",),
        "cannot be read",
    ),
    "last.pt that runs code": ("project", code(LAST), TRAIN, "last.pt cannot be read"),
    "last.pt without constants": ("project", saved(LAST, set_to("constants", None)), TRAIN, "it has no constants"),
    "last.pt of another rate": (
        "project",
        nothing,
        (*TRAIN, "--learning-rate", "1"),
        "was made with learning_rate 0.003",
    ),
    "last.pt of another seed": (
        "project",
        nothing,
        (*TRAIN, "--seed", "1"),
        ("was made with seed 0, now it is 1", "delete"),
    ),
    "last.pt without Adam's state": (
        "project",
        saved(LAST, set_to("2", "param_groups", [])),
        TRAIN,
        ("last.pt", "Adam"),
    ),
    # stacks that were stopped
    "stack that runs code": ("project", both(code(IN_TRAINING)), (*CREATE, "--lists-dir", "new"), "cannot be read"),
    "stack that lacks its steps": (
        "project",
        saved(IN_TRAINING, lambda _: {"constants": {}, "indices": [0], "facts": [{}]}),
        (*CREATE, "--lists-dir", "new"),
        "it has no ensemble",
    ),
    "stack of other constants": (
        "project",
        saved(IN_TRAINING, lambda _: dict(constants={"seed": 7}, indices=[0], facts=[{}], steps=0, ensemble={})),
        (*CREATE, "--lists-dir", "new"),
        "was made with",
    ),
    # latent space optimization
    "search that runs code": ("project", code(SEARCH), EVAL_SEARCH, "cannot be read"),
    "search without a model": ("project", saved(SEARCH, set_to("model", None)), EVAL_SEARCH, "it has no model"),
    "search without the best": (
        "project",
        saved(SEARCH, set_to("model", "best", None)),
        EVAL_SEARCH,
        ("last.pt", "'best'", "train_latspace_multi.py"),
    ),
    "search with NaN": ("project", saved(SEARCH, set_to("model", "best", nan)), EVAL_SEARCH, "'best' holds NaN"),
    "search of other instances": (
        "project",
        saved(SEARCH, set_to("nets", "instances", lambda paths: ["a.pt"] * len(paths))),
        EVAL_SEARCH,
        "not in test.txt",
    ),
    "search of fewer embeddings than instances": (
        "project",
        saved(SEARCH, set_to("model", "initial", lambda value: value[:1])),
        EVAL_SEARCH,
        ("last.pt", "'initial'"),
    ),
    "search that is a NetSpace": (
        "project",
        lambda root: shutil.copy(root / BEST, root / SEARCH),
        EVAL_SEARCH,
        ("last.pt", "it has no model"),
    ),
    "search of other constants": (
        "project",
        nothing,
        ("train_latspace_multi", "--per-class", "1"),
        ("last.pt was made with", "delete"),
    ),
    "search whose curve is no scalars": (
        "project",
        text("runs/photos/multi/latspace/scalars.jsonl", "{}\n[1]\n{}"),
        EVAL_SEARCH,
        ("scalars.jsonl", "not scalars"),
    ),
    # SIRENs
    "SIREN list with another net": (
        "project",
        line(MLP_TEST, "siren;l3,16,16,1", "lenetlike;d0"),
        INTERPOLATE,
        ("line 1", "SIREN"),
    ),
    "SIREN list of mixed widths": (
        "project",
        lambda root: change_last_line(root / MLP_TEST, "16", "8"),
        INTERPOLATE,
        "list one size",
    ),
    "SIREN list of other widths": (
        "project",
        line(MLP_TEST, "16", "8"),
        INTERPOLATE,
        ("siren;l3,16,16,1", "siren;l3,8,8,1"),
    ),
    "SIREN list of no width": ("project", line(MLP_TEST, "16", "0"), INTERPOLATE, "SIREN widths"),
    "SIREN list that is empty": ("project", text(MLP_TEST, ""), INTERPOLATE, "is empty"),
    "SIREN list that is no text": ("project", text(MLP_TEST, b"\xff\xff"), INTERPOLATE, "cannot be read as text"),
    "SIREN that runs code": (
        "project",
        both(
            line(MLP_TEST, ".safetensors", ".pt"),
            lambda root: [code(each.rsplit(";", 1)[1])(root) for each in (root / MLP_TEST).read_text().splitlines()],
        ),
        INTERPOLATE,
        "UnpicklingError",
    ),
    "SIREN without samples": (
        "project",
        instance(lambda state: {name: state[name] for name in state if name != "sdf"}, kind=SIREN, dataset="chairs"),
        INTERPOLATE,
        "has no samples 'sdf'",
    ),
    "SIREN with flat samples": (
        "project",
        instance(with_entry("sdf", lambda _: torch.zeros(4)), kind=SIREN, dataset="chairs"),
        INTERPOLATE,
        "has no samples 'sdf' (S, 4)",
    ),
    "SIREN with NaN": (
        "project",
        instance(with_entry("mlp.0.bias", nan), kind=SIREN, dataset="chairs"),
        INTERPOLATE,
        "'mlp.0.bias' holds NaN",
    ),
    "SIRENs, too few for the pairs": ("project", nothing, ("interpolate_mlps", "--num-pairs", "99"), "--num-pairs 99"),
    "SIRENs, too few samples": ("project", nothing, ("train_mlps", "--num-measured", "200"), "--num-measured 200"),
    "SIRENs larger than the PRep": (
        "project",
        nothing,
        ("train_mlps", "--num-measured", "50", "--prep-shape", "4", "8"),
        ("4x8", "353"),
    ),
    "a grid of one point": (
        "project",
        nothing,
        ("interpolate_mlps", "--num-pairs", "1", "--resolution", "1"),
        "--resolution 1",
    ),
    # shapes
    "shapes of another seed": (
        "project",
        nothing,
        ("create_mlp_dataset", "--seed", "9", "--num-samples", "800"),
        ("were made with seed 0, not 9", "move"),
    ),
    "shapes whose note is no JSON": (
        "project",
        text("runs/chairs/shapes/made_with.json", "{"),
        ("create_mlp_dataset",),
        ("made_with.json", "move"),
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
        "cifar10.npz",
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
    "a negative seed": ("nothing", nothing, ("train_latspace_single", "--seed", "-1"), "--seed -1"),
    "a seed too large": (
        "nothing",
        nothing,
        ("train_mlps", "--seed", str(2**63)),
        ("--seed 9223372036854775808", "9223372036854775807"),
    ),
    "half a step": ("nothing", nothing, ("train_mlps", "--num-steps", "1.5"), ("--num-steps", "1.5")),
    "a list that is unknown": ("nothing", nothing, ("interpolate_mlps", "--split", "val"), ("--split", "val")),
    "a folder that is a file": (
        "nothing",
        text("runs", ""),
        ("create_nets_dataset_single", *FOLDERS),
        ("runs/photos", "cannot be written to"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", TABLE)
def test_bad_input_is_refused_in_one_line(project_folder, few_photos, tmp_path, what):
    start, break_it, (script, *arguments), match = TABLE[what]
    root = tmp_path / "project"
    if start == "project":
        copy_project(project_folder, root)
    else:
        root.mkdir()
    break_it(root)
    given = [flag for i in range(0, 6, 2) if FOLDERS[i] not in arguments for flag in FOLDERS[i : i + 2]]
    refused(script, *arguments, *given, cwd=root, match=match)
    assert not (root / "ran").exists()


def test_the_trap_works(tmp_path):
    """It runs where it is unpickled carelessly."""
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        pickle.loads(pickle.dumps(Trap()))
    finally:
        os.chdir(before)
    assert (tmp_path / "ran").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.ply", "a.stl", "a.off", "a.glb", "a.obj"])
def test_meshes_that_lie_are_left_out_by_name(tmp_path, name, capfd):
    """Headers that promise 10^9 triangles, and nothing that is one."""
    content = {"a.ply": HUGE_PLY, "a.stl": HUGE_STL, "a.off": b"OFF\n3 1000000000 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"}
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / name).write_bytes(content.get(name, b"glTF" + struct.pack("<II", 2, 10**9) + b"v 1"))
    for good in ("b", "c"):
        trimesh.creation.icosphere(1).export(tmp_path / "meshes" / f"{good}.ply")
    config = miniature.create_mlp_config(tmp_path, source="meshes", dataset=str(tmp_path / "meshes"), num_test=1)
    fits = create_mlp_dataset.main(miniature.changed(config, num_steps=2))
    assert sorted(fits) == ["b", "c"]
    printed = capfd.readouterr().err.splitlines()
    assert len([each for each in printed if each.startswith("left out: ") and name in each]) == 1


def test_results_that_are_no_objects_are_refused(tmp_path):
    path = tmp_path / "photos/single/eval_single.json"
    path.parent.mkdir(parents=True)
    for content in ("", "[1]", "{"):
        path.write_text(content)
        with pytest.raises(InputError, match="eval_single.json .*python eval_single.py"):
            print_summary(path.parent)
