"""A trained space and what its PReps hold: from a run's folder, from a folder to take away, from the original release."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from data.files import read_json, write_json, write_safetensors
from data.fingerprints import fingerprint_of_file
from data.images import IMAGENET_MEAN, IMAGENET_STD
from models.architecture_pool import ArchitecturePool
from models.errors import InputError
from models.prep import check_prep_shape
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.registry import ARCHITECTURES, architectures_by_class_id, get_architecture
from models.siren import SirenNets
from training.checkpoints import load_checkpoint, net_space_of
from training.provenance import as_json

WEIGHTS, CONFIG = "netspace.safetensors", "config.json"
FORMAT = 1  # of a folder to take away
ORIGINAL_IMAGES = {"cifar10": (32, 10), "tiny-imagenet-200": (64, 200)}  # side, classes
ORIGINALS = (*(f"{dataset}/{setting}" for dataset in ORIGINAL_IMAGES for setting in ("single", "multi")), "mlps")


@dataclass(frozen=True)
class Space:
    """`decodes` says what instances the PReps hold, as JSON: `siren_widths`, or `architectures` by ClassId with
    `image_shape`, `class_names` and the `mean` and `std` that images are normalized with. `trained` is with what."""

    autoencoder: PrepAutoencoder
    decodes: dict[str, Any]
    trained: dict[str, Any]

    def nets(self) -> ArchitecturePool | list[SirenNets]:
        """By ClassId, how instances run."""
        prep_shape = self.autoencoder.sizes.prep_shape
        if "siren_widths" in self.decodes:
            siren = SirenNets(tuple(self.decodes["siren_widths"]))
            check_prep_shape(prep_shape, siren.num_parameters, "the SIREN")
            return [siren]
        chosen = [get_architecture(name) for name in self.decodes["architectures"]]
        channels, side, _ = self.decodes["image_shape"]
        return ArchitecturePool((channels, side, side), len(self.decodes["class_names"]), prep_shape, chosen)


def decodes_of_original(name: str) -> dict[str, Any]:
    """What a checkpoint of the original release decodes, one of ORIGINALS; it does not say so itself."""
    if name not in ORIGINALS:
        raise InputError(f"original '{name}': choose {', '.join(ORIGINALS)}")
    if name == "mlps":
        return {"siren_widths": [3, 256, 256, 1]}
    dataset, setting = name.split("/")
    side, classes = ORIGINAL_IMAGES[dataset]
    architectures = ["resnet8"] if setting == "single" else [each.name for each in architectures_by_class_id()]
    normalization = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    images = {"dataset": dataset, "image_shape": [3, side, side], "class_names": [str(i) for i in range(classes)]}
    return {"architectures": architectures, **images, **normalization}


def check_decodes(decodes: Any, path: Path) -> int:
    """The number of architectures. Raises InputError, naming the file, unless these are entries as Space has them."""
    if isinstance(decodes, dict) and "siren_widths" in decodes:
        widths = decodes["siren_widths"]
        if isinstance(widths, list) and all(type(width) is int and 0 < width < 2**16 for width in widths):
            return 1
        raise InputError(f"{path}: siren_widths {widths} are no widths, as in [3, 256, 256, 1]; save the space again")
    names, shape, classes = (
        decodes.get(name) if isinstance(decodes, dict) else None
        for name in ("architectures", "image_shape", "class_names")
    )
    if not isinstance(names, list) or not names or not set(map(str, names)) <= set(ARCHITECTURES):
        raise InputError(
            f"{path}: architectures {names}, known are {', '.join(ARCHITECTURES)}; add it to models/registry.py"
        )
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 0 < n < 2**16 for n in shape):
        raise InputError(f"{path}: image_shape {shape} is not [channels, side, side]; save the space again")
    if not isinstance(classes, list) or not classes:
        raise InputError(f"{path}: class_names {classes} are no list of names; save the space again")
    return len(names)


def load_space(path: Path, original: str | None = None) -> Space:
    """The best checkpoint of a run's folder, a checkpoint file, or a folder that `save_space` wrote, on the CPU.

    `original` says what a checkpoint decodes that does not say so, one of ORIGINALS. Raises InputError if there is none, it
    is broken or does not say what it decodes.
    """
    if (path / CONFIG).is_file():
        return load_saved_space(path)
    checkpoint = path if path.suffix and not path.is_dir() else path / "best.pt"
    made_by = "python train_single_arch.py, train_multi_arch.py or train_mlps.py, whichever made this folder"
    saved = load_checkpoint(checkpoint, made_by)
    decodes = decodes_of_original(original) if original else saved.get("decodes")
    if decodes is None:
        raise InputError(
            f"{checkpoint} does not say what its PReps hold; if it is of the original release, give original=, one of {', '.join(ORIGINALS)}"
        )
    num_architectures = check_decodes(decodes, checkpoint)
    autoencoder = net_space_of(saved, checkpoint, made_by, num_architectures if num_architectures > 1 else None)
    trained = {name: saved[name] for name in ("constants", "versions", "epoch", "step", "best_score") if name in saved}
    return Space(autoencoder, decodes, trained)


def save_space(space: Space, folder: Path) -> None:
    """`netspace.safetensors` and `config.json`, all that another machine needs. Raises InputError if it cannot write."""
    state = {name: value.detach().cpu().contiguous() for name, value in space.autoencoder.state_dict().items()}
    write_safetensors(folder / WEIGHTS, state)
    sizes, trained = asdict(space.autoencoder.sizes), as_json(space.trained)
    # Of the weights, so that one of two files that was written by another save is noticed.
    weights = fingerprint_of_file(folder / WEIGHTS)
    config = {"format": FORMAT, "weights": weights, "sizes": sizes, "decodes": space.decodes, "trained": trained}
    write_json(folder / CONFIG, config)


def load_saved_space(folder: Path) -> Space:
    config = read_json(folder / CONFIG, "save the space again")
    if config.get("format") != FORMAT:
        raise InputError(
            f"{folder / CONFIG} has format {config.get('format')}, this version reads {FORMAT}; save the space again"
        )
    num_architectures = check_decodes(config.get("decodes"), folder / CONFIG)
    try:
        sizes = Sizes(**{k: tuple(v) if isinstance(v, list) else v for k, v in config["sizes"].items()})
        autoencoder = PrepAutoencoder(sizes, num_architectures if num_architectures > 1 else None)
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{folder / CONFIG}: sizes {config.get('sizes')} are not those of a NetSpace; save it again"
        ) from None
    try:
        if fingerprint_of_file(folder / WEIGHTS) != config.get("weights"):
            raise ValueError("other weights")
        state = load_file(folder / WEIGHTS)
        autoencoder.load_state_dict(state)
    except Exception as error:  # depends on what is wrong with it
        raise InputError(
            f"{folder / WEIGHTS} is not the space of {CONFIG} beside it ({type(error).__name__}); save the space again"
        ) from None
    if not all(value.is_floating_point() and value.isfinite().all() for value in state.values()):
        raise InputError(f"{folder / WEIGHTS} holds NaN, infinity or no floating point numbers; save the space again")
    return Space(autoencoder.eval(), config["decodes"], config.get("trained", {}))
