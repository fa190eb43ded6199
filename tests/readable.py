"""One valid file, or folder, of every kind that is read, made from nothing, and what reads it and checks the values.

test_fuzz.py damages them. `KINDS` has a function of an empty folder for each.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image

from data.cifar import CIFAR_100, load_cifar10, load_cifar100
from data.folders import Folders
from data.foreign_zoos import ZooOptions, write_foreign_zoo
from data.image_folder import load_image_folder, read_image
from data.images import ImageSet
from data.imports import read_accuracies, read_zoo
from data.instance_files import find_row, read_instance, samples_of, save_instance
from data.load import load_images
from data.meshes import read_mesh
from data.mnist import load_mnist
from data.nets import Entry, read_list
from data.sdf_samples import check_made_with, read_samples
from data.zoo_folders import ABOUT
from data.zoos import load_zoo
from evaluation.spaces import Space, about_images
from evaluation.summary import SETTINGS, load_search, print_summary, read_curve
from models.instances import TargetNet, TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import ARCHITECTURES, get_architecture
from tests.test_foreign_zoos import trial, unterthiner
from tests.test_image_sets import published, tiny, write_batches, write_mnist
from tests.test_images import some_images, write_cifar10, write_folder
from tests.test_zoos import sign, zoo_of
from training.checkpoints import load_checkpoint, model_entries, save_checkpoint
from training.run import read_scalars

Made = tuple[list[Path], Callable[[], Any]]  # files to damage, and what reads them and checks the values


def finite(*tensors: torch.Tensor) -> None:
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors)


# Weights


def nets() -> list[TargetNet]:
    return [TargetNet(get_architecture(name), (1, 8, 8), 10) for name in ("lenetlike", "resnet8")]


def state_of(net: TargetNet) -> dict[str, torch.Tensor]:
    return {name: value[0] for name, value in net.start([0]).items()}


def instance(
    suffix: str, architecture: int, wrap: Callable[[Any], Any] = lambda state: state
) -> Callable[[Path], Made]:
    def make(root: Path) -> Made:
        known, path = nets(), root / f"net{suffix}"
        state = state_of(known[architecture])
        if suffix == ".safetensors":
            save_instance(path, state, {"seed": 3, "versions": {"torch": "2"}})
        else:
            torch.save(wrap(state), path, _use_new_zipfile_serialization=suffix != ".pth")

        def read() -> None:
            net, row = find_row(known, path)
            assert row.shape == (net.num_parameters,)
            finite(row)

        return [path], read

    return make


def siren(root: Path) -> Made:
    known = TargetNets.sirens((3, 8, 8, 1))[0]
    sdf = torch.rand(20, 4)
    save_instance(root / "a.safetensors", {**state_of(known), "sdf": sdf}, {"closeness": 0.5})

    def read() -> None:
        state, facts = read_instance(root / "a.safetensors")
        samples = samples_of(state, root / "a.safetensors")
        assert samples.dim() == 2 and samples.shape[1] == 4 and isinstance(facts, dict)
        _, row = find_row([known], root / "a.safetensors")
        assert row.shape == (known.num_parameters,)
        finite(row, samples)

    return [root / "a.safetensors"], read


def small_space() -> tuple[PrepAutoencoder, TargetNets, dict[str, Any]]:
    images, several = some_images(channels=1), TargetNets(nets())
    about = about_images(several, ImageSet("photos", images, images, images, tuple(map(str, range(10)))))
    sizes = Sizes((8, 640), emb_size=32, grid=4, row_length=16, row_channels=4)
    return PrepAutoencoder(sizes, 2), several, about


def check_space(path: Path) -> None:
    space = Space.load(path)
    embedding = space.encode(torch.zeros(1, *space.model.prep_shape).flatten(1))
    assert embedding.shape == (1, space.model.sizes.emb_size)
    finite(embedding)


def checkpoint(root: Path) -> Made:
    model, _, about = small_space()
    path = root / "best.pt"
    save_checkpoint(
        path, {"constants": {"seed": 0}, "nets": about, "step": 3, "best_score": 1.5, **model_entries(model)}
    )

    def read() -> None:
        assert isinstance(load_checkpoint(path, "python train_multi_arch.py", ("constants", "step")), dict)
        check_space(path)

    return [path], read


def saved_space(root: Path) -> Made:
    model, several, about = small_space()
    Space(model.eval(), several, about, {"step": 3}).save(root)
    return [root / "config.json", root / "netspace.safetensors"], lambda: check_space(root)


def search(root: Path) -> Made:
    about = {"instances": ["a.pt", "b.pt"], "class_ids": [0, 1]}
    state = {"model": {"initial": torch.rand(2, 16), "best": torch.rand(2, 16)}, "nets": about, "step": 3}
    save_checkpoint(root / "latspace" / "last.pt", state)

    def read() -> None:
        found = load_search(root, "python train_latspace_multi.py", several=True)
        assert len(found["initial"]) == len(found["best"]) == len(found["instances"])
        assert found["initial"].isfinite().all() and found["best"].isfinite().all()

    return [root / "latspace" / "last.pt"], read


# Texts


def accuracies(root: Path) -> Made:
    files = [root / f"net{i}.pt" for i in range(5)]
    lines = ["file,accuracy,note", *(f'{file.name},{10.5 * i},"run {i}"' for i, file in enumerate(files))]
    (root / "accuracies.csv").write_text("\n".join(lines) + "\n")

    def read() -> None:
        given = {"path": root / "accuracies.csv", "source": root, "files": files}
        stated = read_accuracies(**{name: given[name] for name in signature(read_accuracies).parameters})
        assert {Path(file).name for file in stated} <= {file.name for file in files}
        assert all(0 <= each <= 100 for each in stated.values())

    return [root / "accuracies.csv"], read


def input_list(root: Path) -> Made:
    folders = Folders(root / "data", root / "lists", root / "runs")
    lines = [f"{each.list_entry};sphotos;runs/photos/a{i}.pt" for i, each in enumerate(ARCHITECTURES.values())]
    path = folders.input_list("photos", "multi", "train")
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([*lines, "siren;l3,16,16,1;schairs;b.safetensors"]) + "\n")

    def read() -> None:
        entries = read_list(folders, "photos", "multi", "train")
        assert entries and all(isinstance(entry, Entry) and isinstance(entry.path, Path) for entry in entries)

    return [path], read


def scalars(root: Path) -> Made:
    path = root / "latspace" / "scalars.jsonl"
    path.parent.mkdir()
    lines = [{"step": 100 * i, "loss": 2.5 / (i + 1), "accuracy": 10 + i} for i in range(8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def read() -> None:
        for line in read_scalars(path):
            assert type(line["step"]) is int and all(type(each) in (int, float) for each in line.values())
        steps, values = read_curve(root, "accuracy")
        assert steps.dtype == np.int64 and np.issubdtype(values.dtype, np.number)

    return [path], read


def made_with(root: Path) -> Made:
    (root / "made_with.json").write_text(json.dumps({"recipe": 2, "seed": 0, "num_samples": 100}))
    return [root / "made_with.json"], lambda: check_made_with(root, {"recipe": 2, "seed": 0, "num_samples": 100})


HALF = [10.5, 30.0, 50.25]
ENDS = {"from": "a.pt", "to": "b.pt", "gamma": [0.0, 0.5, 1.0]}
ALONG = {
    "volume": [0.3, 0.2, 0.0],
    "pieces": [1, 2, 0],
    "chamfer_to_start": [0.0, 0.1, None],
    "chamfer_to_end": [0.2, 0.1, None],
}
SCORE = {"r2": 0.5, "r2_interval": [0.25, 0.75], "kendall_tau": 0.5, "n": 160}
NEW = {"distance": 0.5, "error_overlap": 0.6}
NAMES = {"architectures": ["lenetlike", "resnet8"]}
SYSTEM = {"name": "prep-both", "encoder": "prep", "objective": "both", "aligned": True, "about": "", "seeds": [0]}
SYSTEM |= dict.fromkeys(("agreement", "accuracy_error", "accuracy_correlation", "weight_r2", "cka", "stitched"), [0.5])
SYSTEM |= {"line_rank_correlation": [None], "line_above_weights": [5.0], "emb_size": [1024], "seconds": [20.0]}
SYSTEM |= {"interval": {"agreement": [0.25, 0.75]}}
ACROSS = {
    "seeds": [0],
    "cells": [SYSTEM],
    "ablations": [],
    "sizes": [],
    "symmetry": [],
    "baselines": [{"name": "mean"}],
}
ACROSS |= {"points": ["stem"], "gamma": [0.0, 1.0], "lines": {"weights": [[10.0, 20.0]]}}
RESULTS: dict[str, dict[str, Any]] = {
    "single/eval_single": {"target_accuracy": HALF, "predicted_accuracy": [11.0, 29.0, 51.0]},
    "single/interpolate_single_arch": {
        **ENDS,
        "latent_accuracy": HALF,
        "weight_accuracy": [10.0, 12.0, 50.0],
        "all_pairs": {"pairs": 2, "rank_correlation_mean": 0.9, "rank_correlation_std": 0.1}
        | {"latent_above_weights_mean": 20.0, "end_below_strongest_mean": 0.5},
    },
    "single/eval_latspace_single": {f"{name}_accuracy": 40.5 for name in ("initial", "optimized", "teacher")},
    "multi/eval_multi": {
        **NAMES,
        **{f"{which}_class_id": [0, 1, 1] for which in ("target", "predicted")},
        **{f"{which}_accuracy": HALF for which in ("target", "predicted")},
    },
    "multi/interpolate_multi_arch": {
        **ENDS,
        **NAMES,
        "class_id": [0, 0, 1],
        "accuracy": HALF,
        "all_pairs": {"pairs": 2, "all_appear": 1.0, "out_of_order_mean": 0.0}
        | {"at_gamma": {"1": dict(gamma=0.5, right_class_ids=1.0, accuracy_mean=40.0, trained_accuracy_mean=60.0)}},
    },
    "multi/eval_latspace_multi": {
        **NAMES,
        "class_id": [0, 1],
        "predicted_class_id": [0, 1],
        "initial_accuracy": [10.0, 20.0],
        "optimized_accuracy": [15.0, 25.0],
    },
    "sane/predict_properties": {"properties": {"test_accuracy": {"weight_statistics": SCORE, "sane_mean": SCORE}}},
    "sane/sample_finetune": {
        "methods": {
            "scratch": {"epochs": [0, 1], "accuracy_mean": [10.0, 40.0], "accuracy_std": [1.0, 0.5], "novelty": NEW},
        },
        "novelty": {"training_nets": NEW},
    },
    "across/compare_systems": ACROSS,
    "mlps/create_mlp_dataset": {"fits": {"a": {"closeness": 0.5, "chamfer": 0.01}, "b": {"closeness": 0.6}}},
    "mlps/train_mlps": {"closeness": {"train": [0.5, 0.6], "test": [0.1]}},
    "mlps/retrieve_mlps": {"near": 5, "chance": 0.1, "among_nearest": {"embedding": 0.5, "weights": 0.25}}
    | {"ranks": {"embedding": [1, 8], "weights": [6, 2]}},
    "mlps/interpolate_mlps": {
        **ENDS,
        "latent": ALONG,
        "weights": ALONG,
        "summary": {"latent": {"empty": 0, "pieces": 1.5, "start": 0.9, "end": None}},
    },
}


def results(root: Path) -> Made:
    for name, found in RESULTS.items():
        (root / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "photos" / f"{name}.json").write_text(json.dumps({**found, "config": {"seed": 0}, "versions": {}}))
    assert set(SETTINGS) >= {name.split("/")[0] for name in RESULTS}

    def read() -> None:
        for setting in ("single", "multi", "sane", "across", "mlps"):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                print_summary(root / "photos" / setting)
            assert len(printed.getvalue()) < 20_000

    return [root / "photos" / f"{name}.json" for name in RESULTS], read


# Images


def pictures(root: Path) -> Made:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels[8:] = pixels[8]
    paths = [root / f"a.{suffix}" for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm")]
    for path in paths:
        Image.fromarray(pixels).save(path)
    paths += [root / "grey.png", root / "alpha.png", root / "exif.jpg"]
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(paths[-3])
    Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(paths[-2])
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(paths[-1], exif=exif)

    def read() -> None:
        for path in paths:
            image = read_image(path, (32, 64))
            assert image.dtype == np.uint8 and image.shape in ((32, 32, 3), (64, 64, 3))

    return paths, read


def check_images(images: ImageSet) -> None:
    for split in (images.train, images.val, images.test):
        assert (
            len(split) and split.pixels.dtype == torch.uint8 and split.pixels.shape[1:] == images.train.pixels.shape[1:]
        )
        assert split.labels.dtype == torch.int64 and 0 <= split.labels.min() <= split.labels.max() < images.num_classes


def class_folders(root: Path) -> Made:
    folder = write_folder(root / "pets", ("cat", "dog"), per_class=3)
    return sorted(folder.rglob("*.png"))[:4], lambda: check_images(load_image_folder(folder))


def tiny_imagenet(root: Path) -> Made:
    folder = tiny(root, per_class=5, tests=3)
    load_images("tiny-imagenet-200", root)  # writes the split lists
    texts = [folder / name for name in ("wnids.txt", "val/val_annotations.txt", "train.txt", "val.txt", "test.txt")]
    picture = folder / "train" / "n01" / "images" / "n01_0.JPEG"
    return [*texts, picture], lambda: check_images(load_images("tiny-imagenet-200", root))


def tiny_imagenet_without_lists(root: Path) -> Made:
    folder = tiny(root, per_class=5, tests=3)

    def read() -> None:
        try:
            check_images(load_images("tiny-imagenet-200", root))
        finally:
            for split in ("train", "val", "test"):
                (folder / f"{split}.txt").unlink(missing_ok=True)

    return [folder / "wnids.txt", folder / "val" / "val_annotations.txt"], read


def cifar10(root: Path) -> Made:
    write_cifar10(root)
    return [root / "cifar10.npz"], lambda: check_images(load_cifar10(root))


def cifar10_batches(root: Path) -> Made:
    write_batches(root / "cifar-10-batches-py", published()[0])
    return sorted((root / "cifar-10-batches-py").iterdir()), lambda: check_images(load_cifar10(root))


def cifar100_batches(root: Path) -> Made:
    write_batches(root / "cifar-100-python", published(300, CIFAR_100)[0])
    return sorted((root / "cifar-100-python").iterdir()), lambda: check_images(load_cifar100(root))


def mnist(root: Path) -> Made:
    write_mnist(root)
    return sorted((root / "MNIST" / "raw").iterdir()), lambda: check_images(load_mnist(root))


# Zoos


def check_zoo(folder: Path) -> None:
    zoo = load_zoo(folder)
    assert len(zoo.nets) == len(zoo.nets.facts) == len(zoo.nets.rows) > 0
    assert all(isinstance(facts["step"], int) and 0 <= facts["test_accuracy"] <= 100 for facts in zoo.nets.facts)
    finite(zoo.nets.rows)


def own_zoo(root: Path) -> Made:
    """A zoo whose fingerprints are always those of its files: nothing but the content can give damage away."""
    folder = root / "zoo"
    zoo_of(folder, ("lenetlike", "resnet8"), nets=1)
    text = (folder / ABOUT).read_bytes()

    def read() -> None:
        if (folder / ABOUT).read_bytes() != text:
            return check_zoo(folder)
        sign(folder)
        try:
            check_zoo(folder)
        finally:
            (folder / ABOUT).write_bytes(text)

    return [
        folder / ABOUT,
        folder / "facts.csv",
        folder / "lenetlike.safetensors",
        folder / "resnet8.safetensors",
    ], read


def foreign_zoo(layout: str, make: Callable[[Path], Any]) -> Callable[[Path], Made]:
    """A zoo of others; what can be read of it makes a zoo that opens."""

    def made(root: Path) -> Made:
        make(root / "zoo")
        options = ZooOptions()

        def read() -> None:
            sources, left_out = read_zoo(root / "zoo", layout, "mnist", options)
            with tempfile.TemporaryDirectory() as folder:
                write_foreign_zoo(Path(folder) / "new", sources, left_out, "mnist", options, {})
                check_zoo(Path(folder) / "new")

        return sorted(path for path in (root / "zoo").rglob("*") if path.is_file()), read

    return made


def two_trials(source: Path) -> None:
    for i in range(2):
        trial(source, i, "tanh", epochs=(0, 1), results=(0, 1))


# Shapes


def samples(root: Path) -> Made:
    rows = np.random.default_rng(0).uniform(0.1, 0.5, (50, 4)).astype(np.float32)
    np.savez(root / "a.npz", pos=rows, neg=rows * [1, 1, 1, -1])

    def read() -> None:
        found = read_samples(root / "a.npz")
        for rows in (found.positive, found.negative):
            assert rows.dtype == np.float32 and rows.ndim == 2 and rows.shape[1] == 4 and len(rows)
            assert np.isfinite(rows).all()

    return [root / "a.npz"], read


def mesh(suffix: str) -> Callable[[Path], Made]:
    def make(root: Path) -> Made:
        path = root / f"a{suffix}"
        trimesh.creation.icosphere(1).export(path)

        def read() -> None:
            found = read_mesh(path)
            assert len(found.faces) and np.isfinite(found.vertices).all() and found.faces.max() < len(found.vertices)
            assert np.linalg.norm(found.vertices, axis=1).max() < 1

        return [path], read

    return make


KINDS: dict[str, Callable[[Path], Made]] = {
    "instance .safetensors": instance(".safetensors", 1),
    "instance .pt": instance(".pt", 0),
    "instance .pt, old format": instance(".pth", 0),
    "instance .ckpt": instance(".ckpt", 1, lambda state: {"state_dict": state, "epoch": 3, "best": 61.5}),
    "SIREN": siren,
    "checkpoint": checkpoint,
    "saved space": saved_space,
    "search": search,
    "accuracies": accuracies,
    "input list": input_list,
    "scalars": scalars,
    "made_with": made_with,
    "results": results,
    "pictures": pictures,
    "class folders": class_folders,
    "Tiny-ImageNet": tiny_imagenet,
    "Tiny-ImageNet without lists": tiny_imagenet_without_lists,
    "CIFAR-10": cifar10,
    "CIFAR-10 batches": cifar10_batches,
    "CIFAR-100 batches": cifar100_batches,
    "MNIST": mnist,
    "samples": samples,
    "zoo": own_zoo,
    "zoo of modelzoos.cc": foreign_zoo("modelzoos", two_trials),
    "Unterthiner's zoo": foreign_zoo("unterthiner", lambda source: unterthiner(source, 1, ["relu"], compressed=False)),
    **{f"mesh {suffix}": mesh(suffix) for suffix in (".obj", ".ply", ".stl", ".off", ".glb")},
}
